#!/usr/bin/env bash
# Weight quantization against memcpy, both on 2 threads; writes benches/results/codec.json.
# Usage: benches/codec/run.sh [THREADS [ROUNDS]]
set -euo pipefail
cd "$(dirname "$0")/../.."

export CODEC_THREADS="${1:-2}" CODEC_ROUNDS="${2:-30}"
load="$(cut -d' ' -f1 /proc/loadavg)"
echo "load average before the bench: $load (above $(nproc) the results are of a busy machine)" >&2
mkdir -p benches/results
cargo bench --locked -p qlaunch-worker --bench codec > benches/results/codec.json.part
mv benches/results/codec.json.part benches/results/codec.json
cat benches/results/codec.json
