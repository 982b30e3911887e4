#!/usr/bin/env bash
# Stops what up.sh DIR started, by pid file and name, and the job steps that it left; `--wipe` also removes DIR.
here=$(dirname "$(readlink -f "$0")")
. "$here/common.sh"
cluster=$(cd "${1:?usage: down.sh DIR [--wipe]}" 2>/dev/null && pwd -P) || exit 0
export SLURM_CONF=$cluster/etc/slurm.conf
for file in "$cluster"/run/slurmd.*.pid; do stop "$file" slurmd; done
# A slurmd that ends leaves its running steps alone by design; they are ours by the slurm.conf in their environment.
for process in /proc/[0-9]*; do
    [ "$(cat "$process/comm" 2>/dev/null)" = slurmstepd ] || continue
    grep -qzF "SLURM_CONF=$SLURM_CONF" "$process/environ" 2>/dev/null || continue
    for child in $(cat "$process"/task/*/children 2>/dev/null); do
        kill -KILL -- "-$child" 2>/dev/null || kill -KILL "$child" 2>/dev/null
    done
    kill -KILL "${process#/proc/}" 2>/dev/null
done
stop "$cluster/run/slurmctld.pid" slurmctld
stop "$cluster/run/slurmdbd.pid" slurmdbd
stop "$cluster/mysql/mariadbd.pid" mariadbd
stop "$cluster/ssh/login.pid" sshd
stop "$cluster/ssh/gate.pid" sshd
stop "$cluster/ssh/door.pid" sshd
stop "$cluster/munge/munged.pid" munged
[ "${2:-}" != --wipe ] || rm -rf "$cluster"
exit 0
