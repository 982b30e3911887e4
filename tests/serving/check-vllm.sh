#!/usr/bin/env bash
# vLLM's own loader and forward on the CPU.
#   check-vllm.sh CHECKPOINT… --text FILE [--reference BF16_MODEL --max-dlogp X] [--max-ppl X] [--load-only]
# Exits with 0 only if every checkpoint loads and runs. Install the clients first: tests/serving/install.sh.
set -uo pipefail
here=$(dirname "$(readlink -f "$0")")
# The tree is not littered.
export PYTHONDONTWRITEBYTECODE=1
clients=${QLAUNCH_CLIENTS:-$HOME/.cache/qlaunch/clients}
python=$clients/venv/bin/python
[ -x "$python" ] || { echo "error: no vLLM in $clients; hint: $here/install.sh" >&2; exit 3; }

log=$(mktemp)
trap 'rm -f "$log"' EXIT
timeout "${TIMEOUT:-900}" "$python" "$here/vllm_check.py" "$@" >"$log" 2>&1
status=$?
# vLLM talks a lot; its own words only matter when there is no verdict.
grep -E '^(VERDICT|  (ERROR|WARN|quantization|methods|reference|load took|run took))' "$log"
[ $status = 124 ] && echo "VERDICT vllm FAIL: no answer within ${TIMEOUT:-900} s"
grep -q '^VERDICT' "$log" || { tail -20 "$log"; echo "VERDICT vllm FAIL: no verdict (exit code $status)"; }
exit $status
