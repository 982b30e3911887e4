#!/usr/bin/env bash
# Every bench, one after another, on an otherwise idle machine. Each writes its figures to benches/results/.
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
for bench in codec file startup resolve launch layer ranks store; do
    printf '\n=== %s\n' "$bench"
    "$here/$bench/run.sh"
done
