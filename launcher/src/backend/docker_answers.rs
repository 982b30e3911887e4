//! The scripts that ask Docker or podman, and what they print. Each gets the program as `$1` and its daemon's address, or
//! nothing, as `$2`.

/// Makes the container of the attempt `$5` (its token) of the job in folder `$6`, attempt number `$7`, which needs `$3` CPUs
/// (all, if empty) and `$4` GPUs; once, and only where the host has so much free. Prints the container's id. Ends with 91
/// where nobody knows, with 92 where the job has to wait for what is printed.
///
/// One such script at a time runs on a host. What is free is told by the labels of running containers, so that several
/// launchers share a host.
pub const SUBMIT: &str = r#"
run=$1 cpus=$3 gpus=$4 token=$5 folder=$6 attempt=$7
[ -z "$2" ] || export DOCKER_HOST="$2" CONTAINER_HOST="$2"
mkdir -p -- "$folder/attempts/$attempt" || exit 1
lock=/tmp/qlaunch-containers.lock
[ -e "$lock" ] || (umask 0; : >> "$lock") 2>/dev/null
exec 9< "$lock" || exit 1
flock -w 100 9 2>/dev/null
labels() { "$run" inspect --type container -f '{{index .Config.Labels "qlaunch.cpus"}}|{{index .Config.Labels "qlaunch.devices"}}|{{index .Config.Labels "qlaunch.folder"}}' "$@" 2>/dev/null; }
found=$("$run" ps -aq --no-trunc --filter "label=qlaunch.attempt=$token") || exit 91
if [ -n "$found" ]; then
  state=$("$run" inspect --type container -f '{{.State.Status}}' "$found") || exit 91
  [ "$state" = created ] || [ "$state" = configured ] || { printf '%s\n' "$found"; exit 0; }
  # Its maker died before it was started.
  "$run" rm "$found" >/dev/null || exit 91
fi
# Containers whose outcome was read while the daemon was away.
for id in $("$run" ps -aq --filter label=qlaunch.attempt --filter status=exited); do
  rest=$(labels "$id"); [ ! -e "${rest##*|}/outcome.json" ] || "$run" rm "$id" >/dev/null 2>&1
done
case $run in *podman) total=$("$run" info -f '{{.Host.CPUs}}') ;; *) total=$("$run" info -f '{{.NCPU}}') ;; esac
[ -n "$total" ] || exit 91
used=0 busy=, count=0
for id in $("$run" ps -q --filter label=qlaunch.attempt); do
  label=$(labels "$id") || continue
  count=$((count + 1)); rest=${label#*|}; busy=$busy${rest%%|*},
  case ${label%%|*} in all|'') used=$((used + total)) ;; *) used=$((used + ${label%%|*})) ;; esac
done
if [ "$count" -gt 0 ] && [ $((used + ${cpus:-$total})) -gt "$total" ]; then
  echo "$((used > total ? total : used)) of $total CPUs of the host are taken by $count container(s) of qlaunch"; exit 92
fi
devices=
if [ "$gpus" -gt 0 ] && all=$(nvidia-smi --query-gpu=index --format=csv,noheader 2>/dev/null) && [ -n "$all" ]; then
  free=0
  for device in $all; do
    case $busy in *,"$device",*) ;; *) [ "$free" = "$gpus" ] || { devices=$devices${devices:+,}$device; free=$((free + 1)); } ;; esac
  done
  [ "$free" = "$gpus" ] || { echo "$free of $(echo $all | wc -w) GPUs of the host are free, and the job needs $gpus"; exit 92; }
fi
# What stays behind in the background must not hold the lock.
QLAUNCH_ATTEMPT=$token QLAUNCH_DEVICES=$devices sh "$folder/job.sh" "$attempt" 9<&- || exit 90
"#;

/// Looks for the container of the token `$3` whose attempt's folder is `$4`; waits for a submission under way. Prints its id
/// if it was started, or what its exit record says if it is gone. Ends with 91 where the daemon does not answer.
pub const FIND: &str = r#"
run=$1 token=$3 folder=$4
[ -z "$2" ] || export DOCKER_HOST="$2" CONTAINER_HOST="$2"
if [ -e /tmp/qlaunch-containers.lock ]; then exec 9< /tmp/qlaunch-containers.lock; flock -w 100 9 2>/dev/null; fi
[ ! -s "$folder/container" ] || { echo gone; exit 0; }
found=$("$run" ps -aq --no-trunc --filter "label=qlaunch.attempt=$token") || exit 91
[ -n "$found" ] || exit 0
state=$("$run" inspect --type container -f '{{.State.Status}}' "$found") || exit 91
case $state in created|configured) "$run" rm "$found" >/dev/null || exit 91 ;; *) printf '%s\n' "$found" ;; esac
"#;

