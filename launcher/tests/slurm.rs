//! The real program against a SLURM that only pretends: what a real one cannot show in seconds or in one version.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

#[expect(dead_code, reason = "each test file uses a part of the world")]
mod fake;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use fake::{Ran, World, signal, wait_for};

/// A world with a login host of a cluster in it.
struct Cluster(World);

impl Cluster {
    fn new() -> Self {
        let world = World::new();
        let bin = world.path("bin");
        fs::create_dir_all(&bin).unwrap();
        fs::create_dir_all(world.path("fake/slurm/odd")).unwrap();
        for name in ["sbatch", "squeue", "scancel", "scontrol", "sacct", "timeout"] {
            fs::write(bin.join(name), include_str!("fake/slurm.sh")).unwrap();
            fs::set_permissions(bin.join(name), fs::Permissions::from_mode(0o755)).unwrap();
        }
        fs::create_dir_all(world.path("clusters")).unwrap();
        let profile = "kind = \"slurm\"\npoll_seconds = 0.2\n[slurm]\nlag_seconds = 0.3\n";
        fs::write(world.path("clusters/pretended.toml"), profile).unwrap();
        Self(world)
    }

    /// Lets something go wrong.
    fn odd(&self, what: &str) -> &Self {
        fs::write(self.0.path("fake/slurm/odd").join(what), "").unwrap();
        self
    }

    fn mend(&self, what: &str) {
        fs::remove_file(self.0.path("fake/slurm/odd").join(what)).unwrap();
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.0.command(arguments);
        let path = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{}:{path}", self.0.path("bin").display()));
        command
    }

    fn run(&self, arguments: &[&str]) -> Ran {
        self.0.read(self.command(arguments).output().unwrap())
    }

    fn submit(&self) -> Ran {
        self.run(&["submit", "--cluster", "pretended", "sweep.yaml"])
    }

    /// Calls of one of SLURM's commands.
    fn calls(&self, name: &str) -> usize {
        let text = fs::read_to_string(self.0.path("fake/slurm/calls")).unwrap_or_default();
        text.lines().filter(|line| *line == name).count()
    }

    /// Names of all jobs that SLURM took.
    fn names(&self) -> Vec<String> {
        let jobs = fs::read_dir(self.0.path("fake/slurm/jobs")).into_iter().flatten().flatten();
        let mut names: Vec<String> = jobs
            .map(|job| fs::read_to_string(job.path().join("name")).unwrap_or_default().trim().to_owned())
            .collect();
        names.sort();
        names
    }

    /// Everything is done, and each job was handed over once.
    fn assert_done_once(&self, ran: &Ran) {
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        let mut jobs = self.0.ran();
        jobs.sort();
        assert_eq!(jobs, ["bf16", "first", "second"], "{}", ran.stderr);
        assert_eq!(self.names().len(), 3, "{:?}", self.names());
    }
}

#[test]
fn a_sweep_is_handed_over_whole_and_waits_for_its_baseline_in_the_queue() {
    let cluster = Cluster::new();
    cluster.0.tell("bf16", "wait");
    let child = cluster.command(&["submit", "--cluster", "pretended", "sweep.yaml"]).spawn().unwrap();
    wait_for(|| cluster.names().len() == 3);
    assert_eq!(cluster.0.ran(), ["bf16"], "candidates wait in the queue, not in the launcher");
    signal(&child, "INT");
    let ran = cluster.0.read(child.wait_with_output().unwrap());
    assert_eq!(ran.code, 30);
    assert!(ran.stderr.contains("detached, and the jobs go on"), "{}", ran.stderr);
    // The laptop is closed; the sweep goes on.
    cluster.0.tell("go", "");
    wait_for(|| cluster.0.ran().len() == 3);
    let watched = cluster.run(&["watch"]);
    cluster.assert_done_once(&watched);
    assert!(watched.stdout.contains("first"), "{}", watched.stdout);
}

#[test]
fn replies_of_all_versions_are_understood() {
    for odd in ["banner", "chatty", "federated"] {
        let cluster = Cluster::new();
        cluster.odd(odd);
        cluster.assert_done_once(&cluster.submit());
    }
}

#[test]
fn a_reply_that_is_lost_makes_no_second_job() {
    let cluster = Cluster::new();
    cluster.odd("lost");
    cluster.assert_done_once(&cluster.submit());
}

#[test]
fn a_controller_that_is_away_is_waited_for() {
    let cluster = Cluster::new();
    cluster.odd("away").odd("squeue-away");
    let ran = cluster.submit();
    cluster.assert_done_once(&ran);
    assert!(ran.stderr.contains("the scheduler does not answer"), "{}", ran.stderr);
}

