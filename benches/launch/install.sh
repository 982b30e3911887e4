#!/usr/bin/env bash
# Puts NeMo-Run and submitit from PyPI into a virtual environment under the cache folder, and prints its place.
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
venv=${XDG_CACHE_HOME:-$HOME/.cache}/qlaunch/launch-bench
if ! cmp -s "$here/requirements.txt" "$venv/requirements.txt"; then
    rm -rf "$venv"
    python3 -m venv "$venv"
    "$venv/bin/pip" install -q --disable-pip-version-check -r "$here/requirements.txt" >&2
    cp "$here/requirements.txt" "$venv/"
fi
echo "$venv"
