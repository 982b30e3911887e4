//! What a run on a real SLURM survives, beyond `cluster.rs`: arrays and their tasks, gates that end candidates, records of the journal,
//! time limits, full disks, jobs that SLURM has forgotten. `tests/cluster/run.sh` runs these tests, one after another; those that
//! take minutes begin with `slow_` and are part of `--full`.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use qlaunch_tests::cluster::{Cluster, Project, Size, wait};
use qlaunch_tests::places::read_json;
use qlaunch_tests::programs::row;
use serde_json::Value;

const FP8: &str = "fp8_default-kv_fp8";
const NVFP4: &str = "nvfp4_default-kv_fp8";
const INT4: &str = "int4_blockwise_weight_only";
const MORE: [&str; 2] = ["general/ptq/nvfp4_default-kv_fp8", "general/ptq/int4_blockwise_weight_only"];

#[test]
#[ignore = "needs a cluster: tests/cluster/run.sh"]
fn alike_candidates_are_one_array_and_each_task_is_requeued_taken_back_and_tried_again_alone() {
    let cluster = Cluster::running();
    let project = Project::on(&cluster, Size::Long, "array_width = 2\n");
    project.add_candidates(&MORE, "");
    let mut running = project.start();
    let ids = [FP8, NVFP4, INT4].map(|job| project.slurm_id(job));
    let array = ids[0].strip_suffix("_0").unwrap_or_else(|| panic!("{ids:?} are no tasks")).to_owned();
    assert_eq!(ids[1..], [format!("{array}_1"), format!("{array}_2")], "one array");
    assert_eq!(cluster.root(&format!("scontrol show job {array} | grep -c ArrayTaskThrottle=2")), "1");
    // A signal before the limit, to one task alone.
    project.wait_for_phase(FP8, "1", "evaluate");
    cluster.root(&format!("scancel -b -s USR2 {}", ids[0]));
    // And a person takes another one back.
    cluster.root(&format!("scancel {}", ids[2]));
    assert_eq!(running.finish(), 11, "{}", running.said());
    assert!(
        running.said().contains(&format!("{FP8}: started again by the scheduler (1)")),
        "{}",
        running.said()
    );
    assert!(project.site().join(FP8).join("attempts/1.1/outcome.json").exists());
    let judged = project.portfolio();
    project.assert_done(&judged);
    assert!(row(&judged, NVFP4)["perplexity"].is_f64(), "{judged:#}");
    assert!(running.said().contains(&format!("{INT4} failed: it was cancelled")), "{}", running.said());
    assert_eq!(project.tries(NVFP4), 1, "the others' troubles are their own");
    // What is tried again goes alone, as a job of its own.
    let again = project.run(&["rerun", "--failed", "--format", "json"]).json();
    assert!(row(&again, INT4)["perplexity"].is_f64(), "{again:#}");
    assert!(!project.slurm_id(INT4).contains('_'));
    cluster.assert_nothing_twice();
}

#[test]
#[ignore = "needs a cluster: tests/cluster/run.sh"]
fn a_hopeless_candidate_is_ended_while_nobody_watches_and_never_tried_again() {
    let cluster = Cluster::running();
    let project = Project::on(&cluster, Size::Small, "");
    project.add_candidates(&MORE[..1], "gates: {perplexity: {max: 20}}\n");
    let sweep = std::fs::read_to_string(project.path("sweep.yaml")).unwrap();
    std::fs::write(project.path("sweep.yaml"), sweep.replace("samples: 2,", "samples: 24,")).unwrap();
    let mut running = project.start();
    project.wait_for("submitted", NVFP4);
    running.kill();
    // The laptop is closed until all is over.
    let site = project.site();
    for job in [FP8, NVFP4] {
        wait("outcomes", || site.join(job).join("attempts/1/outcome.json").exists().then_some(()));
    }
    let watched = project.run(&["watch", "--format", "json"]);
    watched.assert_code(10);
    let judged: Value = serde_json::from_str(&watched.stdout).unwrap();
    assert!(row(&judged, "bf16")["perplexity"].is_f64(), "{judged:#}");
    for job in [FP8, NVFP4] {
        let reason = row(&judged, job)["decision"]["reason"].as_str().unwrap_or_default().to_owned();
        assert!(reason.starts_with("ended early: the perplexity is at least"), "{judged:#}");
        let outcome = read_json(&site.join(job).join("attempts/1/outcome.json"));
        assert_eq!(outcome["error"]["kind"], "gate", "{outcome:#}");
    }
    project.submit().assert_code(10);
    assert_eq!((project.tries(FP8), project.tries(NVFP4)), (1, 1), "it would end the same way");
    cluster.assert_nothing_twice();
}