#[test]
fn an_sbatch_that_says_nothing_for_long_has_refused_nothing() {
    let cluster = Cluster::new();
    cluster.odd("silent");
    let ran = cluster.submit();
    cluster.assert_done_once(&ran);
    assert!(ran.stderr.contains("no answer within 90 seconds"), "{}", ran.stderr);
}

#[test]
fn a_limit_on_jobs_is_waited_for_and_said() {
    let cluster = Cluster::new();
    cluster.odd("limit");
    let ran = cluster.submit();
    cluster.assert_done_once(&ran);
    assert!(
        ran.stderr.contains("handed over later") && ran.stderr.contains("QOSMaxSubmit"),
        "{}",
        ran.stderr
    );
}

#[test]
fn states_of_versions_to_come_end_nothing() {
    let cluster = Cluster::new();
    cluster.odd("strange");
    cluster.0.tell("bf16", "wait");
    let child = cluster.command(&["submit", "--cluster", "pretended", "sweep.yaml"]).spawn().unwrap();
    wait_for(|| cluster.0.ran().len() == 1 && cluster.calls("squeue") > 12);
    cluster.0.tell("go", "");
    let ran = cluster.0.read(child.wait_with_output().unwrap());
    cluster.assert_done_once(&ran);
    assert!(ran.stderr.contains("SLURM calls it HIBERNATING"), "{}", ran.stderr);
}

#[test]
fn jobs_that_slurm_has_forgotten_tell_themselves_how_they_ended() {
    let cluster = Cluster::new();
    cluster.odd("forgetful");
    cluster.assert_done_once(&cluster.submit());
}

#[test]
fn a_job_that_dies_without_a_word_is_tried_again_under_another_name() {
    let cluster = Cluster::new();
    cluster.0.tell("first", "die-once");
    let ran = cluster.submit();
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert_eq!(cluster.0.ran().iter().filter(|job| *job == "first").count(), 2);
    let names = cluster.names();
    assert_eq!(names.len(), 4);
    assert!(names.iter().any(|name| name.ends_with("-first-2")), "{names:?}");
}

#[test]
fn a_baseline_that_fails_takes_its_candidates_out_of_the_queue() {
    let cluster = Cluster::new();
    cluster.0.tell("bf16", "fail");
    let ran = cluster.submit();
    assert_eq!(ran.code, 11, "{}", ran.stderr);
    assert_eq!(cluster.0.ran(), ["bf16"]);
    assert!(ran.stderr.contains("its baseline `bf16` failed"), "{}", ran.stderr);
}

#[test]
fn days_in_the_queue_cost_few_questions() {
    let cluster = Cluster::new();
    cluster.odd("days-in-queue");
    let profile = "kind = \"slurm\"\npoll_seconds = 60\n[slurm]\nlag_seconds = 0.3\n";
    fs::write(cluster.0.path("clusters/pretended.toml"), profile).unwrap();
    let child = cluster.command(&["submit", "--cluster", "pretended", "sweep.yaml"]).spawn().unwrap();
    wait_for(|| cluster.names().len() == 3);
    let before = cluster.calls("squeue");
    std::thread::sleep(std::time::Duration::from_secs(10));
    let asked = cluster.calls("squeue") - before;
    // Two seconds, three, four and a half: one question for all jobs, ever less often.
    assert!(asked <= 4, "{asked} calls of squeue in ten seconds");
    signal(&child, "INT");
    assert_eq!(child.wait_with_output().unwrap().status.code(), Some(30));
    cluster.mend("days-in-queue");
    wait_for(|| cluster.0.ran().len() == 3);
}

#[test]
fn a_controller_that_lets_callers_wait_is_asked_one_question_at_a_time_for_all_jobs() {
    let cluster = Cluster::new();
    cluster.odd("slow");
    let begun = std::time::Instant::now();
    let ran = cluster.submit();
    cluster.assert_done_once(&ran);
    let asked = cluster.calls("squeue");
    assert!(
        asked as f64 <= begun.elapsed().as_secs_f64() + 1.0,
        "{asked} calls of a second each: some at once"
    );
}

#[test]
fn a_dry_run_shows_the_scripts_byte_for_byte_and_touches_nothing() {
    let cluster = Cluster::new();
    let dry =
        cluster.run(&["submit", "--cluster", "pretended", "--dry-run", "--format", "json", "sweep.yaml"]);
    assert_eq!(dry.code, 0, "{}", dry.stderr);
    assert!(cluster.names().is_empty() && cluster.calls("sbatch") == 0);
    let document: serde_json::Value = serde_json::from_str(&dry.stdout).unwrap();
    let ran = cluster.submit();
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let list = |key: &str| document[key].as_array().unwrap().clone();
    let alone = list("jobs").into_iter().filter(|job| job["array"].is_null());
    let shown: Vec<serde_json::Value> = alone.chain(list("arrays")).collect();
    assert_eq!(shown.len(), 2, "the baseline, and an array of both candidates");
    for script in shown {
        let text = |key: &str| {
            script[key].as_str().unwrap().replace("WORLD", &cluster.0.path("").display().to_string())
        };
        let written = fs::read_to_string(format!("{}/job.sh", text("folder").replace("//", "/"))).unwrap();
        assert_eq!(written, text("script").replace("//", "/"));
    }
    assert!(list("arrays")[0]["script"].as_str().unwrap().contains("#SBATCH --array=0-1\n"));
}

