#!/usr/bin/env bash
# Asks a SLURM of any version what qlaunch asks, and writes down what it prints: goldens of our parsers.
#   tests/cluster/transcripts.sh ROOT OUT_DIR
# ROOT is a root file system of its own with slurmctld, slurmd, slurm-client and munge, as debootstrap makes it:
#   debootstrap --variant=minbase --include=slurmctld,slurmd,slurm-client,munge trixie ROOT http://deb.debian.org/debian
# (Ubuntu: also `--components=main,universe`, and the script `gutsy` as last argument where debootstrap does not know the release).
# OUT_DIR gets one file per question: `$ COMMAND`, what it printed, `[stderr]` and what it printed there, `[exit N]`.
# Everything runs in namespaces of its own (mounts, processes, network, host name) and ends with this script; nothing but
# a user and files below /etc is written into ROOT. Needs root and seven minutes, most of them for a time limit and for the
# patience of sbatch.
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
. "$here/common.sh"
if [ "${3:-}" != inside ]; then
    root=$(readlink -e "${1:?usage: transcripts.sh ROOT OUT_DIR}")
    mkdir -p "${2:?usage: transcripts.sh ROOT OUT_DIR}"
    [ "$(id -u)" = 0 ] || { echo "transcripts.sh must be run as root" >&2; exit 1; }
    exec unshare --mount --propagation private --pid --fork --kill-child --mount-proc --net --uts -- \
        "$0" "$root" "$(readlink -e "$2")" inside
fi
root=$1 out=$2
notes=$(mktemp -d)
trap 'rm -rf "$notes"' EXIT

hostname n1
ip link set lo up
# Names are not resolved on a machine that has no address but 127.0.0.1.
ip address add 192.0.2.1/32 dev lo
mount --bind "$root" "$root"
mount -t proc proc "$root/proc"
mount -t sysfs -o ro sysfs "$root/sys"
for folder in run tmp home var/lib/slurm var/log/slurm; do
    mkdir -p "$root/$folder"
    mount -t tmpfs -o mode=755 tmpfs "$root/$folder"
done
chmod 1777 "$root/tmp"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
for device in null zero full random urandom; do
    : >"$root/dev/$device"
    mount --bind "/dev/$device" "$root/dev/$device"
done
# Two GPUs that are none: slurmd wants a device file for each.
ln -s null "$root/dev/nvidia0"
ln -s null "$root/dev/nvidia1"
printf '127.0.0.1 localhost n1\n127.0.0.2 n2\n' >"$root/etc/hosts"
chroot "$root" id quser >/dev/null 2>&1 || chroot "$root" useradd -M -u 1001 -s /bin/sh quser
install -d -o 1001 -g 1001 "$root/home/quser"

# as_quser COMMAND: a line of shell, as a user without rights.
as_quser() {
    chroot --userspec=1001:1001 "$root" /usr/bin/env -i PATH=/usr/bin:/bin HOME=/home/quser LANG=C.UTF-8 \
        timeout 300 /bin/sh -c "cd && $1"
}

# ask NAME COMMAND: writes down what a line of shell prints.
ask() {
    local code=0
    as_quser "$2" >"$notes/stdout" 2>"$notes/stderr" </dev/null || code=$?
    {
        printf '$ %s\n' "$2"
        # A last line without an end gets one.
        sed -e '$a\' "$notes/stdout"
        echo '[stderr]'
        sed -e '$a\' "$notes/stderr"
        echo "[exit $code]"
    } >"$out/$1.txt"
}

# job NAME OPTIONS COMMAND: a job of that name, whose id is `$id` then.
job() {
    id=$(as_quser "sbatch --parsable --job-name=ql-$1 $2 ./job.sh $3")
}

# becomes NAME PATTERN SECONDS: until squeue says `STATE|REASON` of a job; if it never does, that is seen in what is written down.
becomes() {
    is() { as_quser "squeue -h -r -a -t all -n ql-$1 -o '%T|%r'" | grep -Eqx "$2"; }
    waitfor "${3:-60}" is "$1" "$2" || say "ql-$1 did not become $2: $(as_quser "squeue -h -r -a -t all -n ql-$1 -o '%T|%r'" | tr '\n' ' ')"
}

root_says() { chroot "$root" "$@"; }

