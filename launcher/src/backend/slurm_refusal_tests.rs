//! What `sbatch` of SLURM 22.05 said, word by word, and what a person is told.

use super::slurm_refusal::{Refusal, refusal};

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
        "slurm.nodes",
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
    ("sbatch: error: Invalid generic resource (gres) specification", "no such resource", "slurm.gpu_type"),
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
fn what_the_accounts_refuse_passes_only_where_other_jobs_are_in_the_way() {
    // Names of the limits: as the library of SLURM 26.05 has them.
    let said = |limit: &str| {
        let policy = "Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)";
        refusal(
            &format!("sbatch: error: {limit}\nsbatch: error: Batch job submission failed: {policy}"),
            "hpc",
        )
    };
    for limit in ["QOSGrpSubmitJobsLimit", "AssocMaxSubmitJobLimit", "MaxSubmitJobsPerAccount", ""] {
        assert!(matches!(said(limit), Refusal::Later(_)), "{limit}");
    }
    for (limit, key) in [
        ("QOSMaxWallDurationPerJobLimit", "`slurm.time`"),
        ("AssocMaxCpuPerJobLimit", "`slurm.cpus`"),
        ("AssocGrpCPUMinutesLimit", "`slurm.time`, `cpus`"),
        ("QOSMaxMemoryPerNode", "`slurm.memory`"),
        ("QOSMinGRES", "`slurm.gpus`"),
        ("AssocMaxNodePerJobLimit", "`slurm.nodes`"),
        ("QOSMaxBillingPerJob", "`slurm.time`, `memory`"),
    ] {
        let Refusal::Final(error) = said(limit) else { panic!("{limit} is final") };
        assert!(error.message.contains(limit), "{error}");
        assert!(error.hint.as_ref().unwrap().contains(&format!("set {key}")), "{error}");
    }
}

#[test]
fn a_scheduler_that_is_away_has_neither_taken_nor_refused_the_job() {
    for text in [
        "sbatch: error: Batch job submission failed: Unable to contact slurm controller (connect failure)",
        "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation",
        "sbatch: error: Munge encode failed: Failed to access \"/run/munge.sock\"",
    ] {
        assert!(matches!(refusal(text, "hpc"), Refusal::Unknown(error) if error.exit_code() == 20), "{text}");
    }
}

#[test]
fn a_refusal_that_nobody_foresaw_is_quoted() {
    let Refusal::Final(error) = refusal("sbatch: error: the moon is full", "hpc") else {
        panic!("final");
    };
    assert_eq!(error.message, "sbatch refused the job: the moon is full");
}
