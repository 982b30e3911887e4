#!/usr/bin/env bash
# The serving lane: what qlaunch exports is loaded and run by vLLM and llama.cpp, and our own evaluation agrees with vLLM's.
#   run.sh           FP8, NVFP4 and both in one checkpoint of the example model; a format that vLLM refuses
#   run.sh --full    every format that vLLM knows and every one that it refuses, mixtures of experts, damaged checkpoints, and
#                    random models of the other families
# Environment: QLAUNCH (the built program; default target/debug/qlaunch), QLAUNCH_CLIENTS (see install.sh).
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
root=$(dirname "$(dirname "$here")")
qlaunch=${QLAUNCH:-${CARGO_TARGET_DIR:-$root/target}/debug/qlaunch}
python=${QLAUNCH_CLIENTS:-$HOME/.cache/qlaunch/clients}/venv/bin/python
text=$root/examples/data/heldout.txt
model=$root/examples/models/tiny-llama
experts=$root/examples/models/tiny-qwen3-moe
mixed=$root/tests/recipes/mixed_fp8_nvfp4.yaml
recipes=(general/ptq/fp8_default-kv_fp8 general/ptq/nvfp4_default-kv_fp8)
# What only vLLM reads, what it refuses, and experts, whose kernels no CPU has: those are loaded and not run.
vllm_only=("$mixed") refused=(int4_awq) of_experts=()
if [ "${1:-}" = --full ]; then
    recipes+=(general/ptq/nvfp4_mlp_only-kv_fp8 general/ptq/nvfp4_weight_only-kv_fp16)
    vllm_only+=(fp8_per_channel_per_token mxfp8 nvfp4_awq_clip nvfp4_four_over_six)
    # The first: k and v of this model do not fill squares of 128.
    refused+=(fp8_2d_blockwise_weight_only int8_smoothquant int8_weight_only mxfp4 w4a8_awq_beta w4a8_nvfp4_fp8 nvfp4_awq_lite
        "$root/tests/recipes/fp8_kv_affine.yaml")
    of_experts=(general/ptq/fp8_default-kv_fp8 general/ptq/nvfp4_default-kv_fp8 w4a16_nvfp4 mxfp8 fp8_per_channel_per_token)
fi
[ -x "$qlaunch" ] || { echo "error: no $qlaunch; hint: cargo build --workspace" >&2; exit 3; }

"$here/install.sh"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0

place() { # model recipe
    echo "$work/$(basename "$1")-$(basename "$2" .yaml)"
}

# Checkpoints of the dense model come out of a store, as those of sweeps do: a file for each layer. The others are one file.
store=()

quantize() { # model recipe calibration
    "$qlaunch" quantize "$1" --recipe "$2" --calib "$3" --out "$(place "$1" "$2")" "${store[@]}" --yes --format json \
        >/dev/null 2>"$work/log" || { cat "$work/log" >&2; exit 1; }
}

# vLLM loads and runs every checkpoint of a model, and scores the same windows as `qlaunch eval`.
check_with_vllm() { # model windows checkpoint…
    local model=$1 windows=$2
    shift 2
    "$here/check-vllm.sh" "$@" --reference "$model" --windows "$windows" --json "$work/vllm.json" || failed=1
    for checkpoint in "$model" "$@"; do
        "$qlaunch" eval "$checkpoint" --data "$windows" --format json >"$work/ours.json" 2>"$work/log" \
            || { cat "$work/log" >&2; exit 1; }
        "$python" "$here/compare.py" "$checkpoint" "$work/ours.json" "$work/vllm.json" || failed=1
    done
    check_rules "$@"
}

# What our rules say of vLLM is what vLLM did.
check_rules() { # checkpoint…
    for checkpoint in "$@"; do
        "$python" "$here/rules.py" "$checkpoint" "$work/vllm.json" || failed=1
    done
}

checkpoints=()
store=(--store "$work/store")
for recipe in "${recipes[@]}"; do
    quantize "$model" "$recipe" "$root/examples/data/calib_tokens.npy"
    checkpoints+=("$(place "$model" "$recipe")")
done
for_vllm=("${checkpoints[@]}")
for recipe in "${vllm_only[@]}"; do
    quantize "$model" "$recipe" "$root/examples/data/calib_tokens.npy"
    for_vllm+=("$(place "$model" "$recipe")")
done
"$python" "$here/cut_windows.py" "$model" "$text" "$work/windows.npy"
check_with_vllm "$model" "$work/windows.npy" "${for_vllm[@]}"

# Loaded and not run: only whether vLLM takes them, and whether our rules knew.
loaded=()
for recipe in "${refused[@]}"; do
    quantize "$model" "$recipe" "$root/examples/data/calib_tokens.npy"
    loaded+=("$(place "$model" "$recipe")")
done
store=()
for recipe in "${of_experts[@]}"; do
    quantize "$experts" "$recipe" "$root/examples/data/calib_tokens.npy"
    loaded+=("$(place "$experts" "$recipe")")
done
# Refusals are expected among these: the rules' verdicts count.
"$here/check-vllm.sh" "${loaded[@]}" --text "$text" --load-only --json "$work/vllm.json" | sed 's/^VERDICT/  vLLM/' || true
check_rules "${loaded[@]}"
for checkpoint in "${checkpoints[@]}"; do
    "$here/check-llamacpp.sh" "$checkpoint" --text "$text" --max-ppl 200 || failed=1
done

# A check that cannot fail proves nothing: each damaged checkpoint must be refused.
check_refusals() { # checkpoint
    for mutant in $("$python" "$here/mutants.py" "$1" "$work/mutants"); do
        if "$here/check-vllm.sh" "$mutant" --text "$text" --max-ppl 200 >"$work/log"; then
            echo "VERDICT mutant FAIL $(basename "$mutant") was not noticed"
            failed=1
        else
            echo "VERDICT mutant PASS $(basename "$mutant") was refused"
        fi
    done
}

if [ "${1:-}" = --full ]; then
    check_refusals "$work/tiny-llama-nvfp4_default-kv_fp8"
    (cd "$root" && cargo run -q --locked -p qlaunch-tests --example random_models -- "$work/random")
    for name in llama3-rope-tied-sharded qwen2-biases-tied qwen3-head-norms-yarn mistral-wide-heads-sharded; do
        random=$work/random/$name
        for recipe in "${recipes[@]}"; do
            quantize "$random" "$recipe" "$root/tests/golden/random-models/$name.npy"
        done
        # Untrained models on windows that they sampled themselves magnify every difference in noise: docs/serving.md has
        # the figures, and why the 2% rule is for models that were trained.
        for recipe in "${recipes[@]}"; do
            "$here/check-vllm.sh" "$(place "$random" "$recipe")" --reference "$random" --text "$text" || failed=1
        done
    done
fi
exit $failed
