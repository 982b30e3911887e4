#!/usr/bin/env bash
# Everything that only a GPU can show, in one call: operations and codecs against the CPU, whole jobs byte by byte, ranks that share
# the GPU, NCCL, bandwidth of the codecs, speed of calibration. The machine with the GPU needs no compiler and no network: build
# here, carry target/gpu.tar.gz there (22 MB).
#   tests/gpu/run.sh build    compiles the programs and packs them into target/gpu.tar.gz
#   tests/gpu/run.sh          runs them; figures go to benches/results/gpu.json, or to gpu.json in $OUT; fails where there is no GPU
#   tests/gpu/run.sh rehearse does both on the emulated GPU, in minutes: all steps but NCCL, small sizes, figures without meaning
# cuBLASLt and NCCL are found in Python environments too. With torch and transformers there, the same model is timed beside ours.
# The model that is timed has 16 GB, which lie in $TMPDIR meanwhile.
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/../.."
target=${CARGO_TARGET_DIR:-target}
programs=$target/gpu
build() { # FOLDER CARGO'S FLAGS...
    local from=$target/$1
    shift
    mkdir -p "$programs"
    tests=$(cargo test "$@" --locked -p qlaunch-worker --lib --no-run --message-format=json |
        sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | tail -n 1)
    cargo build "$@" --locked -p qlaunch -p qlaunch-worker
    cargo build "$@" --locked -p qlaunch-worker --example gpu
    cp "$tests" "$programs/operations"
    cp "$from/qlaunch" "$from/qlaunch-worker" "$programs"
    cp "$from/examples/gpu" "$programs/measure"
}
rehearsal=
case "${1:-}" in
build)
    build release --release
    strip "$programs"/*
    tar czf "$programs.tar.gz" -C "$target" gpu
    ls -l "$programs" "$programs.tar.gz"
    exit
    ;;
rehearse)
    rehearsal=yes
    programs=$target/gpu-rehearsal
    build debug
    worker/kernels/emulator/build.sh "$PWD/$target/emulated-gpu"
    export LD_LIBRARY_PATH=$PWD/$target/emulated-gpu QLAUNCH_GPU_SIZES="128 1 1"
    ;;
esac
if [ ! -d "$programs" ] && [ -f "$programs.tar.gz" ]; then tar xzf "$programs.tar.gz" -C "$target"; fi
for program in operations qlaunch qlaunch-worker measure; do
    [ -x "$programs/$program" ] && continue
    echo "error: $programs/$program is missing; hint: tests/gpu/run.sh build" >&2
    exit 1
done
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=()
step() { # NAME COMMAND...
    local name=$1
    shift
    echo "=== $name"
    if "$@"; then echo "--- $name: ok"; else failed+=("$name"); fi
}
quantize() { # OUT RECIPE MODEL FLAGS...
    local out=$1 recipe=$2 model=$3
    shift 3
    QLAUNCH_WORKER=$PWD/$programs/qlaunch-worker "$programs/qlaunch" quantize "examples/models/$model" --recipe "$recipe" \
        --calib examples/data/calib_tokens.npy --samples 8 --seq-len 64 --out "$out" --yes --format json "$@" >"$out.json"
}
same_weights() { # RECIPE MODEL
    local name=${1##*/}
    quantize "$work/$name-cpu" "$1" "$2" --device cpu &&
        quantize "$work/$name-gpu" "$1" "$2" --device cuda &&
        quantize "$work/$name-two" "$1" "$2" --device cuda:0 --ranks 2 &&
        python3 tests/gpu/compare.py close "$work/$name-cpu" "$work/$name-gpu" &&
        python3 tests/gpu/compare.py equal "$work/$name-gpu" "$work/$name-two" &&
        rm -r "$work/$name"-*
}
export QLAUNCH_REQUIRE_GPU=${QLAUNCH_REQUIRE_GPU-1}
nvidia-smi --query-gpu=name,driver_version,compute_cap --format=csv,noheader || true
step 'what the node has' "$programs/qlaunch-worker" probe
step 'operations, products, attention' "$programs/operations" ops::cuda --test-threads=1
step 'codecs and roundings' "$programs/operations" device_tests --test-threads=1
if [ -n "$rehearsal" ]; then
    echo 'SKIPPED: one rank over NCCL: nobody emulates it'
else
    step 'one rank over NCCL' "$programs/operations" one_rank_joins_the_nccl_of_this_host --ignored --test-threads=1
fi
for recipe in nvfp4_default-kv_fp8 fp8_default-kv_fp8 nvfp4_weight_only-kv_fp16; do
    step "the CPU's weights, $recipe, alone and by two ranks" same_weights "general/ptq/$recipe" tiny-llama
done
step "the CPU's weights, experts" same_weights general/ptq/nvfp4_default-kv_fp8 tiny-qwen3-moe
measured=$work/measured.json
step 'bandwidth and speed' sh -c "'$programs/measure' ${QLAUNCH_GPU_SIZES:-} >'$measured' && cat '$measured'"
beside=$work/transformers.json
if python3 -c 'import torch, transformers' 2>/dev/null; then
    step 'transformers on the same GPU' sh -c "python3 tests/gpu/transformers_forward.py >'$beside' && cat '$beside'"
else
    echo 'SKIPPED: transformers on the same GPU: torch or transformers cannot be imported'
fi
results=${OUT:-benches/results}/gpu.json
if [ -n "$rehearsal" ]; then results=$work/gpu.json; fi
all_failed=$(printf '%s\n' "${failed[@]:-}")
python3 tests/gpu/compare.py results "$measured" "$beside" "$all_failed" >"$results"
cat "$results"
if [ ${#failed[@]} -gt 0 ]; then
    echo "error: failed: ${failed[*]}" >&2
    exit 1
fi
