#!/usr/bin/env bash
# Points the built `qlaunch` at the recipe folder of NVIDIA ModelOpt 0.47, as PyPI has it, and compares every entry with
# what ModelOpt's own loader makes of it (tests/golden/recipes/digests.json).
#
# Only the wheel's data is used: it is unpacked, never installed or imported, and none of its dependencies is fetched.
# It is downloaded once. Needs python3 with venv, and `cargo build` before.
#   QLAUNCH_CLIENTS       where the wheel goes (default ~/.cache/qlaunch/clients)
#   QLAUNCH_REQUIRE_REAL  with 1, a wheel that cannot be had is a failure instead of a skipped lane
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
root=$(dirname "$(dirname "$here")")
clients=${QLAUNCH_CLIENTS:-$HOME/.cache/qlaunch/clients}
version=0.47.0
sha256=db13e62d7efe4a1512e8b8c3f479e28d64022306f94a194f13234e7dca1d3120
recipes=$clients/modelopt-$version/modelopt_recipes
program=${CARGO_TARGET_DIR:-$root/target}/debug/qlaunch

. "$root/tests/lane.sh"

# Downloads and unpacks beside the final place and renames, so that a kill leaves nothing that looks finished.
fetch() {
    local work wheel
    work=$(mktemp -d "$clients/fetch.XXXXXX")
    # shellcheck disable=SC2064 # The folder of now.
    trap "rm -rf '$work'" EXIT
    python3 -m venv "$work/venv" || return 1
    "$work/venv/bin/pip" download -q --disable-pip-version-check --no-deps --only-binary :all: -d "$work" \
        "nvidia-modelopt==$version" || return 1
    wheel=$(echo "$work"/nvidia_modelopt-"$version"-*.whl)
    echo "$sha256  $wheel" | sha256sum --check --quiet \
        || die "$wheel is not the pinned file" "compare sha256 in tests/modelopt/run.sh with PyPI"
    python3 - "$wheel" "$work/unpacked" <<'END' || return 1
import sys, zipfile
with zipfile.ZipFile(sys.argv[1]) as wheel:
    wheel.extractall(sys.argv[2], [name for name in wheel.namelist() if name.startswith("modelopt_recipes/")])
END
    [ -d "$work/unpacked/modelopt_recipes" ] || return 1
    mv -T "$work/unpacked" "$clients/modelopt-$version"
}

[ -x "$program" ] || die "$program is missing" "cargo build --workspace"
command -v python3 >/dev/null || skip "modelopt recipes" "this machine lacks python3"
mkdir -p "$clients"
# Two lanes may ask at once: the second waits and finds everything there.
exec 9>"$clients/modelopt.lock"
flock 9
[ -d "$recipes" ] || fetch || skip "modelopt recipes" "nvidia-modelopt $version cannot be had from PyPI"
python3 "$here/compare.py" "$program" "$recipes" "$root/tests/golden/recipes/digests.json"
