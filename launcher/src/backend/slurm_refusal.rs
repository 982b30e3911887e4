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
const PASSING: [&str; 8] = [
    "QOSMaxSubmitJobPerUserLimit",
    "AssocMaxSubmitJobLimit",
    "AssocGrpSubmitJobsLimit",
    "QOSGrpSubmitJobsLimit",
    "job submit limit",
    "temporarily unable to accept job",
    "Job dependency problem",
    "Rate limit exceeded",
];

/// Texts after which the job may or may not be in the queue.
const UNKNOWN: [&str; 8] = [
    "Socket timed out",
    "Unable to contact slurm controller",
    "Connection refused",
    "Connection reset",
    "Zero Bytes were transmitted",
    "Transport endpoint is not connected",
    "Protocol authentication error",
    "Munge",
];

/// Texts of final refusals, what they mean, and what to do; `{}` stands for the cluster's name.
const FINAL: [(&str, &str, &str); 18] = [
    (
        "Invalid partition name",
        "there is no such partition",
        "set `slurm.partition`; `sinfo -s` there lists them",
    ),
    (
        "invalid partition specified",
        "there is no such partition",
        "set `slurm.partition`; `sinfo -s` there lists them",
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
        "time limit is invalid",
        "it asks for more time than the partition gives, or for none where some must be given",
        "set `slurm.time`; `sinfo -o '%P %l'` there shows the limits",
    ),
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
        "no node has so many CPUs",
        "set `slurm.cpus`; `sinfo -o '%P %c'` there shows them",
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
        "unrecognized option",
        "`slurm.options` has something that this SLURM does not know",
        "mend `slurm.options`; `sbatch --help` there lists what it knows",
    ),
];

/// Reads what `sbatch` printed to stderr when it failed.
pub fn refusal(stderr: &str, cluster: &str) -> Refusal {
    let quoted = quote(stderr);
    let has = |text: &&str| stderr.contains(*text);
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
    if stderr.contains("not found") || stderr.contains("Could not establish a configuration source") {
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Verbatim from SLURM 22.05, and what a person must be told.
    const VERBATIM: [(&str, &str, &str); 18] = [
        (
            "sbatch: error: Batch job submission failed: Invalid node name specified",
            "no such node",
            "slurm.options",
        ),
        (
            "sbatch: error: Batch job submission failed: Invalid job array specification",
            "larger than the cluster allows",
            "slurm.array_size",
        ),
        ("sbatch: error: Unable to open file /nonexistent.sbatch", "script is not there", "workspace"),
        ("sbatch: error: Batch script is empty!", "empty script", "template"),
        (
            "sbatch: error: resolve_ctls_from_dns_srv: res_nsearch error: Unknown host\nsbatch: error: fetch_config: DNS SRV lookup failed\nsbatch: error: _establish_config_source: failed to fetch config\nsbatch: fatal: Could not establish a configuration source",
            "not set up there",
            "login host",
        ),
        (
            "sbatch: error: Batch job submission failed: More processors requested than permitted",
            "so many CPUs",
            "slurm.cpus",
        ),
        (
            "sbatch: error: invalid partition specified: nosuch\nsbatch: error: Batch job submission failed: Invalid partition name specified",
            "no such partition",
            "slurm.partition",
        ),
        (
            "sbatch: error: Batch job submission failed: Requested node configuration is not available",
            "no node has what it asks for",
            "slurm.gpus",
        ),
        (
            "sbatch: error: Invalid generic resource (gres) specification",
            "no such resource",
            "slurm.gpu_type",
        ),
        (
            "sbatch: error: Batch job submission failed: Invalid account or account/partition combination specified",
            "account",
            "slurm.account",
        ),
        ("sbatch: error: Batch job submission failed: Invalid qos specification", "QOS", "slurm.qos"),
        (
            "sbatch: error: Batch job submission failed: Requested time limit is invalid (missing or exceeds some limit)",
            "more time",
            "slurm.time",
        ),
        (
            "sbatch: error: Batch job submission failed: Node count specification invalid",
            "more nodes",
            "sinfo -s",
        ),
        (
            "sbatch: error: Memory specification can not be satisfied\nsbatch: error: Batch job submission failed: Requested node configuration is not available",
            "so much memory",
            "slurm.memory",
        ),
        (
            "sbatch: error: CPU count per node can not be satisfied\nsbatch: error: Batch job submission failed: Requested node configuration is not available",
            "so many CPUs",
            "slurm.cpus",
        ),
        ("sbatch: error: Invalid --time specification", "not a time", "HH:MM:SS"),
        (
            "sbatch: unrecognized option '--bogus'\nTry \"sbatch --help\" for more information",
            "does not know",
            "sbatch --help",
        ),
        (
            "sbatch: error: This does not look like a batch script.  The first\nline must start with #!",
            "does not begin with",
            "template",
        ),
    ];

    #[test]
    fn every_verbatim_refusal_says_what_to_do() {
        for (stderr, meaning, remedy) in VERBATIM {
            let Refusal::Final(error) = refusal(stderr, "hpc") else {
                panic!("{stderr} is final");
            };
            assert_eq!(error.exit_code(), 22);
            assert!(error.message.contains(meaning), "{meaning}: {error}");
            assert!(error.hint.as_ref().unwrap().contains(remedy), "{remedy}: {error}");
            assert!(!error.message.contains("sbatch: error"), "{error}");
        }
    }

    #[test]
    fn what_passes_by_itself_asks_for_patience() {
        let text = "sbatch: error: QOSMaxSubmitJobPerUserLimit\nsbatch: error: Batch job submission failed: Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)";
        assert!(matches!(refusal(text, "hpc"), Refusal::Later(why) if why.contains("QOSMaxSubmit")));
        // A controller that crashed has forgotten the job that this one waits for.
        let text = "sbatch: error: Batch job submission failed: Job dependency problem";
        assert!(matches!(refusal(text, "hpc"), Refusal::Later(_)));
    }

    #[test]
    fn a_scheduler_that_is_away_has_neither_taken_nor_refused_the_job() {
        for text in [
            "sbatch: error: Batch job submission failed: Unable to contact slurm controller (connect failure)",
            "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation",
            "sbatch: error: Munge encode failed: Failed to access \"/run/munge.sock\"",
        ] {
            assert!(
                matches!(refusal(text, "hpc"), Refusal::Unknown(error) if error.exit_code() == 20),
                "{text}"
            );
        }
    }

    #[test]
    fn a_refusal_that_nobody_foresaw_is_quoted() {
        let Refusal::Final(error) = refusal("sbatch: error: the moon is full", "hpc") else {
            panic!("final");
        };
        assert_eq!(error.message, "sbatch refused the job: the moon is full");
    }
}
