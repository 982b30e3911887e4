//! What `sbatch` complains of, in words with a remedy: some refusals are final, some ask for patience, some say nothing.

use qlaunch_shared::{Error, ErrorKind};

/// What a failed `sbatch` means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// The job will never be taken as it is.
    Final(Error),
    /// Not now: a limit is reached, or the scheduler does not know the job that this one waits for.
    Later(String),
    /// Nobody knows whether the job was taken.
    Unknown(Error),
}

/// Texts of what passes by itself: limits, when other jobs end; a dependency on a job that a controller forgot when it
/// crashed, when that job is found to be lost and is handed over again.
const PASSING: [&str; 6] = [
    "temporarily unable to accept job",
    "Resource temporarily unavailable",
    "MaxJobCount limit reached",
    "job queue full",
    "Rate limit exceeded",
    "Job dependency problem",
];

/// Texts of a host that does not know SLURM, or not where it is.
const NOT_SET_UP: [&str; 3] =
    ["not found", "Could not establish a configuration source", "Unable to process configuration file"];

/// Comes with every refusal by the accounts, whichever limit it is; the limit's name stands on a line of its own.
const POLICY: &str = "Job violates accounting/QOS policy";

/// Parts of the names of limits that a job breaks by itself, and the keys that it comes from.
const LIMITS: [(&str, &str); 9] = [
    ("Minutes", "`slurm.time`, `cpus`, `gpus` and `nodes`"),
    ("Wall", "`slurm.time`"),
    ("Time", "`slurm.time`"),
    ("Mem", "`slurm.memory`"),
    ("Cpu", "`slurm.cpus`"),
    ("CPU", "`slurm.cpus`"),
    ("GRES", "`slurm.gpus`"),
    ("Node", "`slurm.nodes`"),
    ("", "`slurm.time`, `memory`, `cpus`, `gpus` and `nodes`"),
];

/// Texts after which the job may or may not be in the queue.
const UNKNOWN: [&str; 15] = [
    "standby mode",
    "can't be reached now",
    "Socket timed out",
    "Unable to contact slurm controller",
    "Connection refused",
    "Connection reset",
    "Zero Bytes were transmitted",
    "Transport endpoint is not connected",
    "Protocol authentication error",
    "Munge",
    "Connection timed out",
    "shutting down",
    "Message send failure",
    "Message receive failure",
    "Communication connection failure",
];

const PARTITION: &str = "set `slurm.partition`; `sinfo -s` there lists them";
const RESERVATION: &str = "set `slurm.reservation`; `scontrol show reservation` there lists them";

/// Texts of final refusals, what they mean, and what to do; `{}` stands for the cluster's name.
const FINAL: [(&str, &str, &str); 35] = [
    ("Invalid partition name", "there is no such partition", PARTITION),
    ("invalid partition specified", "there is no such partition", PARTITION),
    ("No partition specified", "the cluster has no partition that jobs go to by themselves", PARTITION),
    ("Required partition not available", "the partition is closed: it is inactive or drained", PARTITION),
    ("Requested partition configuration", "the partition does not give what it asks for", PARTITION),
    ("group not permitted to use this partition", "your group may not use the partition", PARTITION),
    ("Access/permission denied", "you may not use the partition", PARTITION),
    ("nodes not in this partition", "the nodes that it names are not in the partition", PARTITION),
    ("Requested reservation", "the reservation does not exist, or is not open", RESERVATION),
    ("denied to requested reservation", "you may not use the reservation", RESERVATION),
    (
        "Invalid feature specification",
        "no node has what the constraint names",
        "set `slurm.constraint`; `sinfo -o '%P %f'` there shows what nodes have",
    ),
    (
        "Invalid license specification",
        "the cluster has no such licence, or not so many",
        "mend `slurm.options`; `scontrol show licenses` there lists them",
    ),
    (
        "Invalid account",
        "the account does not exist or may not use the partition",
        "set `slurm.account`; `sacctmgr show assoc user=$USER format=account,partition,qos` there lists yours",
    ),
    (
        "Invalid qos",
        "there is no such QOS, or you may not use it",
        "set `slurm.qos`; `sacctmgr show assoc user=$USER format=account,qos` there lists yours",
    ),
    (
        "Invalid generic resource",
        "the cluster has no such resource",
        "set `slurm.gpus` and `slurm.gpu_type`; `sinfo -o '%P %G'` there shows what nodes have",
    ),
    (
        "Invalid Trackable RESource",
        "a resource is not spelled as SLURM spells it",
        "set `slurm.gpus` and `slurm.gpu_type`, or mend `slurm.options`",
    ),
    (
        "time limit is invalid",
        "it asks for more time than the partition gives, or for none where some must be given",
        "set `slurm.time`; `sinfo -o '%P %l'` there shows the limits",
    ),
    (
        "Time limit specification required",
        "the cluster takes no job without a time limit",
        "set `slurm.time`; `sinfo -o '%P %l'` there shows the limits",
    ),
    ("Invalid --mem ", "`slurm.memory` is no size as SLURM spells it", "write `slurm.memory = \"16G\"`"),
    ("Invalid --time", "`slurm.time` is not a time as SLURM spells it", "write `slurm.time = \"HH:MM:SS\"`"),
    (
        "Node count specification invalid",
        "it asks for more nodes than the partition gives",
        "set `slurm.options` or another partition; `sinfo -s` there shows the nodes",
    ),
    (
        "Memory specification can not be satisfied",
        "no node has so much memory",
        "set `slurm.memory`; `sinfo -o '%P %m'` there shows it in MB",
    ),
    (
        "CPU count per node can not be satisfied",
        "no node has so many CPUs",
        "set `slurm.cpus`; `sinfo -o '%P %c'` there shows them",
    ),
    (
        "More processors requested than permitted",
        "the partition has not so many CPUs or nodes",
        "set `slurm.cpus` and `slurm.nodes`; `sinfo -o '%P %D %c'` there shows them",
    ),
    (
        "Requested node configuration is not available",
        "no node has what it asks for",
        "compare `slurm.gpus`, `gpu_type`, `memory` and `cpus` with `sinfo -o '%P %c %m %G'` there",
    ),
    ("Invalid node name", "there is no such node", "mend `slurm.options`"),
    ("Invalid job array", "the array is larger than the cluster allows", "set `slurm.array_size` to less"),
    (
        "Unable to open file",
        "the job's script is not there where sbatch looks for it",
        "set `workspace` to a folder that the login host sees as the nodes do",
    ),
    (
        "Batch script is empty",
        "the job template gives an empty script",
        "mend the template that `template` names",
    ),
    (
        "This does not look like a batch script",
        "the job template does not begin with `#!`",
        "mend the template that `template` names",
    ),
    (
        "DOS line breaks",
        "the job template gives line breaks of DOS",
        "mend the template that `template` names",
    ),
    (
        "parameter too long",
        "the job's script is larger than the cluster takes",
        "make `setup`, or the template that `template` names, shorter",
    ),
    ("Invalid --", "an option has a value that sbatch cannot read", "mend `slurm.options`"),
    ("Invalid numeric value", "an option has a value that is no number", "mend `slurm.options`"),
    (
        "unrecognized option",
        "`slurm.options` has something that this SLURM does not know",
        "mend `slurm.options`; `sbatch --help` there lists what it knows",
    ),
];

