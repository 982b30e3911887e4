#!/usr/bin/env bash
# Installs NVIDIA ModelOpt 0.47 and what it needs on a CPU; prints the path of its python. A second call is a no-op.
#
# Everything comes from PyPI, pinned. PyPI's torch is the one for CUDA and does not start without its libraries, so they
# come along; no GPU is needed.
#   QLAUNCH_CACHE  where it goes (default ~/.cache/qlaunch; 6 GB)
set -euo pipefail

here=$(dirname "$(readlink -f "$0")")
environment=${QLAUNCH_CACHE:-$HOME/.cache/qlaunch}/modelopt-env
key=$(sha256sum <"$here/requirements.txt")

mkdir -p "$environment"
# Two benches may ask at once: the second waits and finds everything there.
exec 9>"$environment.lock"
flock 9
if [ "$(cat "$environment/stamp" 2>/dev/null)" != "$key" ]; then
    echo "installing ModelOpt into $environment" >&2
    rm -rf "$environment"
    python3 -m venv "$environment"
    "$environment/bin/pip" install -q --disable-pip-version-check uv==0.13.8 >&2
    # The list is complete: resolving again would only add what a CPU cannot use.
    "$environment/bin/uv" pip install -q --no-deps --python "$environment/bin/python" -r "$here/requirements.txt" >&2
    printf '%s' "$key" >"$environment/stamp"
fi
echo "$environment/bin/python"
