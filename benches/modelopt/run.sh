#!/usr/bin/env bash
# qlaunch against NVIDIA ModelOpt 0.47 in the same run: CPU-seconds, FLOP rate, peak memory; writes
# benches/results/modelopt.json and prints a table with a verdict for every target.
#
# usage: benches/modelopt/run.sh [--quick] [--only TEXT] [--rounds N] [--most-times N]
#   --quick   random models of two layers, one round; the figures go to $QLAUNCH_BENCH_DIR/modelopt-quick.json
#   --only    only the lines whose names contain TEXT, as in `calibrate/` or `tiny-llama/int4_awq`; the others stay
#   --most-times  ModelOpt is stopped where it has taken N times our CPU-seconds (default 20), five minutes at least
#   QLAUNCH_MODELOPT_PYTHON  a python that has ModelOpt; without it, install.sh makes one
#   QLAUNCH_BENCH_DIR        random models and outputs (default ~/.cache/qlaunch/bench; 8 GB)
# The whole run takes an hour or two on an idle machine. Needs Rust and Python 3.11 or newer.
set -euo pipefail

here=$(dirname "$(readlink -f "$0")")
root=$(dirname "$(dirname "$here")")
export QLAUNCH_BENCH_DIR=${QLAUNCH_BENCH_DIR:-$HOME/.cache/qlaunch/bench}
result=$root/benches/results/modelopt.json
flags=("$@")
for flag in "$@"; do
    [ "$flag" != --quick ] || result=$QLAUNCH_BENCH_DIR/modelopt-quick.json
done

python=${QLAUNCH_MODELOPT_PYTHON:-}
[ -n "$python" ] || python=$("$here/install.sh")
cd "$root"
# One call: examples bring features along, with which everything would be built twice.
cargo build --release --quiet --locked -p qlaunch -p qlaunch-worker --bins --example product
programs=${CARGO_TARGET_DIR:-$root/target}/release
mkdir -p "$QLAUNCH_BENCH_DIR" "$(dirname "$result")"
echo "load average before the bench: $(cut -d' ' -f1 /proc/loadavg) (above 1 the results are of a busy machine)" >&2
python3 "$here/compare.py" --modelopt "$python" --programs "$programs" --models "$QLAUNCH_BENCH_DIR" \
    --result "$result" "${flags[@]}"
