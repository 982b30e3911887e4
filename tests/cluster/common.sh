# What the scripts of this folder share: finding live daemons by pid file, waiting, saying how long it took.

started_at=$(date +%s%N)
say() { echo "[$(basename "$0") $((($(date +%s%N) - started_at) / 1000000)) ms] $*" >&2; }

# alive PIDFILE NAME: that process runs under that name. Process ids are used again, and PID 1 of a container reaps late.
alive() {
    local pid
    [ -s "$1" ] && pid=$(cat "$1") && [[ "$(cat "/proc/$pid/comm" 2>/dev/null)" == "$2"* ]] &&
        ! grep -q '^State:.Z' "/proc/$pid/status" 2>/dev/null
}

gone() { [ ! -d "/proc/$1" ] || grep -q '^State:.Z' "/proc/$1/status" 2>/dev/null; }

# stop PIDFILE NAME [SIGNAL]: ends the process that the file names, if it still is that process.
stop() {
    local pid
    [ -s "$1" ] || return 0
    pid=$(cat "$1")
    if [[ "$(cat "/proc/$pid/comm" 2>/dev/null)" == "$2"* ]]; then
        kill "-${3:-TERM}" "$pid" 2>/dev/null
        for _ in $(seq 200); do gone "$pid" && break; sleep 0.05; done
        gone "$pid" || kill -KILL "$pid" 2>/dev/null
    fi
    rm -f "$1"
}

# waitfor SECONDS COMMAND…: until it succeeds.
waitfor() {
    local end=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        [ $SECONDS -lt $end ] || return 1
        sleep 0.1
    done
}

# in_node HOSTNAME COMMAND…: a daemon with a host name and an /etc/hosts of its own, so that `hostname` in a job tells
# the node and node names resolve there.
in_node() {
    local name=$1
    shift
    unshare --uts --mount --propagation private bash -c \
        'hostname "$1"; mount --bind "$2" /etc/hosts; shift 2; exec "$@"' _ "$name" "$cluster/etc/hosts" "$@"
}