/// A sweep of two alike candidates, each of which is handed over once and measured.
fn assert_whole(cluster: &Cluster, project: &Project) {
    let judged = project.portfolio();
    project.assert_done(&judged);
    assert!(row(&judged, NVFP4)["perplexity"].is_f64(), "{judged:#}");
    for job in ["bf16", FP8, NVFP4] {
        let is = |line: &&Value| line["entry"]["is"] == "submitted" && line["entry"]["job"] == job;
        let handed = project.journal().iter().filter(is).count();
        assert_eq!(handed, 1, "{job} was handed over so often");
    }
    cluster.assert_nothing_twice();
}

/// Kills a launcher as soon as it has written so many records; whether it lived so long.
fn kill_behind(project: &Project, records: usize) -> bool {
    let before = project.journal().len();
    let mut running = project.start();
    while running.runs() && project.journal().len() < before + records {
        std::thread::sleep(Duration::from_millis(1));
    }
    if running.runs() {
        running.kill();
        return true;
    }
    assert_eq!(running.finish(), 0, "{}", running.said());
    false
}

/// The first launcher dies behind its first record, the second behind its second, until one lives to the end.
#[test]
#[ignore = "needs a cluster: tests/cluster/run.sh"]
fn launchers_that_die_behind_one_record_after_the_other_lose_nothing() {
    let cluster = Cluster::running();
    let project = Project::on(&cluster, Size::Small, "");
    project.add_candidates(&MORE[..1], "");
    let killed = (1..100).take_while(|records| kill_behind(&project, *records)).count();
    assert!(killed >= 3, "only {killed} launchers were killed");
    assert_whole(&cluster, &project);
}

/// The same with a run of its own for each record: whatever the launcher has just written, the next one goes on.
#[test]
#[ignore = "needs a cluster: tests/cluster/run.sh"]
fn slow_a_launcher_that_dies_behind_any_record_of_a_run_is_followed_by_one_that_ends_it() {
    let cluster = Cluster::running();
    let mut kinds = Vec::new();
    for records in 1.. {
        let project = Project::on(&cluster, Size::Small, "");
        project.add_candidates(&MORE[..1], "");
        if !kill_behind(&project, records) {
            break;
        }
        kinds.extend(project.journal().last().map(|line| line["entry"]["is"].as_str().unwrap().to_owned()));
        project.submit().assert_code(0);
        assert_whole(&cluster, &project);
    }
    for kind in ["opened", "submitting", "submitted", "ended", "accepting", "accepted"] {
        assert!(kinds.iter().any(|other| other == kind), "no kill behind `{kind}`: {kinds:?}");
    }
}

