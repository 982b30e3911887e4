//! The scripts that start, find and end processes of a host, and what they print.

use crate::journal::Process;
use crate::transport::CommandOutput;

/// Functions of the other scripts. `facts PID` sets state, process group and start time of a process; the state is `-` where
/// there is none. They start no other programs: on this machine they are asked ten times a second. `leaders` prints the
/// processes of jobs of this user: a job's script leads its group, and the worker below it has the same environment.
const FUNCTIONS: &str = r#"
read -r boot < /proc/sys/kernel/random/boot_id
facts() {
  said=
  # A name of several lines, in parentheses, may hold anything.
  { while read -r line; do said="$said $line"; done < "/proc/$1/stat"; } 2>/dev/null
  state=- group=0 start=0
  [ -n "$said" ] || return 0
  set -- ${said##*) }
  state=$1 group=$3 start=${20}
}
value() { tr '\0' '\n' < "/proc/$1/environ" 2>/dev/null | sed -n "s/^$2=//p"; }
# leaders PATTERN OPTIONS, as grep has them.
leaders() {
  for file in $(grep -lza $2 -e "$1" /proc/[0-9]*/environ 2>/dev/null); do
    pid=${file#/proc/} pid=${pid%/environ}
    facts "$pid"
    [ "$group" != "$pid" ] || [ "$state" = Z ] || [ ! -O "/proc/$pid" ] || echo "$pid"
  done
}
started() { facts "$1"; printf '@process %s %s %s\n' "$1" "$start" "$boot"; }
"#;

/// Starts `job.sh` of the folder `$1` detached, for attempt `$2` of the token `$3`, and prints what it is. `setsid` does not fork
/// here, because a background process of a script leads no process group. `$4` is `slots` where the host is shared: then the job
/// takes `$5` CPUs (all, if empty) and `$6` GPUs, once these are free. `$7` is the number of its first rank here, if it has
/// ranks on other hosts. Ends with 92 where it has to wait for what is printed, with 94 where it never will run here.
///
/// One such script of a user at a time runs on a host. What is free is told by the environments of running jobs, so that
/// several launchers share a host.
const START: &str = r#"
cd "$1" || exit 1
folder=attempts/$2
[ "${7:-0}" = 0 ] || folder=$folder/ranks/$7
attempt=$2 token=$3 slots=$4 wanted=$5 gpus=$6 rank=$7
pin= cpus=all devices=
if [ "$slots" = slots ]; then
  lock=/tmp/qlaunch-processes-$(id -u).lock
  exec 9>> "$lock" || exit 1
  flock -w 100 9 2>/dev/null
  # Its launcher died, or the link was lost, before anybody heard of it.
  for pid in $(leaders "QLAUNCH_ATTEMPT=$token" -xF); do started "$pid"; exit 0; done
  busy=, taken=, count=0
  for pid in $(leaders '^QLAUNCH_CPUS=' ''); do
    count=$((count + 1)) taken=$taken$(value "$pid" QLAUNCH_CPUS), busy=$busy$(value "$pid" QLAUNCH_DEVICES),
  done
  all=$(sed -n 's/^Cpus_allowed_list:[[:space:]]*//p' /proc/self/status)
  all=$(for part in $(echo "$all" | tr , ' '); do seq "${part%-*}" "${part#*-}"; done)
  total=$(echo "$all" | wc -w)
  if [ -z "$wanted" ]; then
    [ "$count" = 0 ] || { echo "$count job(s) of qlaunch run there, and this one wants all CPUs"; exit 92; }
  else
    [ "$wanted" -le "$total" ] || { echo "it has $total CPUs, and a job wants $wanted"; exit 94; }
    case $taken in *,all,*) echo "a job of qlaunch has all its CPUs"; exit 92 ;; esac
    cpus= free=0
    for cpu in $all; do
      case $taken in *,"$cpu",*) ;; *) [ "$free" = "$wanted" ] || { cpus=$cpus${cpus:+,}$cpu; free=$((free + 1)); } ;; esac
    done
    [ "$free" = "$wanted" ] || { echo "$free of its $total CPUs are free, and a job wants $wanted"; exit 92; }
    ! command -v taskset >/dev/null || pin="taskset -c $cpus"
  fi
  if [ "$gpus" -gt 0 ]; then
    all=$(nvidia-smi --query-gpu=index --format=csv,noheader 2>/dev/null) || all=
    total=$(echo "$all" | wc -w) free=0
    [ "$gpus" -le "$total" ] || { echo "nvidia-smi finds $total GPUs there, and a job wants $gpus"; exit 94; }
    for device in $all; do
      case $busy in *,"$device",*) ;; *) [ "$free" = "$gpus" ] || { devices=$devices${devices:+,}$device; free=$((free + 1)); } ;; esac
    done
    [ "$free" = "$gpus" ] || { echo "$free of its $total GPUs are free, and a job wants $gpus"; exit 92; }
    # Numbers as nvidia-smi has them.
    export CUDA_DEVICE_ORDER=PCI_BUS_ID CUDA_VISIBLE_DEVICES="$devices"
  fi
  export QLAUNCH_CPUS="$cpus" QLAUNCH_DEVICES="$devices"
