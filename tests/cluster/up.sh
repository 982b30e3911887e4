#!/usr/bin/env bash
# Starts a real SLURM, munge and two sshds on this one machine: a login host that is reached through a jump host, and a
# few compute nodes, each with a host name of its own. Needs root, because SLURM has to become its users.
#   tests/cluster/up.sh DIR      idempotent: what runs is left alone, what died is started again
# All state lies under DIR, except the user (default `quser`) and sshd's own folder /run/sshd. The first call writes the
# configuration; other options need `down.sh DIR --wipe` first. DIR/env.sh says how to use the cluster.
# Options: NODES=3 CPUS=8 GPUS=0 PORT=16817 CLUSTER_USER=quser MIN_JOB_AGE=300 KILL_WAIT=5 SLURMD_TIMEOUT=15 ACCOUNTING=0
# Ports from PORT on: +0 slurmctld, +1 slurmdbd, +2 login sshd, +3 jump sshd, +4 sshd that asks for a password, +10… slurmd.
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
. "$here/common.sh"
cluster=${1:?usage: up.sh DIR}
mkdir -p "$cluster"
cluster=$(cd "$cluster" && pwd -P)
nodes=${NODES:-3} cpus=${CPUS:-8} gpus=${GPUS:-0} port=${PORT:-16817} user=${CLUSTER_USER:-quser} accounting=${ACCOUNTING:-0}
host=$(hostname -s)
[ "$(id -u)" = 0 ] || { echo "up.sh must be run as root" >&2; exit 1; }
for program in munged slurmctld slurmd sshd; do
    [ -x "/usr/sbin/$program" ] || { echo "$program is missing: $here/install.sh" >&2; exit 1; }
done

# The job user must be able to reach the sockets and slurm.conf, so every folder above is passable.
mkdir -p "$cluster"/{munge,etc,log,run,state,ssh,dev}
chmod 755 "$cluster" "$cluster"/{etc,log,run,ssh,dev}
chmod 700 "$cluster/state"
above=$cluster
while [ "$above" != / ]; do
    above=$(dirname "$above")
    (($(stat -c '0%a' "$above") & 1)) || echo "warning: $user cannot pass $above" >&2
done
# sshd without PAM refuses users whose password field is locked.
id "$user" >/dev/null 2>&1 || useradd -m -s /bin/bash -p '*' "$user"
id "$user-csh" >/dev/null 2>&1 || useradd -m -s /usr/bin/tcsh -p '*' "$user-csh"
id "$user-door" >/dev/null 2>&1 || useradd -m -s /bin/bash "$user-door"
[ -s "$cluster/ssh/password" ] || (umask 077 && od -An -N12 -tx1 /dev/urandom | tr -d ' \n' >"$cluster/ssh/password")
echo "$user-door:$(cat "$cluster/ssh/password")" | chpasswd

# munge: a key and a socket of its own; it refuses to run as root.
[ -s "$cluster/munge/munge.key" ] || dd if=/dev/urandom of="$cluster/munge/munge.key" bs=1 count=1024 status=none
chown -R munge:munge "$cluster/munge"
chmod 755 "$cluster/munge"
chmod 400 "$cluster/munge/munge.key"
if ! alive "$cluster/munge/munged.pid" munged; then
    rm -f "$cluster/munge/munge.sock"*
    runuser -u munge -- /usr/sbin/munged --force --key-file="$cluster/munge/munge.key" --socket="$cluster/munge/munge.sock" \
        --pid-file="$cluster/munge/munged.pid" --log-file="$cluster/munge/munged.log" --seed-file="$cluster/munge/munged.seed"
fi
waitfor 10 munge -n -S "$cluster/munge/munge.sock" || { tail "$cluster/munge/munged.log" >&2; exit 1; }

