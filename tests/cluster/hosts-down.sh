#!/usr/bin/env bash
# Ends the hosts that hosts-up.sh DIR started, with everything that runs there; `--wipe` also removes DIR.
here=$(dirname "$(readlink -f "$0")")
. "$here/common.sh"
hosts=$(cd "${1:?usage: hosts-down.sh DIR [--wipe]}" 2>/dev/null && pwd -P) || exit 0
PATH=$PATH:/usr/sbin
for folder in "$hosts"/h*/; do
    name=$(basename "$folder")
    stop "$folder/pid" unshare
    # The link goes with its other end.
    ip netns del "qlaunch-$name" 2>/dev/null
done
! command -v iptables >/dev/null || iptables -D FORWARD -i qlaunch-net -o qlaunch-net -j ACCEPT 2>/dev/null
ip link del qlaunch-net 2>/dev/null
[ "${2:-}" != --wipe ] || rm -rf "$hosts"
exit 0
