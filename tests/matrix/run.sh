#!/usr/bin/env bash
# The matrix lane: one scenario over every kind of cluster at once. Starts what tests/cluster and tests/docker start, runs
# tests/tests/matrix.rs, stops all of it again. Needs root.
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
cd "$here/../.."
. tests/lane.sh
as_root matrix "$@"
tests/cluster/install.sh
tests/docker/install.sh
cluster=$(mktemp -d /var/tmp/qlaunch-cluster.XXXXXX)
state=$(mktemp -d /var/tmp/qlaunch-docker.XXXXXX)
chmod 755 "$cluster" "$state"
stop() {
    tests/cluster/down.sh "$cluster" --wipe
    tests/docker/down.sh "$state" --wipe
}
trap stop EXIT
NODES=1 tests/cluster/up.sh "$cluster"
tests/docker/up.sh "$state"
. "$cluster/env.sh"
. "$state/env.sh"
cargo test --locked --workspace --test matrix -- --ignored --test-threads=1 "$@"