if [ ! -e "$cluster/etc/slurm.conf" ]; then
    # slurmd wants a device file for each GPU; a link to /dev/null passes.
    for ((gpu = 0; gpu < gpus; gpu++)); do ln -sfn /dev/null "$cluster/dev/nvidia$gpu"; done
    gres=""
    echo "# no GPUs" >"$cluster/etc/gres.conf"
    if [ "$gpus" -gt 0 ]; then
        gres="Gres=gpu:h100:$gpus"
        echo "NodeName=n[1-$nodes] Name=gpu Type=h100 File=$cluster/dev/nvidia[0-$((gpus - 1))]" >"$cluster/etc/gres.conf"
    fi
    echo "CgroupPlugin=cgroup/v1" >"$cluster/etc/cgroup.conf"
    {
        cat <<CONF
ClusterName=qlaunch-test
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$port
SlurmUser=root
AuthType=auth/munge
# Requeued jobs wait until their credential has expired: two minutes by default.
AuthInfo=socket=$cluster/munge/munge.sock,cred_expire=5
CredType=cred/munge
StateSaveLocation=$cluster/state
SlurmdSpoolDir=$cluster/run/spool.%n
SlurmctldPidFile=$cluster/run/slurmctld.pid
SlurmdPidFile=$cluster/run/slurmd.%n.pid
SlurmctldLogFile=$cluster/log/slurmctld.log
SlurmdLogFile=$cluster/log/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
SwitchType=switch/none
ReturnToService=2
# Claims more CPUs than this machine has.
SlurmdParameters=config_overrides
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,bf_interval=2,batch_sched_delay=0,sched_min_interval=0,default_queue_depth=1000
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
GresTypes=gpu
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
MinJobAge=${MIN_JOB_AGE:-300}
KillWait=${KILL_WAIT:-5}
SlurmctldTimeout=30
SlurmdTimeout=${SLURMD_TIMEOUT:-15}
InactiveLimit=0
MessageTimeout=10
JobRequeue=1
# Without it jobs over a limit are accepted and wait for ever.
EnforcePartLimits=ALL
CONF
        if [ "$accounting" = 1 ]; then
            cat <<CONF
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort=$((port + 1))
AccountingStoragePass=$cluster/munge/munge.sock
AccountingStorageEnforce=associations,limits,qos
AccountingStoreFlags=job_comment
CONF
        else
            echo "AccountingStorageType=accounting_storage/none"
        fi
        for ((node = 1; node <= nodes; node++)); do
            echo "NodeName=n$node NodeHostname=n$node NodeAddr=127.0.1.$node Port=$((port + 10 + node)) CPUs=$cpus RealMemory=8000 $gres State=UNKNOWN"
        done
        cat <<CONF
PartitionName=batch Nodes=ALL Default=YES MaxTime=INFINITE DefaultTime=60 State=UP PriorityTier=10 PreemptMode=OFF
PartitionName=short Nodes=ALL MaxTime=2 DefaultTime=1 State=UP PriorityTier=10 PreemptMode=OFF
PartitionName=spot  Nodes=ALL MaxTime=INFINITE DefaultTime=60 State=UP PriorityTier=1 PreemptMode=REQUEUE GraceTime=3
CONF
    } >"$cluster/etc/slurm.conf"
fi
export SLURM_CONF=$cluster/etc/slurm.conf

if grep -q '^AccountingStorageType=.*slurmdbd' "$SLURM_CONF"; then
    . "$here/accounting.sh"
    start_accounting
fi

{
    cat /etc/hosts
    echo "127.0.0.1 $host login gate"
    for ((node = 1; node <= nodes; node++)); do echo "127.0.1.$node n$node"; done
} >"$cluster/etc/hosts"
alive "$cluster/run/slurmctld.pid" slurmctld || /usr/sbin/slurmctld -i
controller_up() { scontrol ping | grep -q 'is UP'; }
waitfor 20 controller_up || { tail "$cluster/log/slurmctld.log" >&2; exit 1; }
for ((node = 1; node <= nodes; node++)); do
    mkdir -p "$cluster/run/spool.n$node"
    alive "$cluster/run/slurmd.n$node.pid" slurmd || in_node "n$node" /usr/sbin/slurmd -N "n$node"
