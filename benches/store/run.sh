#!/usr/bin/env bash
# A sweep of twelve candidates with a store against twelve cold runs of our own, in CPU-seconds without evaluation; disk of the
# twelve checkpoints; what a store costs a single cold candidate. Writes benches/results/store.json.
#
# usage: benches/store/run.sh [MODEL [SAMPLES]]     (examples/models/tiny-llama and its 64 samples by default)
#   QLAUNCH_BENCH_SINGLE=FOLDER  also takes a single cold candidate (FP8) of this model with a store and without, three times each
#                                in turn; the folder needs a tokens.npy, as those of benches/modelopt/models.py have
# Needs Rust and Python 3.10 or newer. QLAUNCH names another build to measure.
set -euo pipefail

root=$(cd "$(dirname "$0")/../.." && pwd)
cd "$root"
if [ -z "${QLAUNCH:-}" ]; then
    cargo build --release --quiet --workspace
    QLAUNCH=${CARGO_TARGET_DIR:-$root/target}/release/qlaunch
fi
mkdir -p benches/results
python3 benches/store/measure.py "$QLAUNCH" "${1:-examples/models/tiny-llama}" "${2:-64}" "${QLAUNCH_BENCH_SINGLE:-}" >benches/results/store.json.new
mv benches/results/store.json.new benches/results/store.json
cat benches/results/store.json
