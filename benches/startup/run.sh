#!/usr/bin/env bash
# Start-up of `qlaunch --help`. Results: benches/results/startup.json.
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/../.."
mkdir -p benches/results
cargo bench -q --locked -p qlaunch --bench startup -- "$PWD/benches/results/startup.json"
