#!/bin/bash
# A SLURM that only pretends, under each of its commands' names. Its state lies in $FAKE/slurm, one folder a job; what it
# is to do wrong stands in files of $FAKE/slurm/odd. Every call is counted in $FAKE/slurm/calls.
world=$FAKE/slurm
mkdir -p "$world/jobs"
command=$(basename "$0")
exec 8> "$world/lock"
flock 8
echo "$command" >> "$world/calls"
odd() { [ -e "$world/odd/$1" ]; }
once() { odd "$1" && rm "$world/odd/$1"; }
state() { cat "$1/state"; }

run() { # FOLDER: waits for what the job depends on, then runs its script.
    local folder=$1 id
    for id in $(cat "$folder/after"); do
        while :; do
            case $(state "$world/jobs/$id") in
                COMPLETED) break ;;
                FAILED | CANCELLED) echo CANCELLED > "$folder/state"; echo DependencyNeverSatisfied > "$folder/reason"; return ;;
            esac
            sleep 0.05
        done
    done
    while odd days-in-queue; do sleep 0.05; done
    echo RUNNING > "$folder/state"; echo None > "$folder/reason"; echo n1 > "$folder/nodes"
    SLURM_JOB_ID=$(basename "$folder") bash $(cat "$folder/script") > "$(cat "$folder/output")" 2>&1
    local code=$?
    [ "$(state "$folder")" != RUNNING ] || { [ $code = 0 ] && echo COMPLETED || echo FAILED; } > "$folder/state"
}

case $command in
sbatch)
    [ "$1" != --version ] || { echo "slurm 99.05.1"; exit; }
    if once limit; then
        echo 'sbatch: error: QOSMaxSubmitJobPerUserLimit' >&2
        echo "sbatch: error: Batch job submission failed: Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)" >&2
        exit 1
    fi
    if once away; then
        echo 'sbatch: error: Batch job submission failed: Unable to contact slurm controller (connect failure)' >&2
        exit 1
    fi
    id=$(($(ls "$world/jobs" | sort -n | tail -n 1) + 1))
    folder=$world/jobs/$id
    mkdir "$folder"
    : > "$folder/after"; : > "$folder/nodes"; echo PENDING > "$folder/state"; echo Priority > "$folder/reason"
    while [ $# -gt 0 ]; do
        case $1 in
            --job-name=*) echo "${1#*=}" > "$folder/name" ;;
            --output=*) echo "${1#*=}" > "$folder/output" ;;
            --dependency=afterok:*) echo "${1#*:}" | tr : ' ' > "$folder/after"; echo Dependency > "$folder/reason" ;;
            --begin=*) echo "${1#*=}" > "$folder/begin" ;;
            --*) ;;
            *) echo "$*" > "$folder/script"; break ;;
        esac
        shift
    done
    (trap '' HUP; run "$folder") < /dev/null > /dev/null 2>&1 8>&- 9>&- &
    if once lost; then
        echo 'sbatch: error: Batch job submission failed: Socket timed out on send/recv operation' >&2
        exit 1
    fi
    odd banner && echo 'Welcome, 12345 users!'
    if odd chatty; then echo "Submitted batch job $id on cluster far"; elif odd federated; then echo "$id;far"; else echo "$id"; fi
    ;;
squeue)
    if once squeue-away; then
        echo 'slurm_load_jobs error: Unable to contact slurm controller (connect failure)' >&2
        exit 1
    fi
    odd slow && sleep 3
    while [ $# -gt 0 ]; do
        case $1 in -n) name=$2; shift ;; -o) format=$2; shift ;; -u) shift ;; -t) shift ;; esac
        shift
    done
    for folder in $(ls -d "$world"/jobs/* 2>/dev/null | sort -V); do
        [ -z "${name:-}" ] || [ "$(cat "$folder/name")" = "$name" ] || continue
        now=$(state "$folder")
        # Finished jobs are forgotten where MinJobAge has passed.
        case $now in COMPLETED | FAILED | CANCELLED) ! odd forgetful || continue ;; esac
        [ "$now" != RUNNING ] || ! odd strange || now=HIBERNATING
        if [ "$format" = "%i %T %r" ]; then echo "$(basename "$folder") $now $(cat "$folder/reason")"; else
            echo "$(basename "$folder")|$(cat "$folder/name")|$now|$(cat "$folder/nodes")|$(cat "$folder/reason")"
        fi
    done
    ;;
sacct)
    echo 'Slurm accounting storage is disabled' >&2
    exit 1
    ;;
scancel)
    while [ $# -gt 0 ]; do
        case $1 in -n) name=$2; shift ;; esac
        shift
    done
    for folder in "$world"/jobs/*; do
        [ "$(cat "$folder/name")" = "$name" ] || continue
        case $(state "$folder") in PENDING | RUNNING) echo CANCELLED > "$folder/state" ;; esac
    done
    ;;
esac
