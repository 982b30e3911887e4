#!/usr/bin/env bash
# llama.cpp on the CPU: converts a Hugging Face checkpoint with llama.cpp's own converter, then loads and runs it.
#   check-llamacpp.sh CHECKPOINT|FILE.gguf --text FILE [--max-ppl X] [--json FILE]
# Exits with 0 only on PASS. Install the clients first: tests/serving/install.sh.
set -uo pipefail
here=$(dirname "$(readlink -f "$0")")
# The tree is not littered.
export PYTHONDONTWRITEBYTECODE=1
clients=${QLAUNCH_CLIENTS:-$HOME/.cache/qlaunch/clients}
python=$clients/venv/bin/python
export LLAMA_CPP_LIB_PATH=$clients/llama-build/bin LLAMACPP_SOURCE=$clients/llama.cpp
[ -e "$LLAMA_CPP_LIB_PATH/libllama.so" ] || { echo "error: no llama.cpp in $clients; hint: $here/install.sh" >&2; exit 3; }

checkpoint=$1
shift
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
file=$checkpoint
if [ -d "$checkpoint" ]; then
    file=$work/model.gguf
    if ! "$python" "$here/gguf_convert.py" "$checkpoint" --outtype bf16 --outfile "$file" >"$work/log" 2>&1; then
        tail -3 "$work/log"
        echo "VERDICT llamacpp FAIL $checkpoint: convert_hf_to_gguf refused it"
        exit 1
    fi
fi
timeout "${TIMEOUT:-600}" "$python" "$here/gguf_check.py" "$file" --name "$checkpoint" "$@" >"$work/log" 2>&1
status=$?
grep -E '^(VERDICT|  (ERROR|architecture|dequantizers))' "$work/log"
grep -q '^VERDICT' "$work/log" || { tail -5 "$work/log"; echo "VERDICT llamacpp FAIL $checkpoint: no verdict (exit code $status)"; }
exit $status
