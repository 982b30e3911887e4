#!/usr/bin/env bash
# From a fresh Debian or Ubuntu machine to a judged portfolio: installs a C compiler and Rust where they are missing,
# builds qlaunch, and quantizes, gates, evaluates and judges the example model with four recipes.
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/.."
scripts/tools.sh
export PATH="$HOME/.cargo/bin:$PATH"
cargo build --release --locked -p qlaunch -p qlaunch-worker
exec target/release/qlaunch submit --cluster local "$@" examples/sweeps/tiny-llama.yaml
