#!/usr/bin/env bash
# Compiles the CUDA kernels into worker/kernels/built/, or with --check compares what is committed with its sources.
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
venv=${QLAUNCH_NVRTC:-${XDG_CACHE_HOME:-$HOME/.cache}/qlaunch/nvrtc}
# The oldest NVRTC that knows all targets: its PTX is read by the most drivers.
wheel=nvidia-cuda-nvrtc-cu12==12.8.93
if [ "$(cat "$venv/wheel" 2>/dev/null)" != "$wheel" ]; then
    rm -rf "$venv"
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check "$wheel"
    echo "$wheel" >"$venv/wheel"
fi
exec "$venv/bin/python" "$here/build.py" "$@"
