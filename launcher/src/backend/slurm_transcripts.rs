//! What SLURMs from 23.11 to 26.05 printed, word by word, is understood: `tests/cluster/transcripts.sh` wrote it down.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::slurm_answers::{ACCOUNTS, ARRAYS, FIND, SUBMIT};
use super::slurm_queue::{COLUMNS, Standing, accounts, rows, standing, waiting};
use super::slurm_refusal::{Refusal, refusal};

/// Versions that are there; another one is another folder.
const VERSIONS: [&str; 4] = ["23.11.4", "24.11.5", "25.11.2", "26.05.5"];

/// Jobs of `queue.txt` that wait, and what a person is told.
const WAITING: [(&str, &str); 17] = [
    ("ql-resources", "Resources: nodes are busy"),
    ("ql-priority", "Priority: other jobs go first"),
    ("ql-child", "its baseline is not done yet"),
    ("ql-orphan", "DependencyNeverSatisfied: what it waits for has failed"),
    ("ql-held", "JobHeldUser: it is held: `scontrol release`"),
    ("ql-grounded", "JobHeldAdmin: it is held: `scontrol release`"),
    ("ql-again", "job requeued in held state: it is held: `scontrol release`"),
    ("ql-later", "BeginTime: its time has not come"),
    ("ql-array_2", "JobArrayTaskLimit: its array is full"),
    ("ql-array_3", "JobArrayTaskLimit: its array is full"),
    ("ql-licence", "Licenses: licences are taken"),
    ("ql-reserved", "Reservation: its reservation is not open, or full"),
    ("ql-door", "PartitionDown: the partition is down"),
    ("ql-gate", "PartitionInactive: the partition is down"),
    ("ql-fence", "PartitionTimeLimit: it asks for more time than the partition gives"),
    ("ql-named", "ReqNodeNotAvail, UnavailableNodes:n2: nodes are down or reserved"),
    // SLURM's own words say enough.
    (
        "ql-away",
        "Nodes required for job are DOWN, DRAINED or reserved for jobs in higher priority partitions",
    ),
];

/// Jobs that the scheduler of 23.11.4 does not look at: without accounts it finds every account invalid, now and then.
const CONFUSED: [&str; 3] = ["ql-resources", "ql-priority", "ql-licence"];

/// Jobs of `queue.txt` that are over: name, state, reason.
const OVER: [(&str, &str, &str); 9] = [
    ("ql-done", "COMPLETED", "None"),
    ("ql-plain", "COMPLETED", "None"),
    ("ql-array_0", "COMPLETED", "None"),
    ("ql-failed", "FAILED", "NonZeroExitCode"),
    ("ql-nolog", "FAILED", "RaisedSignal:53(Real-time signal 19)"),
    ("ql-stopped", "CANCELLED", "None"),
    ("ql-cancelled", "CANCELLED", "JobHeldUser"),
    ("ql-dropped", "CANCELLED", "DependencyNeverSatisfied"),
    ("ql-timeout", "TIMEOUT", "TimeLimit"),
];

/// What must be in the hint of a final refusal, by the name of its transcript. Without accounts and with other settings of a site some
/// of them are taken.
const FINAL: [(&str, &str); 37] = [
    ("sbatch-partition", "`slurm.partition`"),
    ("sbatch-partition-down", "`slurm.partition`"),
    ("sbatch-partition-inactive", "`slurm.partition`"),
    ("sbatch-partition-drain", "`slurm.partition`"),
    ("sbatch-partition-group", "`slurm.partition`"),
    ("sbatch-partition-account", "`slurm.account`"),
    ("sbatch-partition-root", "`slurm.partition`"),
    ("sbatch-account", "`slurm.account`"),
    ("sbatch-qos", "`slurm.qos`"),
    ("sbatch-gres", "`slurm.gpus`"),
    ("sbatch-gres-type", "`gpu_type`"),
    ("sbatch-gres-count", "`slurm.gpus`"),
    ("sbatch-gres-spelling", "`slurm.gpus`"),
    ("sbatch-constraint", "`slurm.constraint`"),
    ("sbatch-constraint-spelling", "`slurm.constraint`"),
    ("sbatch-memory", "`slurm.memory`"),
    ("sbatch-memory-spelling", "`slurm.memory"),
    ("sbatch-cpus", "`slurm.cpus`"),
    ("sbatch-cpus-spelling", "`slurm.options`"),
    ("sbatch-nodes", "`slurm.nodes`"),
    ("sbatch-time", "`slurm.time"),
    ("sbatch-time-limit", "`slurm.time`"),
    ("sbatch-node", "`slurm.options`"),
    ("sbatch-array", "`slurm.array_size`"),
    ("sbatch-array-spelling", "`slurm.array_size`"),
    ("sbatch-option", "`slurm.options`"),
    ("sbatch-option-signal", "`slurm.options`"),
    ("sbatch-option-begin", "`slurm.options`"),
    ("sbatch-script-empty", "`template`"),
    ("sbatch-script-plain", "`template`"),
    ("sbatch-script-dos", "`template`"),
    ("sbatch-script-huge", "`template`"),
    ("sbatch-script-missing", "`workspace`"),
    ("sbatch-script-folder", "`template`"),
    ("sbatch-reservation", "`slurm.reservation`"),
    ("sbatch-license", "`slurm.options`"),
    ("sbatch-license-count", "`slurm.options`"),
];

