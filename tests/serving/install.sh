#!/usr/bin/env bash
# Installs the serving clients that the checks beside this file drive: vLLM for CPU, and llama.cpp with its converter.
#
# Everything comes from PyPI, pinned; nothing is downloaded twice; a second call is a no-op. Needs python3 (>= 3.10)
# with venv, a C++ compiler, 4 GB of disk.
#   QLAUNCH_CLIENTS   where they go (default ~/.cache/qlaunch/clients)
#   QLAUNCH_JOBS      compiler processes (default: every core)
set -euo pipefail

here=$(dirname "$(readlink -f "$0")")
clients=${QLAUNCH_CLIENTS:-$HOME/.cache/qlaunch/clients}
jobs=${QLAUNCH_JOBS:-$(nproc)}
llama_version=0.3.36
llama_sha256=832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e
python=$clients/venv/bin/python

say() { printf 'serving clients: %s\n' "$*" >&2; }
. "$here/../lane.sh"

# A stamp holds the digest of what its step was made from, so that a changed pin redoes the step.
is_done() { [ "$(cat "$clients/$1.stamp" 2>/dev/null)" = "$2" ]; }
mark_done() { printf '%s' "$2" >"$clients/$1.stamp"; }

# The list is complete: resolving again would only stumble over torch==2.13.0+cpu. Without uv's cache, which would keep a
# second copy, or be the same files and get their holes.
install_and_slim() { # requirements
    "$clients/tools/bin/uv" pip install -q --no-deps --no-cache --python "$python" -r <(echo "$1")
    python3 "$here/slim.py" "$clients/venv" >&2
}

install_python_packages() {
    local key
    key=$(sha256sum <"$here/requirements.txt")
    is_done venv "$key" && return
    say "installing vLLM and its packages (3 GB on disk)"
    rm -rf "$clients/venv" "$clients/venv.stamp"
    python3 -m venv "$clients/tools" || die "python3 has no venv module" "apt-get install -y python3-venv"
    "$clients/tools/bin/pip" install -q --disable-pip-version-check uv==0.13.8 cmake==4.1.2 ninja==1.13.0
    "$clients/tools/bin/uv" venv -q --python "$(command -v python3)" "$clients/venv"
    # Two steps, so that the first's 2.7 GB are 1.3 before the second begins.
    install_and_slim "$(grep '^nvidia-' "$here/requirements.txt")"
    install_and_slim "$(grep -v '^nvidia-' "$here/requirements.txt")"
    mark_done venv "$key"
}

fetch_llama_source() {
    is_done llama-source "$llama_sha256" && return
    say "fetching llama.cpp (77 MB)"
    local work
    work=$(mktemp -d "$clients/fetch.XXXXXX")
    python3 -m pip download -q --disable-pip-version-check --no-deps --no-binary llama-cpp-python -d "$work" \
        "llama-cpp-python==$llama_version"
    local archive=$work/llama_cpp_python-$llama_version.tar.gz
    echo "$llama_sha256  $archive" | sha256sum --check --quiet \
        || die "$archive is not the pinned file" "compare llama_sha256 in tests/serving/install.sh with PyPI"
    rm -rf "$clients/llama.cpp" "$clients/llama-build" "$clients/llama-build.stamp"
    tar xzf "$archive" -C "$work"
    mv "$work/llama_cpp_python-$llama_version/vendor/llama.cpp" "$clients/llama.cpp"
    rm -f "$clients/llama.cpp/.git"
    local packages
    packages=$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    rm -rf "$packages/llama_cpp"
    mv "$work/llama_cpp_python-$llama_version/llama_cpp" "$packages/"
    rm -rf "$work"
    mark_done llama-source "$llama_sha256"
}

build_llama() {
    local key="$llama_sha256 $(uname -m) 1"
    is_done llama-build "$key" && return
    say "building llama.cpp with $jobs processes"
    # GGML_NATIVE is off so that a cached build also runs on a machine with another CPU.
    PATH="$clients/tools/bin:$PATH" cmake -S "$clients/llama.cpp" -B "$clients/llama-build" -G Ninja \
        -DCMAKE_BUILD_TYPE=Release -DBUILD_SHARED_LIBS=ON -DGGML_NATIVE=OFF -DGGML_OPENMP=OFF \
        -DLLAMA_CURL=OFF -DLLAMA_OPENSSL=OFF -DLLAMA_BUILD_COMMON=OFF -DLLAMA_BUILD_TESTS=OFF \
        -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_TOOLS=OFF -DLLAMA_BUILD_SERVER=OFF -DLLAMA_BUILD_UI=OFF \
        >"$clients/llama-build.log" 2>&1 || { tail -5 "$clients/llama-build.log" >&2; exit 1; }
    PATH="$clients/tools/bin:$PATH" ninja -C "$clients/llama-build" -j "$jobs" llama \
        >>"$clients/llama-build.log" 2>&1 || { tail -20 "$clients/llama-build.log" >&2; exit 1; }
    mark_done llama-build "$key"
}

mkdir -p "$clients"
# Two lanes may ask at once: the second waits and finds everything there.
exec 9>"$clients/lock"
flock 9
install_python_packages
fetch_llama_source
build_llama
say "ready in $clients"