#[test]
fn candidates_that_are_alike_are_one_array_and_each_task_is_retried_and_taken_back_alone() {
    let cluster = Cluster::new();
    cluster.0.tell("first", "die-once");
    let ran = cluster.submit();
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert_eq!(cluster.calls("sbatch"), 3, "the baseline, the array, and the one that died");
    let names = cluster.names();
    assert_eq!(names.iter().filter(|name| name.ends_with("-first-1-array")).count(), 2, "{names:?}");
    assert!(names.iter().any(|name| name.ends_with("-first-2")), "{names:?}");
    // What a task prints is in the log of its attempt.
    let site = cluster.0.path("qlaunch").join("runs");
    let run = fs::read_dir(&site).unwrap().next().unwrap().unwrap().path();
    for (job, attempt) in [("first", "1"), ("first", "2"), ("second", "1")] {
        assert!(run.join(job).join("attempts").join(attempt).join("log").is_file(), "{job} {attempt}");
    }

    let cluster = Cluster::new();
    for job in ["first", "second"] {
        cluster.0.tell(job, "wait");
    }
    let child = cluster.command(&["submit", "--cluster", "pretended", "sweep.yaml"]).spawn().unwrap();
    wait_for(|| cluster.0.ran().len() == 3);
    let cancelled = cluster.run(&["cancel", "--yes", "--candidate", "first"]);
    assert_eq!(cancelled.code, 0, "{}", cancelled.stderr);
    wait_for(|| fs::read_to_string(cluster.0.path("fake/slurm/jobs/2_0/state")).unwrap() == "CANCELLED\n");
    cluster.0.tell("go", "");
    let ran = cluster.0.read(child.wait_with_output().unwrap());
    assert_eq!(ran.code, 11, "{}", ran.stderr);
    let other = fs::read_to_string(cluster.0.path("fake/slurm/jobs/2_1/state")).unwrap();
    assert_eq!(other, "COMPLETED\n", "the other task went on");
}

#[test]
fn without_arrays_and_beyond_limits_jobs_are_handed_over_one_by_one() {
    let cluster = Cluster::new();
    cluster.0.tell("slurm/max-array-size", "1");
    cluster.assert_done_once(&cluster.submit());
    assert_eq!(cluster.calls("sbatch"), 3);
    let cluster = Cluster::new();
    cluster.odd("array-limit");
    cluster.assert_done_once(&cluster.submit());
    assert_eq!(cluster.calls("sbatch"), 4, "an array that was too large, and its tasks alone");
}

#[test]
fn an_array_whose_reply_is_lost_is_found_again() {
    let cluster = Cluster::new();
    cluster.odd("array-lost");
    cluster.assert_done_once(&cluster.submit());
    let arrays = cluster.names().into_iter().filter(|name| name.ends_with("-array")).count();
    assert_eq!((cluster.calls("sbatch"), arrays), (2, 2));
}

