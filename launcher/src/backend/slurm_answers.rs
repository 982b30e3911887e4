//! The scripts that ask SLURM, and what they print.

/// Hands over `$1` (the job's name), `$2` (the folder of the attempt or array), `$3` (how many tasks an array has, 0 without one),
/// the folder of each task's attempt, then arguments of sbatch, once: whoever asks first holds the lock until SLURM has answered,
/// and the answer is kept. Prints the job id; ends with 91 where nobody knows.
///
/// What SLURM prints for a task goes to `INDEX.log` in the array's folder, which leads to the log of the attempt.
///
/// sbatch gets none of the variables by which an enclosing job or a profile would change what the script says.
pub const SUBMIT: &str = r#"
name=$1 folder=$2 tasks=$3 index=0; shift 3
mkdir -p -- "$folder" || exit 1
while [ "$index" -lt "$tasks" ]; do
  mkdir -p -- "$1" && ln -sfn -- "$1/log" "$folder/$index.log" || exit 1
  index=$((index + 1)); shift
done
exec 9> "$folder/submit.lock" || exit 1
flock -w 100 9 2>/dev/null
[ ! -s "$folder/submitted" ] || { cat -- "$folder/submitted"; exit 0; }
# A job that SLURM refused is in the queue for a while, too.
queued() { squeue -h -a -t all -u "$(id -un)" -n "$name" -o '%i %T %r' 2>/dev/null | sed -n -e '/ BadConstraints$/d' -e 's/^\([0-9][0-9]*\)[^ ]* .*/\1/p' | tail -n 1; }
id=$(queued)
if [ -z "$id" ]; then
  for variable in $(env | sed -n 's/^\(SBATCH_[A-Z0-9_]*\|SLURM_[A-Z0-9_]*\)=.*/\1/p'); do
    case $variable in SLURM_CONF|SLURM_CLUSTERS) ;; *) unset "$variable" ;; esac
  done
  # Where the queue is full, sbatch itself tries again for minutes, and nobody would wait so long for its answer.
  said=$(timeout 90 sbatch --parsable "$@" 2> "$folder/sbatch.err"); code=$?
  id=$(printf '%s\n' "$said" | sed -n -e 's/^\([0-9][0-9]*\)\(;.*\)\{0,1\}$/\1/p' -e 's/^Submitted batch job \([0-9][0-9]*\).*/\1/p' | tail -n 1)
  if [ "$code" != 0 ] || [ -z "$id" ]; then
    cat -- "$folder/sbatch.err" >&2
    # A reply that was lost may belong to a job that was taken.
    sleep 2
    id=$(queued)
    if [ -z "$id" ]; then
      [ "$code" = 124 ] && { echo 'sbatch gave no answer within 90 seconds' >&2; exit 91; }
      [ "$code" = 0 ] && { printf 'sbatch said `%s`, which is no job id\n' "$said" >&2; exit 91; }
      exit 90
    fi
  fi
fi
printf '%s\n' "$id" > "$folder/submitted.partial" && mv -- "$folder/submitted.partial" "$folder/submitted"
printf '%s\n' "$id"
"#;

/// Looks for the job or array named `$1` whose folder is `$2`: waits for a submission under way, then asks its answer,
/// the queue, the accounts. Prints the id if there is one; ends with 91 where SLURM does not answer.
pub const FIND: &str = r#"
name=$1 folder=$2
if [ -d "$folder" ]; then
  exec 9>> "$folder/submit.lock"
  flock -w 100 9 2>/dev/null
  [ ! -s "$folder/submitted" ] || { cat -- "$folder/submitted"; exit 0; }
