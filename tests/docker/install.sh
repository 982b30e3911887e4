#!/usr/bin/env bash
# Installs what the docker lane needs from Debian's or Ubuntu's packages: Docker, podman, an sshd, cron, libfaketime. Does nothing where all of it is
# there.
set -euo pipefail
wanted=()
[ -x /usr/sbin/dockerd ] || [ -x /usr/bin/dockerd ] || wanted+=(docker.io)
command -v docker >/dev/null || wanted+=(docker.io)
command -v iptables >/dev/null || [ -x /usr/sbin/iptables ] || wanted+=(iptables)
command -v podman >/dev/null || wanted+=(podman)
command -v newuidmap >/dev/null || wanted+=(uidmap)
command -v runc >/dev/null || wanted+=(runc)
[ -x /usr/sbin/sshd ] || wanted+=(openssh-server)
command -v ssh >/dev/null || wanted+=(openssh-client)
[ -x /usr/sbin/cron ] || wanted+=(cron)
command -v faketime >/dev/null || wanted+=(faketime)
[ ${#wanted[@]} -eq 0 ] && exit 0
as_root=()
[ "$(id -u)" = 0 ] || as_root=(sudo)
"${as_root[@]}" apt-get update -qq
DEBIAN_FRONTEND=noninteractive "${as_root[@]}" apt-get install -qy --no-install-recommends "${wanted[@]}"