#[test]
fn secrets_reach_the_job_and_nothing_else() {
    let cluster = Cluster::new();
    let profile = "kind = \"slurm\"\npoll_seconds = 0.2\nsecrets = [\"HF_TOKEN\"]\n\
        environment = { GREETING = \"it's me\" }\n[slurm]\nlag_seconds = 0.3\n";
    fs::write(cluster.0.path("clusters/pretended.toml"), profile).unwrap();
    let refused = cluster.submit();
    assert_eq!(refused.code, 3, "{}", refused.stderr);
    assert!(refused.stderr.contains("`HF_TOKEN` has no value here"), "{}", refused.stderr);
    let secret = "hf_verysecretindeed";
    let submit = ["submit", "--cluster", "pretended", "sweep.yaml"];
    let ran = cluster.0.read(cluster.command(&submit).env("HF_TOKEN", secret).output().unwrap());
    cluster.assert_done_once(&ran);
    let got = fs::read_to_string(cluster.0.path("fake/environment")).unwrap();
    assert_eq!(got.lines().next(), Some("it's me 19"), "what the worker found, and how long the secret is");
    let dry = ["submit", "--cluster", "pretended", "--dry-run", "sweep.yaml"];
    let dry = cluster.0.read(cluster.command(&dry).env("HF_TOKEN", secret).output().unwrap());
    assert!(!dry.stdout.contains(secret) && !dry.stderr.contains(secret) && !ran.stderr.contains(secret));
    let output = Command::new("grep").args(["-rl", secret]).arg(cluster.0.folder.path()).output().unwrap();
    let found = String::from_utf8_lossy(&output.stdout).into_owned();
    let found: Vec<&str> = found.lines().collect();
    let [file] = found[..] else {
        panic!("the secret stands in {found:?}");
    };
    assert!(file.ends_with("qlaunch/secrets-pretended.env"), "{file}");
    assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn a_begin_in_the_future_is_told_to_the_scheduler_as_time_from_now() {
    let cluster = Cluster::new();
    let ran = cluster.run(&["submit", "--cluster", "pretended", "--begin", "now+1h", "sweep.yaml"]);
    cluster.assert_done_once(&ran);
    assert!(ran.stderr.contains("SLURM lets the jobs begin"), "{}", ran.stderr);
    for job in fs::read_dir(cluster.0.path("fake/slurm/jobs")).unwrap().flatten() {
        let begin = fs::read_to_string(job.path().join("begin")).unwrap();
        let seconds: u64 = begin.trim().strip_prefix("now+").unwrap().parse().unwrap();
        assert!((3000..=3600).contains(&seconds), "{begin}");
    }
    let refused =
        cluster.run(&["submit", "--cluster", "pretended", "--begin", "2001-01-01T00:00", "sweep.yaml"]);
    assert_eq!(refused.code, 2);
    assert!(refused.stderr.contains("2001-01-01T00:00 is over"), "{}", refused.stderr);
}

#[test]
fn many_gpu_hours_are_not_submitted_before_somebody_agrees() {
    let cluster = Cluster::new();
    let profile = cluster.0.path("clusters/pretended.toml");
    let text = fs::read_to_string(&profile).unwrap();
    fs::write(&profile, format!("{text}gpus = 16\ntime = \"10:00:00\"\n")).unwrap();
    let submit =
        |more: &[&str]| cluster.run(&[&["submit", "--cluster", "pretended", "sweep.yaml"], more].concat());
    let asked = submit(&[]);
    assert_eq!((asked.code, cluster.names().len()), (2, 0), "{}", asked.stderr);
    let sum = "at most 480.0 GPU-hours: 3 jobs, 16 GPUs each, 10.0 hours each";
    assert!(asked.stderr.contains(sum) && asked.stderr.contains("--yes"), "{}", asked.stderr);
    let capped = submit(&["--max-gpu-hours", "479", "--yes"]);
    assert_eq!((capped.code, cluster.names().len()), (2, 0), "{}", capped.stderr);
    assert!(capped.stderr.contains("may take 480.0 GPU-hours, and 479 are allowed"), "{}", capped.stderr);
    cluster.assert_done_once(&submit(&["--max-gpu-hours", "480"]));
    let again = submit(&["--max-gpu-hours", "1"]);
    assert_eq!(again.code, 0, "what is done costs nothing: {}", again.stderr);
}

#[test]
fn jobs_run_in_containers_of_either_kind_with_what_they_need_mounted() {
    // Neither program is in Debian: these only show what they are given, and run the worker.
    let apptainer = "#!/bin/sh\n[ \"$1\" = exec ] && echo \"$@\" >> $FAKE/given\nwhile [ \"$1\" != /images/cuda.sif ]; do shift; done\nshift\nexec \"$@\"\n";
    let srun = "#!/bin/sh\necho \"$@\" >> $FAKE/given\nwhile case $1 in --*) ;; *) false ;; esac; do shift; done\nexec \"$@\"\n";
    for (runtime, name, text) in [("apptainer", "apptainer", apptainer), ("pyxis", "srun", srun)] {
        let cluster = Cluster::new();
        let program = cluster.0.path("bin").join(name);
        fs::write(&program, text).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let profile = cluster.0.path("clusters/pretended.toml");
        let more = format!("container = \"/images/cuda.sif\"\ncontainer_runtime = \"{runtime}\"\n");
        fs::write(
            &profile,
            fs::read_to_string(&profile).unwrap() + &more + "container_options = [\"--nv x\"]\n",
        )
        .unwrap();
        cluster.assert_done_once(&cluster.submit());
        let given = fs::read_to_string(cluster.0.path("fake/given")).unwrap();
        assert_eq!(given.lines().count(), 3, "{given}");
        let data = cluster.0.path("calib.txt").display().to_string();
        let workspace = cluster.0.path("qlaunch").display().to_string();
        for words in [format!("{data}:{data}:ro"), format!("{workspace}:{workspace},"), "--nv x".to_owned()] {
            assert!(given.lines().all(|line| line.contains(&words)), "no `{words}` in {given}");
        }
    }
}
