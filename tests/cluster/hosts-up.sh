#!/usr/bin/env bash
# Starts hosts without a scheduler on this one machine: each has a network, process numbers and a name of its own, and an sshd.
# They see the same files, as workstations with a common file system do. This machine is where the launcher runs. Needs root.
#   tests/cluster/hosts-up.sh DIR      idempotent: what runs is left alone, what died is started again
# Options: HOSTS=2 HOSTS_NET=10.77.3 HOSTS_USER=quser. Hosts are h1, h2, …; `ip link set qlaunch-h2 down` cuts one off.
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
. "$here/common.sh"
hosts=${1:?usage: hosts-up.sh DIR}
mkdir -p "$hosts" /run/sshd
hosts=$(cd "$hosts" && pwd -P)
chmod 755 "$hosts" /run/sshd
count=${HOSTS:-2} net=${HOSTS_NET:-10.77.3} user=${HOSTS_USER:-quser}
[ "$(id -u)" = 0 ] || { echo "hosts-up.sh must be run as root" >&2; exit 1; }
PATH=$PATH:/usr/sbin
id "$user" >/dev/null 2>&1 || useradd -m -s /bin/bash -p '*' "$user"
[ -s "$hosts/id" ] || ssh-keygen -q -t ed25519 -N '' -C qlaunch-test -f "$hosts/id"
cp "$hosts/id.pub" "$hosts/authorized_keys"
chmod 644 "$hosts/authorized_keys"
if ! ip link show qlaunch-net >/dev/null 2>&1; then
    ip link add qlaunch-net type bridge
    ip addr add "$net.1/24" dev qlaunch-net
    ip link set qlaunch-net up
fi
# A Docker daemon that was here may forbid what is forwarded, on bridges too.
! command -v iptables >/dev/null || iptables -C FORWARD -i qlaunch-net -o qlaunch-net -j ACCEPT 2>/dev/null ||
    iptables -I FORWARD -i qlaunch-net -o qlaunch-net -j ACCEPT 2>/dev/null || true
{
    cat /etc/hosts
    for ((host = 1; host <= count; host++)); do echo "$net.1$host h$host"; done
} >"$hosts/etc-hosts"
: >"$hosts/known_hosts"
: >"$hosts/config"
for ((host = 1; host <= count; host++)); do
    name=h$host space=qlaunch-h$host at=$net.1$host
    if ! ip netns list | grep -qw "$space"; then
        ip netns add "$space"
        ip link add "$space" type veth peer name eth0 netns "$space"
        ip link set "$space" master qlaunch-net up
        ip -n "$space" addr add "$at/24" dev eth0
        ip -n "$space" link set eth0 up
        ip -n "$space" link set lo up
    fi
    mkdir -p "$hosts/$name"
    [ -s "$hosts/$name/key" ] || ssh-keygen -q -t ed25519 -N '' -f "$hosts/$name/key"
    cat >"$hosts/$name/sshd.conf" <<CONF
ListenAddress $at
HostKey $hosts/$name/key
PidFile none
AuthorizedKeysFile $hosts/authorized_keys
Include $(readlink -f "$here/../sshd.conf")
CONF
    if ! alive "$hosts/$name/pid" unshare; then
        # bash is the first process, as an init that waits for whatever is orphaned.
        setsid nohup ip netns exec "$space" unshare --uts --mount --pid --fork --kill-child --mount-proc --propagation private \
            bash -c 'hostname "$1"; mount --bind "$2/etc-hosts" /etc/hosts; /usr/sbin/sshd -D -f "$2/$1/sshd.conf" -E "$2/$1/log" & wait' \
            _ "$name" "$hosts" >/dev/null 2>&1 </dev/null &
        echo $! >"$hosts/$name/pid"
    fi
    echo "$at $(cut -d' ' -f1,2 "$hosts/$name/key.pub")" >>"$hosts/known_hosts"
    cat >>"$hosts/config" <<CONF
Host $name
  HostName $at
  User $user
  IdentityFile $hosts/id
  IdentitiesOnly yes
  UserKnownHostsFile $hosts/known_hosts
  StrictHostKeyChecking yes
  BatchMode yes
CONF
done
for ((host = 1; host <= count; host++)); do
    waitfor 10 ssh -F "$hosts/config" "h$host" true || { tail "$hosts/h$host/log" >&2; exit 1; }
done
cat >"$hosts/env.sh" <<CONF
export QLAUNCH_TEST_HOSTS=$hosts
CONF
say "ready: $count hosts; ssh -F $hosts/config h1"
