#!/usr/bin/env bash
# Two ranks of one thread against one, and the memory of each rank against its bound; writes benches/results/ranks.json.
#
# usage: benches/ranks/run.sh [SAMPLES]    (32 samples of 512 tokens by default; QLAUNCH_BENCH_BIG=1 adds a model whose share of
#                                           a rank is more than four times the bound: 112 layers, 10 GB of disk, with 8 samples)
# Needs an otherwise idle machine with two cores or more, Rust, and Python 3.10 or newer; numpy comes from PyPI. Random models of
# the shape of TinyLlama-1.1B are made once, in ${QLAUNCH_CACHE:-~/.cache/qlaunch}. QLAUNCH names another build to measure.
set -euo pipefail

root=$(cd "$(dirname "$0")/../.." && pwd)
samples=${1:-32}
base=${QLAUNCH_CACHE:-$HOME/.cache/qlaunch}
cache=$base/bench-models
python=$base/bench-venv/bin/python
cd "$root"
if [ -z "${QLAUNCH:-}" ]; then
    cargo build --release --quiet --workspace
    QLAUNCH=${CARGO_TARGET_DIR:-$root/target}/release/qlaunch
fi
if ! "$python" -c 'import numpy' 2>/dev/null; then
    mkdir -p "$base"
    python3 -m venv "$base/bench-venv"
    "$python" -m pip install --quiet numpy
fi
model() { # FOLDER LAYERS
    [ -f "$1/config.json" ] || "$python" benches/modelopt/models.py "$1" llama-1b "$2" >&2
}
mkdir -p "$cache" benches/results
model "$cache/llama-1b" 22
models=("$cache/llama-1b:$samples")
if [ "${QLAUNCH_BENCH_BIG:-}" = 1 ]; then
    model "$cache/llama-1b-112" 112
    models+=("$cache/llama-1b-112:8")
fi
"$python" benches/ranks/measure.py "$QLAUNCH" "${models[@]}" >"$cache/ranks.json"
mv "$cache/ranks.json" benches/results/ranks.json
cat benches/results/ranks.json