# controller LINE…: slurmctld without a memory, with further lines in slurm.conf.
controller() {
    stop "$root/run/slurmctld.pid" slurmctld
    configuration "$@" >"$root/etc/slurm/slurm.conf"
    root_says /usr/sbin/slurmctld -c -i
    up() { root_says scontrol ping | grep -q 'is UP'; }
    waitfor 30 up || { tail "$root/var/log/slurm/ctld" >&2; exit 1; }
}

configuration() {
    cat <<CONF
ClusterName=golden
SlurmctldHost=n1(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
AuthInfo=cred_expire=5
StateSaveLocation=/var/lib/slurm
SlurmdSpoolDir=/tmp/spool
SlurmctldPidFile=/run/slurmctld.pid
SlurmdPidFile=/run/slurmd.pid
SlurmctldLogFile=/var/log/slurm/ctld
SlurmdLogFile=/var/log/slurm/d
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
ReturnToService=2
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=2,bf_interval=2,batch_sched_delay=0,sched_min_interval=0
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=100
GresTypes=gpu
KillWait=20
EnforcePartLimits=ALL
Licenses=matlab:2
NodeName=n1 NodeAddr=127.0.0.1 CPUs=2 RealMemory=1000 Gres=gpu:h100:2 Feature=fast State=UNKNOWN
# Nobody answers for it.
NodeName=n2 NodeAddr=127.0.0.2 Port=6999 CPUs=2 RealMemory=1000 State=DOWN
PartitionName=batch Nodes=n1 Default=YES MaxTime=INFINITE DefaultTime=60 State=UP
PartitionName=short Nodes=n1 MaxTime=1 State=UP
PartitionName=first Nodes=n1 DefaultTime=60 PriorityTier=20 State=UP
PartitionName=away Nodes=n2 DefaultTime=60 State=UP
PartitionName=door Nodes=n1 DefaultTime=60 State=UP
PartitionName=gate Nodes=n1 DefaultTime=60 State=UP
PartitionName=fence Nodes=n1 DefaultTime=60 State=UP
PartitionName=down Nodes=n1 State=DOWN
PartitionName=inactive Nodes=n1 State=INACTIVE
PartitionName=drain Nodes=n1 State=DRAIN
PartitionName=vip Nodes=n1 AllowGroups=root State=UP
PartitionName=accounts Nodes=n1 AllowAccounts=vip State=UP
PartitionName=rooms Nodes=n1 RootOnly=YES State=UP
CONF
    printf '%s\n' "$@"
}

# Daemons, and files of the user.
mkdir -p "$root/etc/slurm" "$root/run/munge" "$root/etc/munge"
# Until 24.05 SLURM cannot do without cgroups, but this plugin does nothing where nothing asks it to.
case $(root_says slurmctld -V) in
*" 22."* | *" 23."*) echo "CgroupPlugin=cgroup/v1" ;;
*) echo "CgroupPlugin=disabled" ;;
esac >"$root/etc/slurm/cgroup.conf"
echo "NodeName=n1 Name=gpu Type=h100 File=/dev/nvidia[0-1]" >"$root/etc/slurm/gres.conf"
dd if=/dev/urandom of="$root/etc/munge/munge.key" bs=1024 count=1 status=none
root_says chown -R munge: /run/munge /etc/munge /var/lib/munge /var/log/munge
chmod 400 "$root/etc/munge/munge.key"
munge_up() {
    root_says runuser -u munge -- /usr/sbin/munged --force
    waitfor 10 chroot "$root" munge -n
}
munge_up
controller
root_says /usr/sbin/slurmd || { tail "$root/var/log/slurm/d" >&2; exit 1; }
(
    cd "$root/home/quser"
    printf '#!/bin/sh\nexec "$@"\n' >job.sh
    : >empty.sh
    printf 'sleep 600\n' >plain.sh
    printf '#!/bin/sh\r\nsleep 600\r\n' >dos.sh
    { printf '#!/bin/sh\n'; head -c 5000000 /dev/zero | tr '\0' '#'; } >huge.sh
    mkdir folder
    chmod 755 ./*.sh
)
idle() { root_says sinfo -h -n n1 -o %t | grep -qx idle; }
waitfor 30 idle || { tail "$root"/var/log/slurm/* >&2; exit 1; }

# Questions about jobs in every state that a user can bring about.
in_every_state() {
    ask submit-parsable 'sbatch --parsable --job-name=ql-done ./job.sh true'
    ask submit 'sbatch --job-name=ql-plain ./job.sh true'
    local id running failed again
    job timeout '-p short -t 1' 'sleep 600'
    job failed '' "sh -c 'exit 7'"
    failed=$id
    job again '' "sh -c 'exit 8'"
    again=$id
    job nolog '-o /nosuch/folder/log' true
    becomes failed 'FAILED.*'
    becomes again 'FAILED.*'
    becomes nolog 'FAILED.*'
    root_says scontrol requeuehold State=SpecialExit "$again"
    job stopped '' 'sleep 600'
    becomes stopped 'RUNNING.*'
    as_quser "scancel $id"
    becomes stopped 'CANCELLED.*'
    job cancelled -H true
    as_quser "scancel $id"
    job grounded -H true
    root_says scontrol hold "$id"
    job array '--array=0-3%1' "sh -c 'test \$SLURM_ARRAY_TASK_ID = 0 || sleep 600'"
    becomes array 'RUNNING.*'
    becomes array 'COMPLETED.*'
    # The user's second CPU is free when the time is over.
    becomes timeout 'TIMEOUT.*' 180
    job running '-L matlab:2' "sh -c 'trap : TERM; while sleep 1; do :; done'"
    running=$id
    becomes running 'RUNNING.*'
    job resources '-c 2' true
    job priority '' true
    job child "-d afterok:$running" true
    job orphan "-d afterok:$failed" true
    job dropped "-d afterok:$failed --kill-on-invalid-dep=yes" true
    job held -H true
    job later '--begin=now+1hour' true
    job licence '-p first -L matlab:1' true
    job away '-p away' true
    job named '-p away -w n2' true
    job door '-p door' true
    job gate '-p gate' true
    job fence '-p fence' true
    root_says scontrol update PartitionName=door State=DOWN
    root_says scontrol update PartitionName=gate State=INACTIVE
    root_says scontrol update PartitionName=fence MaxTime=1
    root_says scontrol create reservation ReservationName=later StartTime=now+5hours Duration=60 Users=quser Nodes=n1 >&2
    job reserved '-p first --reservation=later' true
    # The scheduler of 23.11.4 finds every account invalid where there are no accounts; backfill starts the jobs all the same.
    becomes resources '.*(Resources|InvalidAccount)'
    becomes priority '.*(Priority|InvalidAccount)'
    becomes orphan '.*DependencyNeverSatisfied'
    becomes dropped 'CANCELLED.*'
    becomes away '.*Nodes required for job.*'
    becomes named '.*ReqNodeNotAvail.*'
    becomes door '.*PartitionDown'
    becomes gate '.*PartitionInactive'
    becomes fence '.*PartitionTimeLimit'
    becomes reserved '.*Reservation'
    becomes licence '.*(Licenses|InvalidAccount)'
    # shellcheck disable=SC2016
    {
        ask queue 'squeue -h -r -a -t all -u "$(id -un)" -o '\''%i|%j|%T|%N|%r'\'
        ask find-job 'squeue -h -a -t all -u "$(id -un)" -n ql-running -o '\''%i %T %r'\'
        ask find-array 'squeue -h -a -t all -u "$(id -un)" -n ql-array -o '\''%i %T %r'\'
        ask find-nobody 'squeue -h -a -t all -u "$(id -un)" -n ql-nobody -o '\''%i %T %r'\'
        ask find-tasks 'squeue -h -r -a -u "$(id -un)" -n ql-array -o %i'
        ask accounts 'sacct -n -P -X -S now-30days -u "$(id -un)" --name ql-done -o JobID,JobName,State,NodeList,Reason'
        root_says scontrol suspend "$running"
        becomes running 'SUSPENDED.*'
        ask queue-suspended 'squeue -h -r -a -t all -u "$(id -un)" -n ql-running -o '\''%i|%j|%T|%N|%r'\'
        root_says scontrol resume "$running"
        as_quser "scancel $running"
        becomes running 'COMPLETING.*' 10
        ask queue-completing 'squeue -h -r -a -t all -u "$(id -un)" -n ql-running -o '\''%i|%j|%T|%N|%r'\'
    }
}

# What sbatch does not take; some of it only some versions or sites refuse.
refusals() {
    while IFS='|' read -r name options; do
        ask "sbatch-$name" "sbatch --parsable $options"
    done <<'ASKED'
partition|-p nosuch ./job.sh true
partition-down|-p down ./job.sh true
partition-inactive|-p inactive ./job.sh true
partition-drain|-p drain ./job.sh true
partition-group|-p vip ./job.sh true
partition-account|-p accounts --account=guest ./job.sh true
partition-root|-p rooms ./job.sh true
account|--account=nosuch ./job.sh true
qos|--qos=nosuch ./job.sh true
gres|--gres=tpu:1 ./job.sh true
gres-type|--gres=gpu:a100:1 ./job.sh true
gres-count|--gres=gpu:h100:9 ./job.sh true
gres-spelling|--gres=gpu:h100:x ./job.sh true
constraint|--constraint=nosuch ./job.sh true
constraint-spelling|--constraint='[fast' ./job.sh true
memory|--mem=999G ./job.sh true
memory-spelling|--mem=much ./job.sh true
cpus|--cpus-per-task=64 ./job.sh true
cpus-spelling|--cpus-per-task=many ./job.sh true
nodes|--nodes=9 ./job.sh true
time|--time=soon ./job.sh true
time-limit|-p short --time=60 ./job.sh true
node|--nodelist=n99 ./job.sh true
array|--array=0-5000 ./job.sh true
array-spelling|--array=many ./job.sh true
option|--bogus ./job.sh true
option-signal|--signal=NONE@soon ./job.sh true
option-begin|--begin=never ./job.sh true
script-empty|./empty.sh
script-plain|./plain.sh
script-dos|./dos.sh
script-huge|./huge.sh
script-missing|./nosuch.sh
script-folder|./folder
dependency|--dependency=nonsense:1 ./job.sh true
dependency-unknown|--dependency=afterok:999999 ./job.sh true
reservation|--reservation=nosuch ./job.sh true
license|--licenses=nosuch:1 ./job.sh true
license-count|--licenses=matlab:9 ./job.sh true
cluster|-M nosuch ./job.sh true
ASKED
    ask sbatch-configuration 'SLURM_CONF=/nosuch/slurm.conf sbatch --parsable ./job.sh true'
}

ask version 'sbatch --version'
ask config 'scontrol show config | grep MaxArraySize'
ask facts 'scontrol show config | sed -n '\''s/^\(MaxArraySize\|MinJobAge\|MaxJobCount\|AccountingStorageType\|JobRequeue\|KillWait\|ClusterName\) *= */\1=/p'\'
in_every_state
refusals
say "away"
as_quser 'scancel -u quser'
stop "$root/run/munge/munged.pid" munged
ask away-munge-squeue 'squeue -h -o %i'
ask away-munge-sbatch 'sbatch --parsable ./job.sh true'
munge_up
stop "$root/run/slurmctld.pid" slurmctld
# shellcheck disable=SC2016
ask away-squeue 'squeue -h -r -a -t all -u "$(id -un)" -o '\''%i|%j|%T|%N|%r'\'
ask away-sbatch 'sbatch --parsable ./job.sh true'
say "full"
# Some versions count the job that is asked for: one of these two may wait as the next one does.
controller MaxJobCount=2
job one -H true
job two -H true &
sleep 1
ask limit-jobs 'sbatch --parsable ./job.sh true'
wait
say "too fast"
controller SlurmctldParameters=rl_enable,rl_bucket_size=1,rl_refill_rate=1,rl_refill_period=4
job one -H true
# shellcheck disable=SC2016
{
    ask rate-squeue 'for call in 1 2 3 4; do { squeue -h -a -t all -u "$(id -un)" -o %i; echo "exit $?"; } & done; wait'
    ask rate-squeue-verbose 'for call in 1 2 3 4; do squeue -v -h -o %i & done; wait'
    ask rate-sbatch 'for call in 1 2 3 4; do { sbatch --parsable -H ./job.sh true; echo "exit $?"; } & done; wait'
}
say "done: $(ls "$out" | wc -l) transcripts, $(cat "$out"/* | wc -c) bytes"
