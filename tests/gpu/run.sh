#!/usr/bin/env bash
# Every operation on a GPU against the CPU. The machine with the GPU needs no compiler: build here, carry the program there.
#   tests/gpu/run.sh build    compiles the worker's tests into target/gpu/operations
#   tests/gpu/run.sh          runs them; fails where there is no GPU. cuBLASLt of a Python environment is found too.
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/../.."
out=${CARGO_TARGET_DIR:-target}/gpu
if [ "${1:-}" = build ]; then
    mkdir -p "$out"
    built=$(cargo test --release --locked -p qlaunch-worker --lib --no-run --message-format=json |
        sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | tail -n 1)
    cp "$built" "$out/operations"
    strip "$out/operations"
    ls -l "$out/operations"
    exit
fi
[ -x "$out/operations" ] || { echo "error: $out/operations is missing; hint: tests/gpu/run.sh build" >&2; exit 1; }
nvidia-smi --query-gpu=name,driver_version,compute_cap --format=csv,noheader || true
wheels=$(python3 -c 'import nvidia.cublas as l; print(list(l.__path__)[0] + "/lib")' 2>/dev/null || true)
LD_LIBRARY_PATH=${wheels:+$wheels:}${LD_LIBRARY_PATH:-} QLAUNCH_REQUIRE_GPU=1 "$out/operations" ops::cuda --test-threads=1
