#!/usr/bin/env bash
# Builds the fuzz targets with coverage counters and runs each for some time, from its seeds and from what earlier runs
# found. Needs the pinned Rust and a C++ compiler (libFuzzer is C++), no nightly and no cargo-fuzz.
#   tests/fuzz/run.sh [SECONDS [TARGET…]]   60 seconds and every target by default
# A finding ends it with a failure and is kept below target/fuzz/findings/; give that file to the target's program to
# see it again.
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
root=$(dirname "$(dirname "$here")")
seconds=${1:-60}
targets=("${@:2}")
[ ${#targets[@]} -gt 0 ] || targets=(yaml recipe matcher)
case $seconds in '' | *[!0-9]*) printf 'error: `%s` is no number of seconds\nhint: tests/fuzz/run.sh 60 yaml\n' "$seconds" >&2; exit 2 ;; esac
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$root/target}/fuzz
export PATH="$HOME/.cargo/bin:$PATH" CARGO_INCREMENTAL=0
command -v c++ >/dev/null || { printf 'error: there is no C++ compiler\nhint: scripts/tools.sh --tests\n' >&2; exit 1; }

# The flags of cargo-fuzz without the sanitizers, which only nightly has and safe Rust does not need. They count for one
# target triple, so that build scripts and macros stay without counters.
sancov=(-sanitizer-coverage-level=4 -sanitizer-coverage-inline-8bit-counters -sanitizer-coverage-pc-table
    -sanitizer-coverage-trace-compares -simplifycfg-branch-fold-threshold=0)
export RUSTFLAGS="-Cpasses=sancov-module ${sancov[*]/#/-Cllvm-args=} --cfg fuzzing"
triple=$(rustc -vV | sed -n 's/^host: //p')
cargo build --release --locked --manifest-path "$here/Cargo.toml" --target "$triple"

# Runs one target; says how far it came, or what it found.
run() { # target
    local target=$1 found=$CARGO_TARGET_DIR/corpus/$1 findings=$CARGO_TARGET_DIR/findings log=$CARGO_TARGET_DIR/$1.log
    local program=$CARGO_TARGET_DIR/$triple/release/$target dictionary=() seeds
    mkdir -p "$found" "$findings"
    seeds=("$found" "$here/seeds/$target")
    # Every file of the library is YAML that must be understood.
    [ "$target" != yaml ] || mapfile -t -O 2 seeds < <(find "$root/recipes" -type d)
    [ "$target" = matcher ] || dictionary=("-dict=$here/yaml.dict")
    # The timeout is of wall time, on machines that may have other work: an input that hangs is found all the same.
    if ! "$program" "-max_total_time=$seconds" -timeout=30 -rss_limit_mb=512 -max_len=16384 -print_final_stats=1 \
        "-artifact_prefix=$findings/$target-" "${dictionary[@]}" "${seeds[@]}" >"$log" 2>&1; then
        tail -n 60 "$log" >&2
        printf 'error: the fuzz target `%s` found something\nhint: %s FILE, with the file named above\n' \
            "$target" "$program" >&2
        return 1
    fi
    sed -n "s/^Done \([0-9]*\) runs in \([0-9]*\).*/$target: \1 inputs in \2 s, nothing found/p" "$log"
}

failed=0 running=0
finish_one() {
    wait -n || failed=1
    running=$((running - 1))
}
for target in "${targets[@]}"; do
    [ "$running" -lt "$(nproc)" ] || finish_one
    run "$target" &
    running=$((running + 1))
done
while [ "$running" -gt 0 ]; do finish_one; done
exit "$failed"
