#!/usr/bin/env bash
# Installs what building needs where it is missing: a C compiler, and Rust. With `--tests` also Python with venv and a
# C++ compiler, which the serving clients of the test lanes are made with.
set -euo pipefail
wanted=() as_root=()
[ "$(id -u)" = 0 ] || as_root=(sudo)
command -v cc >/dev/null || wanted+=(gcc libc6-dev)
command -v cargo >/dev/null || [ -x "$HOME/.cargo/bin/cargo" ] || command -v curl >/dev/null || wanted+=(curl ca-certificates)
if [ "${1:-}" = --tests ]; then
    command -v c++ >/dev/null || wanted+=(g++)
    command -v git >/dev/null || wanted+=(git)
    { command -v python3 >/dev/null && python3 -c 'import ensurepip' 2>/dev/null; } || wanted+=(python3-venv python3-pip)
fi
if [ ${#wanted[@]} -gt 0 ]; then
    "${as_root[@]}" apt-get update -q
    "${as_root[@]}" apt-get install -qy --no-install-recommends "${wanted[@]}"
fi
if ! command -v cargo >/dev/null && [ ! -x "$HOME/.cargo/bin/cargo" ]; then
    curl -sSf https://sh.rustup.rs | sh -s -- -y --profile minimal -c clippy -c rustfmt
fi