/// A disk that is full from the beginning: nobody can say anything there, neither log nor worker.
#[test]
#[ignore = "needs a cluster: tests/cluster/run.sh"]
fn jobs_whose_logs_cannot_be_written_are_told_of_and_run_again_when_there_is_room() {
    let cluster = Cluster::running();
    let project = Project::on(&cluster, Size::Small, "");
    let dry =
        project.run(&["submit", "--cluster", "test", "--dry-run", "--format", "json", "sweep.yaml"]).json();
    let job = PathBuf::from(dry["jobs"][0]["folder"].as_str().unwrap());
    let disk = cluster.folder.join("tiny");
    cluster.root(&format!(
        "mkdir -p {0}/bf16 {1}; chmod 777 {0} {0}/bf16; ln -sfn {0}/bf16 {1}/attempts; head -c 1M /dev/zero > {0}/ballast; \
         top=$(dirname $(dirname $(dirname {1}))); chown -R {2} $top",
        disk.display(), job.display(), cluster.user
    ));
    assert_eq!(
        cluster.root(&format!("df --output=avail {} | tail -n 1", disk.display())),
        "0",
        "the disk is full"
    );
    let call = project.submit();
    call.assert_code(11);
    let said = call.stdout + &call.stderr;
    assert!(said.contains("a log that cannot be written") || said.contains("is the disk full"), "{said}");
    assert!(said.contains("given up after 3 tries"), "{said}");
    cluster.root(&format!("rm -rf {}/ballast", disk.display()));
    cluster.root(&format!("rm {}/attempts", job.display()));
    project.assert_done(&project.run(&["rerun", "--failed", "--format", "json"]).json());
    cluster.root(&format!("rm -rf {}/bf16", disk.display()));
}

/// SLURM forgets jobs `MinJobAge` after their end, and this cluster has no accounts.
#[test]
#[ignore = "needs a cluster: tests/cluster/run.sh"]
fn slow_jobs_that_slurm_has_forgotten_tell_by_their_own_folder_how_they_ended() {
    let cluster = Cluster::running();
    let project = Project::on(&cluster, Size::Small, "");
    cluster.root("sed -i 's/^MinJobAge=.*/MinJobAge=2/' $cluster/etc/slurm.conf; scontrol reconfigure");
    let mut running = project.start();
    project.wait_for("submitted", FP8);
    running.kill();
    wait("outcomes", || project.site().join(FP8).join("attempts/1/outcome.json").exists().then_some(()));
    let token =
        project.wait_for("submitted", FP8)["entry"]["handle"]["slurm"]["name"].as_str().unwrap().to_owned();
    wait("an empty queue", || {
        cluster.root(&format!("squeue -h -a -t all -n {token} -o %i")).is_empty().then_some(())
    });
    project.assert_done(&project.run(&["watch", "--format", "json"]).json());
    assert_eq!((project.tries("bf16"), project.tries(FP8)), (1, 1));
    cluster.root("sed -i 's/^MinJobAge=.*/MinJobAge=300/' $cluster/etc/slurm.conf; scontrol reconfigure");
}

/// A minute is the shortest time limit that SLURM knows, and it looks every half minute.
#[test]
#[ignore = "needs a cluster: tests/cluster/run.sh"]
fn slow_time_limits_end_jobs_that_do_not_listen_and_those_that_do_go_on() {
    let cluster = Cluster::running();
    // The first start hangs, deaf, until SLURM ends it without a word of it.
    let deaf = Project::on(&cluster, Size::Small, "signal_seconds = 10\n");
    let mark = deaf.path("").file_name().unwrap().to_string_lossy().trim_start_matches('.').to_owned();
    let profile = std::fs::read_to_string(deaf.path("clusters/test.toml")).unwrap();
    let hang = format!("setup = [\"trap '' USR2; [ -e ~/{mark} ] || {{ touch ~/{mark}; sleep 600; }}\"]\n");
    deaf.describe(&(hang + &profile.replace("00:10:00", "00:01:00")));
    // The other one is told as soon as SLURM looks, stops at a safe point, queues itself again, and so on to its end.
    let listening = Project::on(&cluster, Size::Longest, "signal_seconds = 55\n");
    let profile = std::fs::read_to_string(listening.path("clusters/test.toml")).unwrap();
    listening.describe(&profile.replace("00:10:00", "00:01:00"));
    let (mut first, mut second) = (deaf.start(), listening.start());
    let begun = Instant::now();
    assert_eq!(first.finish(), 0, "{}", first.said());
    assert!(first.said().contains("bf16: its time was over"), "{}", first.said());
    assert!(begun.elapsed() > Duration::from_secs(50), "the limit was real");
    assert_eq!(deaf.tries("bf16"), 2);
    deaf.assert_done(&deaf.portfolio());
    assert_eq!(second.finish(), 0, "{}", second.said());
    listening.assert_done(&listening.portfolio());
}
