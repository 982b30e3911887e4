#!/usr/bin/env bash
# Starts a Docker daemon of its own, settings for a podman of its own, and an sshd, all with their state below DIR.
#   tests/docker/up.sh DIR      idempotent: what runs is left alone, what died is started again
# SSH_PORT=16897 is the port of the sshd. LIVE=0 starts a daemon that takes its containers along when it dies; the default keeps them. DIR/env.sh says how to use all
# of it. The firewall is left alone: containers have no network.
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
. "$here/../cluster/common.sh"
state=${1:?usage: up.sh DIR}
mkdir -p "$state"
state=$(cd "$state" && pwd -P)
[ "$(id -u)" = 0 ] || { echo "up.sh must be run as root" >&2; exit 1; }
PATH=$PATH:/usr/sbin
export DOCKER_HOST=unix://$state/docker.sock

if ! alive "$state/docker.pid" dockerd || ! docker version >/dev/null 2>&1; then
    # Left by a daemon that was killed; the next one would refuse to start.
    rm -f "$state/docker.pid" "$state/exec/containerd/containerd.pid"
    keep=(--live-restore)
    [ "${LIVE:-1}" = 1 ] || keep=()
    setsid nohup dockerd --host "$DOCKER_HOST" --data-root "$state/data" --exec-root "$state/exec" --pidfile "$state/docker.pid" \
        --bridge=none --iptables=false "${keep[@]}" >>"$state/dockerd.log" 2>&1 </dev/null &
    waitfor 60 docker version || { tail -n 20 "$state/dockerd.log" >&2; exit 1; }
fi
# Users without root use it, too.
chmod 666 "$state/docker.sock"

# Limits that podman would raise are those of a small machine; cgroups of both versions are no good to its usual runtime.
cat >"$state/containers.conf" <<CONF
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
CONF
cat >"$state/storage.conf" <<CONF
[storage]
driver = "vfs"
graphroot = "$state/podman"
runroot = "$state/podman-run"
CONF

# A user whose podman runs without root, with a storage of its own.
user=${DOCKER_USER:-quser}
id "$user" >/dev/null 2>&1 || useradd -m -s /bin/bash -p '*' "$user"
grep -q "^$user:" /etc/subuid || usermod --add-subuids 100000-165535 --add-subgids 100000-165535 "$user"
install -d -o "$user" "$state/rootless" "$state/rootless/run"
cat >"$state/rootless/storage.conf" <<CONF
[storage]
driver = "vfs"
graphroot = "$state/rootless/podman"
runroot = "$state/rootless/run/podman"
CONF

port=${SSH_PORT:-16897}
mkdir -p "$state/ssh" /run/sshd
chmod 755 /run/sshd
[ -s "$state/ssh/id" ] || ssh-keygen -q -t ed25519 -N '' -C qlaunch-test -f "$state/ssh/id"
[ -s "$state/ssh/host" ] || ssh-keygen -q -t ed25519 -N '' -f "$state/ssh/host"
cp "$state/ssh/id.pub" "$state/ssh/authorized_keys"
cat >"$state/ssh/sshd.conf" <<CONF
Port $port
ListenAddress 127.0.0.1
HostKey $state/ssh/host
PidFile $state/ssh/sshd.pid
AuthorizedKeysFile $state/ssh/authorized_keys
PermitRootLogin prohibit-password
Include $(readlink -f "$here/../sshd.conf")
CONF
alive "$state/ssh/sshd.pid" sshd || /usr/sbin/sshd -f "$state/ssh/sshd.conf" -E "$state/ssh/sshd.log"
printf '[127.0.0.1]:%s %s\n' "$port" "$(cut -d' ' -f1,2 "$state/ssh/host.pub")" >"$state/ssh/known_hosts"
cat >"$state/ssh/config" <<CONF
Host box
  HostName 127.0.0.1
  Port $port
  User root
  IdentityFile $state/ssh/id
  IdentitiesOnly yes
  UserKnownHostsFile $state/ssh/known_hosts
  StrictHostKeyChecking yes
  BatchMode yes
CONF
waitfor 10 ssh -F "$state/ssh/config" box true || { tail "$state/ssh/sshd.log" >&2; exit 1; }
cat >"$state/env.sh" <<CONF
export QLAUNCH_TEST_DOCKER=$state
export QLAUNCH_TEST_USER=$user
export CONTAINERS_CONF=$state/containers.conf CONTAINERS_STORAGE_CONF=$state/storage.conf
CONF
say "ready: DOCKER_HOST=$DOCKER_HOST; ssh -F $state/ssh/config box"