/// Reads a refusal by the accounts: a limit on the number of jobs passes, one that the job breaks by itself does not.
fn over_limit(stderr: &str, cluster: &str) -> Refusal {
    let quoted = quote(stderr);
    let limit = |word: &&str| ["QOS", "Assoc", "Max"].iter().any(|start| word.starts_with(start));
    let Some(limit) = stderr.split_whitespace().find(limit) else {
        return Refusal::Later(quoted);
    };
    let counts = ["Submit", "Jobs", "QOSJobLimit", "AssociationJobLimit"];
    if counts.iter().any(|part| limit.contains(part)) {
        return Refusal::Later(quoted);
    }
    let keys = LIMITS.iter().find(|(part, _)| limit.contains(part)).map_or("", |(_, keys)| keys);
    let error = Error::new(
        ErrorKind::Refused,
        format!("the job is beyond a limit of its account or QOS: sbatch says `{quoted}`"),
    );
    Refusal::Final(error.hint(format!(
        "set {keys} to what `sacctmgr show qos` and `sacctmgr show assoc user=$USER` there allow; the profile: `qlaunch cluster show {cluster}`"
    )))
}

/// Reads what `sbatch` printed to stderr when it failed.
pub fn refusal(stderr: &str, cluster: &str) -> Refusal {
    let quoted = quote(stderr);
    let has = |text: &&str| stderr.contains(*text);
    if stderr.contains(POLICY) {
        return over_limit(stderr, cluster);
    }
    if PASSING.iter().any(has) {
        return Refusal::Later(quoted);
    }
    if let Some((_, meaning, remedy)) = FINAL.iter().find(|(text, ..)| stderr.contains(text)) {
        let error = Error::new(ErrorKind::Refused, format!("{meaning}: sbatch says `{quoted}`"));
        return Refusal::Final(
            error.hint(format!("{remedy}; the profile: `qlaunch cluster show {cluster}`")),
        );
    }
    if UNKNOWN.iter().any(has) {
        let error = Error::new(ErrorKind::Unreachable, format!("the scheduler does not answer: {quoted}"));
        return Refusal::Unknown(error.hint(format!("look at it: `qlaunch cluster check {cluster}`")));
    }
    if NOT_SET_UP.iter().any(has) {
        let error = Error::new(ErrorKind::Refused, format!("SLURM is not set up there: {quoted}"));
        return Refusal::Final(error.hint(
            "set `[ssh] host` to a login host of the cluster, or load its module in the shell's startup file there",
        ));
    }
    let error = Error::new(ErrorKind::Refused, format!("sbatch refused the job: {quoted}"));
    Refusal::Final(
        error.hint(format!("try the script by hand; the profile: `qlaunch cluster show {cluster}`")),
    )
}

/// What matters of it, on one line.
fn quote(stderr: &str) -> String {
    let lines =
        stderr.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("Try \"sbatch"));
    let lines: Vec<&str> = lines.map(|line| line.trim_start_matches("sbatch: error: ")).collect();
    match lines.is_empty() {
        true => "nothing".to_owned(),
        false => lines[lines.len().saturating_sub(3)..].join("; "),
    }
}
