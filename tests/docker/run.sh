#!/usr/bin/env bash
# The docker lane: starts a real Docker daemon, podman and an sshd, runs tests/tests/docker.rs against them, stops them again; a
# cron under libfaketime, too.
#   tests/docker/run.sh [--full] [TEST NAME…]     --full: 100 kills of the launcher instead of 6
# Needs root. DOCKER_DIR keeps the daemon where it says, running.
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
cd "$here/../.."
. tests/lane.sh
as_root docker "$@"
if [ "${1:-}" = --full ]; then
    export QLAUNCH_KILLS=100
    shift
fi
"$here/install.sh"
state=${DOCKER_DIR:-$(mktemp -d /var/tmp/qlaunch-docker.XXXXXX)}
chmod 755 "$state" 2>/dev/null || true
stop() {
    [ -n "${DOCKER_DIR:-}" ] || "$here/down.sh" "$state" --wipe
}
trap stop EXIT
"$here/up.sh" "$state"
. "$state/env.sh"
# A real cron, with a clock of its own.
[ $# -gt 0 ] || cargo test --locked --workspace --test schedule -- --ignored
cargo test --locked --workspace --test docker -- --ignored --test-threads=1 "$@"