fi
# A job that has to wait leaves nothing behind.
mkdir -p "$folder" || exit 1
[ -z "$rank" ] || export QLAUNCH_FIRST_RANK="$rank"
# What goes on in the background must not hold the lock.
QLAUNCH_ATTEMPT=$token setsid $pin sh job.sh "$attempt" > "$folder/log" 2>&1 < /dev/null 9<&- &
# Until it has become another program, its environment is this script's.
tries=0
until grep -qzxF "QLAUNCH_ATTEMPT=$token" "/proc/$!/environ" 2>/dev/null || [ $tries = 300 ]; do
  facts $!
  case $state in Z|-) break ;; esac
  tries=$((tries + 1)); sleep 0.01
done
started $!
"#;

/// Prints the processes of the token `$1`; waits for a start under way.
const FIND: &str = r#"
lock=/tmp/qlaunch-processes-$(id -u).lock
if [ -e "$lock" ]; then exec 9>> "$lock"; flock -w 100 9 2>/dev/null; fi
for pid in $(leaders "QLAUNCH_ATTEMPT=$1" -xF); do started "$pid"; done
"#;

/// Prints of each process `PID STARTED BOOT` whether it is that very one and alive.
const LOOK: &str = r#"
while [ $# -ge 3 ]; do
  facts "$1"
  is=gone
  case $state in Z|-) ;; *) [ "$start $boot" != "$2 $3" ] || is=alive ;; esac
  printf '@process %s %s\n' "$1" "$is"
  shift 3
done
"#;

/// Sends the signal `$1` to the groups of processes `PID STARTED BOOT`: a script waits for its worker, the worker stops.
const SIGNAL: &str = r#"
signal=$1; shift
while [ $# -ge 3 ]; do
  facts "$1"
  [ "$start $boot" != "$2 $3" ] || kill -s "$signal" -- "-$1" 2>/dev/null
  shift 3
done
"#;

/// A script with the functions that it needs.
pub fn with_functions(script: &str) -> String {
    format!("{FUNCTIONS}{script}")
}

/// The script that starts a job.
pub fn start() -> String {
    with_functions(START)
}

/// The script that finds a job.
pub fn find() -> String {
    with_functions(FIND)
}

/// The script that looks at processes.
pub fn look() -> String {
    with_functions(LOOK)
}

/// The script that sends a signal.
pub fn signal() -> String {
    with_functions(SIGNAL)
}

/// What a host says to a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// It has started.
    Started(Process),
    /// There is no room now.
    Busy(String),
    /// It will never run there.
    Unfit(String),
    /// Something went wrong.
    Refused(String),
}

/// What the script that starts a job printed.
pub fn said(output: &CommandOutput, host: Option<&str>) -> Said {
    let line = || output.stdout.lines().last().unwrap_or_default().trim().to_owned();
    match (output.code, processes(&output.stdout, host).pop()) {
        (Some(0), Some(process)) => Said::Started(process),
        (Some(92), _) => Said::Busy(line()),
        (Some(94), _) => Said::Unfit(line()),
        _ => Said::Refused(output.stderr.trim().to_owned()),
    }
}

/// The processes that a script printed.
pub fn processes(text: &str, host: Option<&str>) -> Vec<Process> {
    let process = |line: &str| {
        let mut fields = line.strip_prefix("@process ")?.split(' ');
        let (pid, started) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        Some(Process { pid, started, boot: fields.next()?.to_owned(), host: host.map(str::to_owned) })
    };
    text.lines().filter_map(process).collect()
}

/// Whether each process that was asked for is alive.
pub fn alive(text: &str) -> Vec<bool> {
    let word = |line: &str| Some(line.strip_prefix("@process ")?.ends_with(" alive"));
    text.lines().filter_map(word).collect()
}

/// The words that name processes to [`look`] and [`signal`].
pub fn words<'a>(processes: impl IntoIterator<Item = &'a Process>) -> Vec<String> {
    let words =
        |process: &Process| [process.pid.to_string(), process.started.to_string(), process.boot.clone()];
    processes.into_iter().flat_map(words).collect()
}
