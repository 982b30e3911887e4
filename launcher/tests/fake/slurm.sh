#!/bin/bash
# A SLURM that only pretends, under each of its commands' names. Its state lies in $FAKE/slurm, one folder a job; what it
# is to do wrong stands in files of $FAKE/slurm/odd. Every call is counted in $FAKE/slurm/calls.
world=$FAKE/slurm
mkdir -p "$world/jobs"
command=$(basename "$0")
if [ "$command" = timeout ]; then
    shift
    [ "$1" = sbatch ] && [ -e "$world/odd/silent" ] && rm "$world/odd/silent" && exit 124
    exec "$@"
fi
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
    SLURM_JOB_ID=$(basename "$folder") SLURM_ARRAY_JOB_ID=$(cat "$folder/array") SLURM_ARRAY_TASK_ID=$(cat "$folder/index") \
        bash $(cat "$folder/script") > "$(cat "$folder/output")" 2>&1 &
    echo $! > "$folder/pid"
    wait $!
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
    id=$(($(ls "$world/jobs" | sed 's/_.*//' | sort -n | tail -n 1) + 1))
    after= begin= reason=Priority
    while [ $# -gt 0 ]; do
        case $1 in
            --job-name=*) name=${1#*=} ;;
            --output=*) output=${1#*=} ;;
            --dependency=afterok:*) after=$(echo "${1#*:}" | tr : ' ') reason=Dependency ;;
            --begin=*) begin=${1#*=} ;;
            --*) ;;
            *) script=$*; break ;;
        esac
        shift
    done
    last=$(sed -n 's/^#SBATCH --array=0-\([0-9]*\).*/\1/p' "$1")
    if [ -n "$last" ] && once array-limit; then
        echo 'sbatch: error: Batch job submission failed: Job violates accounting/QOS policy (job submit limit)' >&2
        exit 1
    fi
    for index in $(seq 0 "${last:-0}"); do
        folder=$world/jobs/$id${last:+_$index}
        mkdir "$folder"
        echo "$name" > "$folder/name"; echo "${output//%a/$index}" > "$folder/output"; echo "$script" > "$folder/script"
        echo "$after" > "$folder/after"; echo "$begin" > "$folder/begin"; : > "$folder/nodes"
        echo PENDING > "$folder/state"; echo "$reason" > "$folder/reason"
        echo "${last:+$id}" > "$folder/array"; echo "${last:+$index}" > "$folder/index"
        (trap '' HUP; run "$folder") < /dev/null > /dev/null 2>&1 8>&- 9>&- &
    done
    if [ -n "$last" ] && once array-lost || once lost; then
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
    # A controller that limits calls lets the programs wait and ask again by themselves.
    odd slow && sleep 1
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
        if [ "$format" = "%i" ]; then basename "$folder"; elif [ "$format" = "%i %T %r" ]; then echo "$(basename "$folder") $now $(cat "$folder/reason")"; else
            echo "$(basename "$folder")|$(cat "$folder/name")|$now|$(cat "$folder/nodes")|$(cat "$folder/reason")"
        fi
    done
    ;;
scontrol)
    echo 'MaxArraySize            = '$(cat "$world/max-array-size" 2>/dev/null || echo 1001)
    ;;
sacct)
    echo 'Slurm accounting storage is disabled' >&2
    exit 1
    ;;
scancel)
    name= ids=
    while [ $# -gt 0 ]; do
        case $1 in -n) name=$2; shift ;; -u | -s) shift ;; -*) ;; *) ids="$ids $1 " ;; esac
        shift
    done
    for folder in "$world"/jobs/*; do
        case " $ids " in *" $(basename "$folder") "*) ;; *) [ -n "$name" ] && [ "$(cat "$folder/name")" = "$name" ] || continue ;; esac
        case $(state "$folder") in
            PENDING) echo CANCELLED > "$folder/state" ;;
            RUNNING) echo CANCELLED > "$folder/state"; kill -TERM "$(cat "$folder/pid")" ;;
        esac
    done
    ;;
esac