fi
rows=$(squeue -h -a -t all -u "$(id -un)" -n "$name" -o '%i %T %r') || exit 91
id=$(printf '%s\n' "$rows" | sed -n -e '/ BadConstraints$/d' -e 's/^\([0-9][0-9]*\)[^ ]* .*/\1/p' | tail -n 1)
[ -n "$id" ] || id=$(sacct -n -P -X -S now-30days -u "$(id -un)" --name "$name" -o JobID 2>/dev/null | sed -n 's/^\([0-9][0-9]*\).*/\1/p' | tail -n 1)
[ -z "$id" ] || printf '%s\n' "$id"
"#;

/// Asks for everything at once: rows of the queue with the columns `$1`, then for each attempt's folder `$2…` how often it
/// was started again and whether it has a witness.
pub const LOOK: &str = r#"
columns=$1; shift
squeue -h -r -a -t all -u "$(id -un)" -o "$columns"
printf '@queue %d\n' $?
for folder in "$@"; do
  newest=0
  for other in "$folder".[0-9]*; do
    number=${other##*.}
    case $number in *[!0-9]*) ;; *) [ -d "$other" ] && [ "$number" -gt "$newest" ] && newest=$number ;; esac
  done
  [ "$newest" = 0 ] || folder=$folder.$newest
  witness=no
  [ ! -e "$folder/outcome.json" ] && [ ! -e "$folder/exit_code" ] || witness=yes
  printf '@attempt %s %s\n' "$newest" "$witness"
done
"#;

/// Asks the accounts of jobs by name.
pub const ACCOUNTS: &str =
    r#"sacct -n -P -X -S now-30days -u "$(id -un)" --name "$1" -o JobID,JobName,State,NodeList,Reason"#;

/// Takes the job named `$1` back, or of an array of that name the task `$3`; its worker has time to stop. The mark in the
/// attempt's folder `$2` keeps the script from queueing it again. With `$4` it is ended at once.
///
/// Tasks are asked for by name, because ids are given away twice.
pub const CANCEL: &str = r#"
name=$1 index=$3 user=$(id -un)
: > "$2/cancelled"
if [ -n "$index" ]; then
  set -- "$4" $(squeue -h -r -a -u "$user" -n "$name" -o %i | grep -E "^[0-9]+_$index\$")
  [ $# -gt 1 ] || exit 0
else
  set -- "$4" -n "$name" -u "$user"
fi
now=$1; shift
[ -z "$now" ] || scancel -Q -f -s KILL "$@"
scancel -Q "$@"
"#;

/// Asks how many tasks an array can have.
pub const ARRAYS: &str = r#"scontrol show config | sed -n 's/^MaxArraySize *= *\([0-9][0-9]*\).*/\1/p'"#;

/// What [`LOOK`] says of an attempt's folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// How often the attempt was started again.
    pub restart: u32,
    /// Whether its newest start left an outcome or an exit code.
    pub witness: bool,
}

/// The queue's text, or none where SLURM did not answer, and what was seen of each folder.
pub fn look(text: &str) -> (Option<&str>, Vec<Seen>) {
    let Some(at) = text.find("@queue ") else {
        return (None, Vec::new());
    };
    let (queue, rest) = text.split_at(at);
    let mut lines = rest.lines();
    let answered = lines.next() == Some("@queue 0");
    let seen = lines.filter_map(|line| {
        let (restart, witness) = line.strip_prefix("@attempt ")?.split_once(' ')?;
        Some(Seen { restart: restart.parse().ok()?, witness: witness == "yes" })
    });
    (answered.then_some(queue), seen.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_tells_queue_and_folders_apart() {
        let text = "7|ql-a|RUNNING|n1|None\n@queue 0\n@attempt 0 no\n@attempt 2 yes\n";
        let (queue, seen) = look(text);
        assert_eq!(queue, Some("7|ql-a|RUNNING|n1|None\n"));
        assert_eq!(seen, [Seen { restart: 0, witness: false }, Seen { restart: 2, witness: true }]);
        assert_eq!(look("@queue 1\n@attempt 0 no\n").0, None, "SLURM is away, the folders are not");
    }
}