/// One question and its answer.
struct Transcript {
    command: String,
    stdout: String,
    stderr: String,
    code: i32,
}

fn goldens() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/slurm")
}

/// Every transcript of a version, by name.
fn transcripts(version: &str) -> BTreeMap<String, Transcript> {
    let files = std::fs::read_dir(goldens().join(version)).unwrap().map(|entry| entry.unwrap().path());
    let read = |path: PathBuf| {
        let text = std::fs::read_to_string(&path).unwrap();
        let (command, rest) = text.strip_prefix("$ ").unwrap().split_once('\n').unwrap();
        let (stdout, rest) = rest.split_once("[stderr]\n").unwrap();
        let (stderr, code) = rest.split_once("[exit ").unwrap();
        let transcript = Transcript {
            command: command.to_owned(),
            stdout: stdout.to_owned(),
            stderr: stderr.to_owned(),
            code: code.trim_end_matches("]\n").parse().unwrap(),
        };
        (path.file_stem().unwrap().to_str().unwrap().to_owned(), transcript)
    };
    files.map(read).collect()
}

/// The part of a script that makes an id of what SLURM says.
fn part<'a>(script: &'a str, start: &str) -> &'a str {
    let from = script.find(start).unwrap();
    let end = "tail -n 1";
    &script[from..from + script[from..].find(end).unwrap() + end.len()]
}