/// Asks for everything at once: whether the daemon answers, then for each pair of token and attempt's folder `$3…` whether
/// there is an outcome, and the container's state. A container that is over leaves its log and its exit record in the
/// attempt's folder before it is removed: neither a daemon that forgets nor a person who tidies up takes them away.
pub const LOOK: &str = r#"
run=$1
[ -z "$2" ] || export DOCKER_HOST="$2" CONTAINER_HOST="$2"
shift 2
said=$("$run" version --format '{{.Server.Version}}' 2>&1 >/dev/null); daemon=$?
case $run in *podman) daemon=0 ;; esac
[ "$daemon" = 0 ] || printf '%s\n' "$said" >&2
printf '@daemon %d\n' "$daemon"
while [ $# -ge 2 ]; do
  token=$1 folder=$2; shift 2
  state=
  if [ ! -s "$folder/container" ] && [ "$daemon" = 0 ]; then
    if state=$("$run" inspect --type container -f '{{.State.Status}}|{{.State.ExitCode}}|{{.State.OOMKilled}}|{{.State.Error}}' "$token" 2>&1); then
      state=$(printf '%s' "$state" | tr '\n' ' ')
      "$run" logs "$token" > "$folder/log.partial.$$" 2>&1 && mv -f -- "$folder/log.partial.$$" "$folder/log"
      case $state in exited*|dead*|stopped*)
        printf '%s\n' "$state" > "$folder/container.partial.$$" && mv -f -- "$folder/container.partial.$$" "$folder/container" && "$run" rm -f "$token" >/dev/null 2>&1 ;;
      esac
    else
      case $state in *[Nn]"o such "*) state=absent ;; *) state=unknown ;; esac
    fi
  fi
  [ ! -s "$folder/container" ] || state=$(cat -- "$folder/container")
  witness=no
  [ ! -e "$folder/outcome.json" ] || witness=yes
  printf '@attempt %s %s\n' "$witness" "${state:-unknown}"
done
"#;

/// Sends the signal `$3` to the container `$4`; one that is over needs none. Ends with 91 where the daemon does not answer.
pub const SIGNAL: &str = r#"
[ -z "$2" ] || export DOCKER_HOST="$2" CONTAINER_HOST="$2"
said=$("$1" kill -s "$3" "$4" 2>&1) && exit 0
case $said in *[Nn]"o such "*|*"not running"*|*"can only kill running"*) exit 0 ;; esac
printf '%s\n' "$said" >&2; exit 91
"#;

/// What a container is or was, as the daemon says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Container {
    /// It runs, or is about to.
    Running,
    /// It is over.
    Over {
        /// Exit code of the worker. 0 says little: daemons that crashed say so of what they lost.
        code: i32,
        /// Whether the kernel ended it for want of memory.
        out_of_memory: bool,
        /// What the daemon complains of.
        complaint: String,
    },
    /// The daemon has no trace of it.
    Absent,
    /// The daemon did not say.
    Unknown,
}

/// What [`LOOK`] says of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Whether it left an outcome.
    pub witness: bool,
    /// What its container is.
    pub container: Container,
}

/// Whether the daemon answered, and what was seen of each attempt.
pub fn look(text: &str) -> (bool, Vec<Seen>) {
    let mut lines = text.lines().skip_while(|line| !line.starts_with("@daemon "));
    let answered = lines.next() == Some("@daemon 0");
    let seen = lines.filter_map(|line| {
        let (witness, state) = line.strip_prefix("@attempt ")?.split_once(' ')?;
        Some(Seen { witness: witness == "yes", container: container(state) })
    });
    (answered, seen.collect())
}

fn container(state: &str) -> Container {
    let mut fields = state.splitn(4, '|');
    let mut next = || fields.next().unwrap_or_default().trim();
    match next() {
        "exited" | "dead" | "stopped" => Container::Over {
            code: next().parse().unwrap_or(-1),
            out_of_memory: next() == "true",
            complaint: next().to_owned(),
        },
        "absent" => Container::Absent,
        "running" | "paused" | "restarting" | "created" | "configured" | "initialized" | "stopping"
        | "removing" => Container::Running,
        // A state of the future: nothing follows from it.
        _ => Container::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_tells_every_state_and_guesses_none() {
        let text = "banner\n@daemon 0\n@attempt no running|0|false|\n@attempt yes exited|137|true|\n\
            @attempt no exited|127|false|exec: a|b\n@attempt no absent\n@attempt no hibernating|0|false|\n";
        let (answered, seen) = look(text);
        assert!(answered);
        let over = |code, out_of_memory, complaint: &str| Container::Over {
            code,
            out_of_memory,
            complaint: complaint.to_owned(),
        };
        let containers: Vec<Container> = seen.iter().map(|seen| seen.container.clone()).collect();
        assert_eq!(
            containers,
            [
                Container::Running,
                over(137, true, ""),
                over(127, false, "exec: a|b"),
                Container::Absent,
                Container::Unknown
            ]
        );
        assert!(seen[1].witness && !seen[0].witness);
        assert!(!look("@daemon 1\n@attempt no unknown\n").0);
    }
}
