#!/usr/bin/env bash
# The cluster lane: starts a real SLURM behind a jump host and two hosts without a scheduler, runs cluster.rs, survival.rs, entrance.rs
# and hosts.rs of tests/tests against them, stops them again.
#   tests/cluster/run.sh [--full] [TEST NAME…]     --full: 200 kills of the launcher instead of 20, tests that take a minute and
#                                                  more (slow_…), and a cluster with accounts
#   tests/cluster/run.sh --accounting [TEST NAME…] only the cluster with accounts (slurmdbd, MariaDB), for tests/tests/accounting.rs
# Needs root, because SLURM must become its users. CLUSTER_DIR keeps the cluster where it says, running; HOSTS_DIR the hosts.
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
cd "$here/../.."
. tests/lane.sh
as_root cluster "$@"
# Ports, networks and users of the lane are one of each on a machine: a second run waits for the first.
if [ -z "${QLAUNCH_LANE_HELD:-}" ]; then
    exec flock --close /tmp/qlaunch-lane.lock env QLAUNCH_LANE_HELD=1 "$0" "$@"
fi
slow=(--skip slow_)
if [ "${1:-}" = --full ]; then
    export QLAUNCH_KILLS=200
    slow=()
    shift
    "$here/run.sh" --accounting
fi
if [ "${1:-}" = --accounting ]; then
    shift
    "$here/install.sh" --accounting
    accounts=$(mktemp -d /var/tmp/qlaunch-accounts.XXXXXX)
    chmod 755 "$accounts"
    trap '"$here/down.sh" "$accounts" --wipe' EXIT
    ACCOUNTING=1 MIN_JOB_AGE=2 PORT=$((${PORT:-16817} + 100)) NODES=2 "$here/up.sh" "$accounts"
    . "$accounts/env.sh"
    cargo test --locked --workspace --test accounting -- --ignored --test-threads=1 "$@"
    exit
fi
"$here/install.sh"
cluster=${CLUSTER_DIR:-$(mktemp -d /var/tmp/qlaunch-cluster.XXXXXX)}
hosts=${HOSTS_DIR:-$(mktemp -d /var/tmp/qlaunch-hosts.XXXXXX)}
chmod 755 "$cluster" "$hosts" 2>/dev/null || true
stop() {
    [ -n "${CLUSTER_DIR:-}" ] || { umount -l "$cluster/tiny" || true; "$here/down.sh" "$cluster" --wipe; }
    [ -n "${HOSTS_DIR:-}" ] || "$here/hosts-down.sh" "$hosts" --wipe
}
trap stop EXIT
# A disk that a test fills; daemons that start later see it, too.
mkdir -p "$cluster/tiny"
mountpoint -q "$cluster/tiny" || mount -t tmpfs -o size=256k,mode=777 qlaunch-test "$cluster/tiny"
"$here/up.sh" "$cluster"
"$here/hosts-up.sh" "$hosts"
. "$cluster/env.sh"
. "$hosts/env.sh"
# The hosts know nothing of the cluster: their tests, which mostly wait, run beside its own.
run() { cargo test --locked --workspace "$@" "${names[@]}"; }
names=(-- --ignored --test-threads=1 "${slow[@]}" "$@")
run --test hosts >"$hosts/tests.log" 2>&1 &
beside=$!
ended=0
run --test cluster --test survival --test entrance || ended=$?
wait "$beside" || ended=$?
cat "$hosts/tests.log"
exit "$ended"
