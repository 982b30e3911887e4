#!/usr/bin/env bash
# Installs what the cluster lane needs from Debian's or Ubuntu's packages: SLURM, munge, OpenSSH. With `--accounting` also
# slurmdbd and MariaDB. Does nothing where all of it is there.
set -euo pipefail
wanted=()
[ -x /usr/sbin/slurmctld ] && [ -x /usr/sbin/slurmd ] && command -v sbatch >/dev/null || wanted+=(slurm-wlm)
[ -x /usr/sbin/munged ] || wanted+=(munge)
[ -x /usr/sbin/sshd ] || wanted+=(openssh-server)
command -v ssh >/dev/null || wanted+=(openssh-client)
command -v tcsh >/dev/null || wanted+=(tcsh)
[ -x /usr/sbin/ip ] || [ -x /sbin/ip ] || wanted+=(iproute2)
if [ "${1:-}" = --accounting ]; then
    [ -x /usr/sbin/slurmdbd ] || wanted+=(slurmdbd)
    [ -x /usr/sbin/mariadbd ] || wanted+=(mariadb-server)
fi
[ ${#wanted[@]} -eq 0 ] && exit 0
as_root=()
[ "$(id -u)" = 0 ] || as_root=(sudo)
"${as_root[@]}" apt-get update -qq
DEBIAN_FRONTEND=noninteractive "${as_root[@]}" apt-get install -qy --no-install-recommends "${wanted[@]}"