done
! declare -F add_accounts >/dev/null || add_accounts

# Two sshds with keys of their own. The login host knows SLURM; the jump host only passes connections on.
[ -s "$cluster/ssh/id" ] || ssh-keygen -q -t ed25519 -N '' -C qlaunch-test -f "$cluster/ssh/id"
cp "$cluster/ssh/id.pub" "$cluster/ssh/authorized_keys"
chmod 644 "$cluster/ssh/authorized_keys"
mkdir -p /run/sshd
chmod 755 /run/sshd
: >"$cluster/ssh/known_hosts.new"
start_sshd() { # NAME PORT EXTRA
    local name=$1 at=$2
    [ -s "$cluster/ssh/$name.key" ] || ssh-keygen -q -t ed25519 -N '' -f "$cluster/ssh/$name.key"
    cat >"$cluster/ssh/$name.conf" <<CONF
$3
Port $at
ListenAddress 127.0.0.1
HostKey $cluster/ssh/$name.key
PidFile $cluster/ssh/$name.pid
AuthorizedKeysFile $cluster/ssh/authorized_keys
Include $(readlink -f "$here/../sshd.conf")
CONF
    alive "$cluster/ssh/$name.pid" sshd || in_node "$name" /usr/sbin/sshd -f "$cluster/ssh/$name.conf" -E "$cluster/log/sshd.$name.log"
    printf '[127.0.0.1]:%s %s\n' "$at" "$(cut -d' ' -f1,2 "$cluster/ssh/$name.key.pub")" >>"$cluster/ssh/known_hosts.new"
}
start_sshd login $((port + 2)) "SetEnv SLURM_CONF=$SLURM_CONF"
start_sshd gate $((port + 3)) "ForceCommand /bin/false"
# A door that asks: no key opens it, PAM wants a password at the keyboard.
start_sshd door $((port + 4)) "SetEnv SLURM_CONF=$SLURM_CONF
UsePAM yes
KbdInteractiveAuthentication yes
PubkeyAuthentication no"
mv "$cluster/ssh/known_hosts.new" "$cluster/ssh/known_hosts"
# `login` goes through `gate`, as most people's do; `direct` is the same host without the detour.
# `door` is the login host for somebody with a password, `csh` for somebody whose login shell is tcsh.
for name in gate login direct door csh; do
    at=$((port + 2)) jump="" batch=yes as=$user
    case $name in
    gate) at=$((port + 3)) ;;
    login) jump="  ProxyJump gate" ;;
    door) at=$((port + 4)) batch=no as=$user-door ;;
    csh) as=$user-csh ;;
    esac
    cat <<CONF
Host $name
  HostName 127.0.0.1
  Port $at
  User $as
  IdentityFile $cluster/ssh/id
  IdentitiesOnly yes
  UserKnownHostsFile $cluster/ssh/known_hosts
  StrictHostKeyChecking yes
  BatchMode $batch
$jump
CONF
done >"$cluster/ssh/config"
waitfor 10 ssh -F "$cluster/ssh/config" login true || { tail "$cluster"/log/sshd.*.log >&2; exit 1; }
ready() { [ "$(sinfo -h -N -p batch -o '%N %t' | grep -Ec ' (idle|mix|alloc)$')" = "$nodes" ]; }
waitfor 30 ready || { sinfo -N -l >&2; exit 1; }
cat >"$cluster/env.sh" <<CONF
export SLURM_CONF=$SLURM_CONF
export QLAUNCH_TEST_CLUSTER=$cluster
export QLAUNCH_TEST_USER=$user
CONF
say "ready: $nodes nodes; ssh -F $cluster/ssh/config login"
