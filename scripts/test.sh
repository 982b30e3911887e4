#!/usr/bin/env bash
# Every lane, on a fresh Debian or Ubuntu machine: what is missing is installed first. Lanes that wait have others beside them.
#   scripts/test.sh          the fast lane, and a short pass of each real lane (within 45 minutes on 2 cold cores, in 7 GB of disk)
#   scripts/test.sh --full   every count, every benchmark, cargo-deny
# Exits with 0 only if no lane failed. A lane whose tools cannot be had fails, because QLAUNCH_REQUIRE_REAL=1.
set -uo pipefail
cd "$(dirname "$(readlink -f "$0")")/.."
export QLAUNCH_REQUIRE_REAL=${QLAUNCH_REQUIRE_REAL:-1}
export CARGO_TERM_COLOR=never CARGO_INCREMENTAL=0
export PATH="$HOME/.cargo/bin:$PATH"
full=${1:-}
target=${CARGO_TARGET_DIR:-$PWD/target}
log=$(mktemp -d)
export QLAUNCH_SKIPS=$log/skips
: >"$QLAUNCH_SKIPS"
summary=()
passed=0 failed=0 skipped=0
running=()

# Remembers how a lane went. A full disk shows as faults of everything else, so each lane says what it left.
ended() { # pass|FAIL seconds name
    local free
    free=$(df -h --output=avail "$PWD" | tail -n 1)
    summary+=("$(printf '%s  %4d s  %s (disk: %s free)' "$1" "$2" "$3" "${free// /}")")
    if [ "$1" = pass ]; then passed=$((passed + 1)); else failed=$((failed + 1)); fi
}

lane() { # name command…
    local name=$1 started=$SECONDS outcome=pass
    shift
    printf '\n=== %s: %s\n' "$name" "$*"
    "$@" || outcome=FAIL
    ended "$outcome" $((SECONDS - started)) "$name"
}

# Starts a lane beside the next ones, which mostly wait; `join` tells what came of it.
beside() { # name command…
    local name=$1
    shift
    (
        started=$SECONDS outcome=pass
        "$@" || outcome=FAIL
        echo "$outcome $((SECONDS - started))" >"$log/$name.outcome"
    ) >"$log/$name.log" 2>&1 &
    running+=("$name" $!)
}

join() {
    local name outcome seconds
    while [ ${#running[@]} -gt 0 ]; do
        name=${running[0]}
        wait "${running[1]}"
        running=("${running[@]:2}")
        printf '\n=== %s, which ran beside others\n' "$name"
        cat "$log/$name.log"
        read -r outcome seconds <"$log/$name.outcome" || outcome=FAIL seconds=0
        ended "$outcome" "$seconds" "$name"
    done
}

skip() { # name why
    printf '\n=== SKIPPED: %s: %s\n' "$1" "$2"
    summary+=("$(printf 'SKIP          %s: %s' "$1" "$2")")
    skipped=$((skipped + 1))
}

# nextest is faster and stops a test that hangs; cargo test does as well.
tests() {
    if command -v cargo-nextest >/dev/null; then
        cargo nextest run --workspace --locked --no-fail-fast
    else
        cargo test --workspace --locked --no-fail-fast
    fi
}

# What the README promises: one command from a sweep file to a judged portfolio, as a person sees it.
main_job() {
    local home=$log/home
    mkdir -p "$home/folder"
    (cd "$home/folder" && HOME=$home timeout 900 "$target/debug/qlaunch" submit --cluster local --yes "$OLDPWD/examples/sweeps/tiny-llama.yaml")
}

serving() {
    wait "$install_job" || { cat "$log/install"; return 1; }
    tests/serving/run.sh $full
}

# What only reads the sources has a folder of its own, because cargo lets one command at a time into a folder.
lint() (
    export CARGO_TARGET_DIR=$target/lint RUSTDOCFLAGS="-D warnings"
    nice -n 19 cargo clippy --workspace --all-targets --locked -- -D warnings \
        && nice -n 19 cargo doc --workspace --no-deps --locked
)

deny() {
    command -v cargo-deny >/dev/null || cargo install --locked cargo-deny || return 1
    cargo deny --log-level error check licenses bans sources
}

# Thirty seconds for each fuzz target, five minutes with --full.
fuzz() {
    local seconds=30
    [ "$full" != --full ] || seconds=300
    tests/fuzz/run.sh "$seconds"
}

format() { cargo fmt --all --check && cargo fmt --manifest-path tests/fuzz/Cargo.toml --check; }

lane "tools" scripts/tools.sh --tests
# The serving clients are downloads and C++: they are made ready while Rust compiles.
nice -n 19 tests/serving/install.sh >"$log/install" 2>&1 &
install_job=$!

lane "format" format
# With the tests, so that nothing is compiled again for them.
lane "build" cargo build --workspace --bins --tests --locked
lane "test" tests
lane "main job" main_job
lane "modelopt recipes" tests/modelopt/run.sh
beside "fuzz" fuzz
beside "kernels" worker/kernels/run.sh --check
beside "clippy and docs" lint
lane "cluster" tests/cluster/run.sh $full
join
beside "docker" tests/docker/run.sh $full
lane "serving" serving
join
lane "matrix" tests/matrix/run.sh
lane "bitsandbytes" tests/bitsandbytes/run.sh
if [ "$full" = --full ] || command -v cargo-deny >/dev/null; then
    lane "deny" deny
else
    skip "deny" "cargo-deny is not installed and takes minutes to compile; --full installs it"
fi
if [ "$full" = --full ]; then
    # Advisories lie in a database of their own, which a machine without the open network cannot fetch.
    if timeout 120 cargo deny fetch >/dev/null 2>&1; then
        lane "advisories" cargo deny check advisories
    else
        skip "advisories" "the advisory database cannot be fetched from here"
    fi
    for bench in benches/*/run.sh; do
        lane "$(dirname "$bench")" "$bench"
    done
fi

printf '\n=== what tests could not do on this machine\n'
sort -u "$QLAUNCH_SKIPS"
printf '\n=== lanes, %d s in all\n' "$SECONDS"
printf '%s\n' "${summary[@]}"
rm -rf "$log"
printf '\nlanes: %d passed, %d failed, %d skipped\n' "$passed" "$failed" "$skipped"
[ "$failed" = 0 ]
