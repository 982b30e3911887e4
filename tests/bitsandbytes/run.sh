#!/usr/bin/env bash
# Quantizes tiny-llama to NF4, loads every weight with the bitsandbytes package on the CPU, and compares values and codes.
#
# torch and safetensors are those of the serving clients (tests/serving/install.sh); bitsandbytes is one wheel from PyPI,
# pinned, downloaded once and unpacked beside them. Needs `cargo build` before.
#   QLAUNCH_CLIENTS       where packages are kept (default ~/.cache/qlaunch/clients)
#   QLAUNCH_PYTHON        a Python that has torch and safetensors (default: the serving clients')
#   QLAUNCH_REQUIRE_REAL  with 1, missing packages are a failure instead of a skipped lane
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
root=$(dirname "$(dirname "$here")")
clients=${QLAUNCH_CLIENTS:-$HOME/.cache/qlaunch/clients}
python=${QLAUNCH_PYTHON:-$clients/venv/bin/python}
version=0.50.2
packages=$clients/bitsandbytes-$version
program=${CARGO_TARGET_DIR:-$root/target}/debug/qlaunch

. "$root/tests/lane.sh"

# Downloads and unpacks beside the final place and renames, so that a kill leaves nothing that looks finished.
fetch() {
    local work
    mkdir -p "$clients"
    work=$(mktemp -d "$clients/fetch.XXXXXX")
    # shellcheck disable=SC2064 # The folder of now.
    trap "rm -rf '$work'" EXIT
    python3 -m pip download -q --disable-pip-version-check --no-deps --only-binary :all: -d "$work" \
        "bitsandbytes==$version" || return 1
    python3 -m zipfile -e "$work"/bitsandbytes-"$version"-*.whl "$work/unpacked" || return 1
    mv "$work/unpacked" "$packages"
}

[ -x "$program" ] || die "there is no $program" "cargo build"
"$python" -c 'import torch, safetensors' 2>/dev/null || skip "bitsandbytes" "no torch; tests/serving/install.sh installs it"
[ -d "$packages" ] || fetch || skip "bitsandbytes" "the wheel of bitsandbytes $version cannot be had"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$program" quantize "$root/examples/models/tiny-llama" --recipe nf4 --out "$work/checkpoint" --yes --format json >"$work/report.json"
PYTHONPATH=$packages "$python" "$here/compare.py" "$root/examples/models/tiny-llama" "$work/checkpoint"
