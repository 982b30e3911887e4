#!/usr/bin/env bash
# File to file: source GB/s against a plain copy, and peak memory. Results: benches/results/file.json.
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/../.."
mkdir -p benches/results
cargo bench -q --locked -p qlaunch-worker --bench file -- "$PWD/benches/results/file.json"
