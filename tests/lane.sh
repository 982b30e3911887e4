# What lanes have in common; sourced with `set -euo pipefail`. QLAUNCH_REQUIRE_REAL=1 makes a lane that cannot run a failure.
# shellcheck shell=bash

# Ends with an error and its remedy.
die() { printf 'error: %s\nhint: %s\n' "$1" "$2" >&2; exit 1; }

# Ends a lane that cannot run here, and remembers it for the summary.
skip() { # LANE WHY
    [ "${QLAUNCH_REQUIRE_REAL:-}" != 1 ] || die "$1: $2" "QLAUNCH_REQUIRE_REAL=1 forbids skipping this lane"
    printf 'SKIPPED: %s: %s\n' "$1" "$2" | tee -a "${QLAUNCH_SKIPS:-/dev/null}" >&2
    exit 0
}

# Goes on as root, which daemons of other users need.
as_root() { # LANE ARGUMENTS OF THE SCRIPT…
    local lane=$1
    shift
    [ "$(id -u)" != 0 ] || return 0
    sudo -n true 2>/dev/null || skip "$lane" "it needs root"
    exec sudo -n -E env PATH="$PATH" "$0" "$@"
}