/// What a line of shell prints, given a text.
fn piped(line: &str, text: &str) -> String {
    let mut shell =
        Command::new("sh").args(["-c", line]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    shell.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    String::from_utf8(shell.wait_with_output().unwrap().stdout).unwrap().trim().to_owned()
}

/// The job's id in what sbatch says.
fn replied(text: &str) -> String {
    piped(part(SUBMIT, r"sed -n -e 's/^\([0-9]"), text)
}

#[test]
fn every_transcript_was_asked_as_we_ask() {
    let mut there: Vec<String> = std::fs::read_dir(goldens())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    there.sort();
    assert_eq!(there, VERSIONS);
    for version in VERSIONS {
        let answers = transcripts(version);
        assert_eq!(answers["version"].stdout, format!("slurm-wlm {version}\n"));
        assert!(answers["queue"].command.ends_with(&format!("-o '{COLUMNS}'")), "{version}");
        assert_eq!(answers["accounts"].command, ACCOUNTS.replace("\"$1\"", "ql-done"), "{version}");
        let rows = answers["find-job"].command.replace("ql-running", "\"$name\"");
        assert!(FIND.contains(&rows) && SUBMIT.contains(&rows), "{rows}");
    }
}

#[test]
fn every_version_s_queue_is_understood() {
    for version in VERSIONS {
        let answers = transcripts(version);
        let found = rows(&answers["queue"].stdout);
        for (name, told) in WAITING {
            let row = &found[name];
            assert_eq!(standing(&row.state), Standing::Waiting, "{version}: {row:?}");
            let confused = version == "23.11.4" && CONFUSED.contains(&name);
            match confused {
                true => assert!(matches!(row.reason.as_str(), "None" | "InvalidAccount"), "{row:?}"),
                false => assert_eq!(waiting(&row.reason), told, "{version}"),
            }
            assert_eq!(row.nodes, "", "{version}: {row:?}");
        }
        for (name, state, reason) in OVER {
            let row = &found[name];
            assert_eq!((row.state.as_str(), row.reason.as_str()), (state, reason), "{version}: {name}");
            assert_eq!(standing(&row.state), Standing::Over, "{version}: {name}");
        }
        for name in ["ql-running", "ql-array_1"] {
            let row = &found[name];
            assert_eq!((standing(&row.state), row.nodes.as_str()), (Standing::Active, "n1"), "{version}");
        }
        assert_eq!(found.len(), WAITING.len() + OVER.len() + 2, "{version}");
        for (name, state) in [("queue-suspended", "SUSPENDED"), ("queue-completing", "COMPLETING")] {
            let row = &rows(&answers[name].stdout)["ql-running"];
            assert_eq!((row.state.as_str(), standing(&row.state)), (state, Standing::Active), "{version}");
        }
        // The cluster has no accounts, and what says so is no row.
        assert!(
            accounts(&answers["accounts"].stdout).is_empty() && answers["accounts"].code == 1,
            "{version}"
        );
    }
}

#[test]
fn every_version_s_job_ids_and_limits_are_read_by_our_scripts() {
    for version in VERSIONS {
        let answers = transcripts(version);
        assert_eq!(replied(&answers["submit-parsable"].stdout), "1", "{version}");
        assert_eq!(replied(&answers["submit"].stdout), "2", "{version}");
        let find = part(FIND, "sed -n -e '/ BadConstraints$/d'");
        assert_eq!(find, part(SUBMIT, "sed -n -e '/ BadConstraints$/d'"));
        for (name, task) in [("find-job", "ql-running"), ("find-array", "ql-array_1")] {
            let id = &rows(&answers["queue"].stdout)[task].id;
            assert_eq!(Some(piped(find, &answers[name].stdout).as_str()), id.split('_').next(), "{version}");
        }
        assert_eq!(piped(find, &answers["find-nobody"].stdout), "", "{version}");
        let tasks = &answers["find-tasks"].stdout;
        let third = tasks.lines().filter(|line| line.ends_with("_3")).count();
        assert_eq!((tasks.lines().count(), third), (3, 1), "{version}: {tasks}");
        let size = ARRAYS.split_once("| ").unwrap().1;
        assert_eq!(piped(size, &answers["config"].stdout), "1001", "{version}");
        // What `qlaunch cluster check` takes for a cluster without accounts.
        let facts = &answers["facts"].stdout;
        let accounts = facts.lines().find_map(|line| line.strip_prefix("AccountingStorageType="));
        assert!(matches!(accounts, Some("accounting_storage/none" | "(null)")), "{version}: {facts}");
    }
}

#[test]
fn every_version_s_refusals_say_what_to_do() {
    for version in VERSIONS {
        let mut taken = Vec::new();
        for (name, Transcript { stdout, stderr, code, .. }) in transcripts(version) {
            let known = FINAL.iter().find(|(known, _)| *known == name);
            let said = format!("{version}: {name}: {stderr}");
            if code == 0 && name.starts_with("sbatch-") {
                assert!(replied(&stdout).parse::<u32>().is_ok(), "{said}");
                taken.push(name);
                continue;
            }
            match (known, refusal(&stderr, "hpc")) {
                (Some((_, key)), Refusal::Final(error)) => {
                    assert!(!error.message.starts_with("sbatch refused"), "nobody foresaw {said}");
                    assert!(error.hint.as_ref().unwrap().contains(key), "{said}: {error}");
                }
                (Some(_), other) => panic!("{said}: {other:?}"),
                (None, answer) if name.starts_with("away-") || name == "sbatch-cluster" => {
                    assert!(matches!(answer, Refusal::Unknown(_)), "{said}: {answer:?}");
                }
                (None, answer) if name == "limit-jobs" || name.starts_with("sbatch-dependency") => {
                    assert!(matches!(answer, Refusal::Later(_)), "{said}: {answer:?}");
                }
                (None, Refusal::Final(error)) if name == "sbatch-configuration" => {
                    assert!(error.hint.as_ref().unwrap().contains("login host"), "{said}: {error}");
                }
                (None, _) => assert!(!name.starts_with("sbatch-"), "nobody expects {said}"),
            }
        }
        let without_accounts =
            ["sbatch-account", "sbatch-partition-account", "sbatch-partition-down", "sbatch-qos"];
        assert_eq!(taken, without_accounts, "{version}");
    }
}

#[test]
fn whoever_asks_too_often_is_answered_late_and_not_refused() {
    for version in VERSIONS {
        let answers = transcripts(version);
        for name in ["rate-squeue", "rate-sbatch"] {
            let Transcript { stdout, stderr, .. } = &answers[name];
            assert_eq!(stdout.lines().filter(|line| *line == "exit 0").count(), 4, "{version}: {name}");
            assert_eq!(stderr, "", "{version}: {name}");
        }
        assert!(answers["rate-squeue-verbose"].stderr.contains("RPC rate limited"), "{version}");
    }
    // What it would say if it gave up.
    for text in ["Rate limit exceeded, please retry momentarily", "Rate limit exceeded, please retry later"] {
        let text = format!("sbatch: error: Batch job submission failed: {text}");
        assert!(matches!(refusal(&text, "hpc"), Refusal::Later(_)), "{text}");
    }
}
