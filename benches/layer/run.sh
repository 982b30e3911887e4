#!/usr/bin/env bash
# One Llama layer and one matrix product, ours against torch, interleaved in one run; writes benches/results/layer.json.
#
# usage: benches/layer/run.sh [ROUNDS]    (3 by default; the cheapest of all rounds counts)
# Needs Rust and Python 3.10 or newer; installs torch from PyPI into ${QLAUNCH_CACHE:-~/.cache/qlaunch} if it is not there.
set -euo pipefail

root=$(cd "$(dirname "$0")/../.." && pwd)
rounds=${1:-3}
cache=${QLAUNCH_CACHE:-$HOME/.cache/qlaunch}
python=$cache/bench-venv/bin/python

if ! "$python" -c 'import torch' 2>/dev/null; then
    echo "installing torch into $cache/bench-venv" >&2
    mkdir -p "$cache"
    python3 -m venv "$cache/bench-venv"
    "$python" -m pip install --quiet torch numpy
fi

cd "$root"
cargo build --release --quiet -p qlaunch-worker --example layer
layer=${CARGO_TARGET_DIR:-$root/target}/release/examples/layer

lines=$(mktemp)
trap 'rm -f "$lines"' EXIT
for round in $(seq "$rounds"); do
    echo "round $round of $rounds" >&2
    "$layer" >>"$lines"
    "$python" benches/layer/torch_layer.py >>"$lines"
done
mkdir -p benches/results
"$python" benches/layer/compare.py "$lines" >benches/results/layer.json
cat benches/results/layer.json
