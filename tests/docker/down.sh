#!/usr/bin/env bash
# Stops what up.sh DIR started, by pid file and name, with all containers; `--wipe` also removes DIR.
here=$(dirname "$(readlink -f "$0")")
. "$here/../cluster/common.sh"
state=$(cd "${1:?usage: down.sh DIR [--wipe]}" 2>/dev/null && pwd -P) || exit 0
export DOCKER_HOST=unix://$state/docker.sock CONTAINERS_CONF=$state/containers.conf CONTAINERS_STORAGE_CONF=$state/storage.conf
# A daemon that was killed with live-restore has left its containers to the next one.
alive "$state/docker.pid" dockerd || "$here/up.sh" "$state" 2>/dev/null
ids=$(docker ps -aq 2>/dev/null) && [ -n "$ids" ] && docker rm -f $ids >/dev/null 2>&1
command -v podman >/dev/null && podman rm -af >/dev/null 2>&1
stop "$state/docker.pid" dockerd
stop "$state/ssh/sshd.pid" sshd
if [ "${2:-}" = --wipe ]; then
    grep -o " $state/[^ ]*" /proc/mounts | sort -r | xargs -r umount -l
    rm -rf "$state"
fi
exit 0
