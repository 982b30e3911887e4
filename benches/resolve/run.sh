#!/usr/bin/env bash
# Every PTQ recipe against the headers of a mixture of experts with 100,000 tensors. Results: benches/results/resolve.json.
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/../.."
mkdir -p benches/results
cargo bench -q --locked -p qlaunch --bench resolve -- "$PWD/benches/results/resolve.json"
