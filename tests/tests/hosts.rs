//! Two real hosts without a scheduler, with one workspace: `tests/cluster/run.sh` starts them and runs these tests.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use qlaunch_tests::cluster::{Project, Size, files_of, wait};
use qlaunch_tests::hosts::Hosts;
use qlaunch_tests::places::read_json;
use serde_json::Value;

const FP8: &str = "fp8_default-kv_fp8";
const NVFP4: &str = "nvfp4_default-kv_fp8";

/// A sweep of two candidates, with a workspace of its own on the hosts.
fn project(hosts: &Hosts, size: Size, more: &str) -> Project {
    let project = Project::described(size, "");
    let name = project.path("").components().next_back().unwrap().as_os_str().to_string_lossy().into_owned();
    let workspace = format!("~/qlaunch-tests/{}", name.trim_start_matches('.'));
    project.describe(&hosts.profile(&workspace, more));
    let sweep = fs::read_to_string(project.path("sweep.yaml")).unwrap();
    let two = sweep.replace(
        "  - general/ptq/fp8_default-kv_fp8\n",
        "  - general/ptq/fp8_default-kv_fp8\n  - general/ptq/nvfp4_default-kv_fp8\n",
    );
    assert_ne!(sweep, two);
    fs::write(project.path("sweep.yaml"), two).unwrap();
    project
}

/// The hosts that workers of an attempt ran on.
fn hosts_of(attempt: &Path) -> BTreeSet<String> {
    let ranks = fs::read_dir(attempt.join("ranks")).into_iter().flatten().flatten().map(|rank| rank.path());
    let folders = std::iter::once(attempt.to_owned()).chain(ranks);
    let started = |folder: &Path| -> Option<String> {
        let text = fs::read_to_string(folder.join("events.jsonl")).ok()?;
        let events = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        events.into_iter().find_map(|event| Some(event["host"].as_str()?.to_owned()))
    };
    folders.filter_map(|folder| started(&folder)).collect()
}

/// Figures and bytes are those of a run on this machine.
fn assert_same_as_here(project: &Project, far: &Value) {
    let near = project.run(&["submit", "--cluster", "local", "--format", "json", "sweep.yaml"]).json();
    let rows = |portfolio: &Value| portfolio["rows"].as_array().unwrap().clone();
    assert_eq!(rows(far).len(), 3);
    for (far, near) in rows(far).iter().zip(rows(&near)) {
        for figure in ["candidate", "bytes", "perplexity", "kl_mean", "decision"] {
            assert_eq!(far[figure], near[figure], "{figure} of {}", near["candidate"]);
        }
        if near["recipe"].is_null() {
            continue;
        }
        let there = project.site().join(far["candidate"].as_str().unwrap()).join("checkpoint");
        let weights = |folder: &Path| -> Vec<(String, Vec<u8>)> {
            files_of(folder).into_iter().filter(|(name, _)| name.ends_with(".safetensors")).collect()
        };
        let (there, here) = (weights(&there), weights(Path::new(near["checkpoint"].as_str().unwrap())));
        assert!(!here.is_empty() && there == here, "the bytes of {} differ", near["candidate"]);
    }
}

#[test]
#[ignore = "needs two hosts: tests/cluster/run.sh"]
fn a_sweep_spreads_over_hosts_and_makes_the_bytes_of_one_machine() {
    let hosts = Hosts::running();
    let project = project(&hosts, Size::Small, "");
    let far = project.submit().json();
    assert_same_as_here(&project, &far);
    let used: BTreeSet<String> =
        [FP8, NVFP4].iter().flat_map(|job| hosts_of(&project.site().join(job).join("attempts/1"))).collect();
    assert_eq!(used, ["h1", "h2"].map(str::to_owned).into(), "candidates were not spread");
    let check = project.run(&["cluster", "check", "test", "--format", "json"]).json();
    let steps: Vec<&Value> = check.as_array().unwrap().iter().filter(|step| step["step"] == "host").collect();
    assert_eq!(steps.len(), 2, "{check:#}");
    assert!(steps.iter().all(|step| step["verdict"] == "ok"), "{check:#}");
}

#[test]
#[ignore = "needs two hosts: tests/cluster/run.sh"]
fn ranks_on_two_hosts_make_the_bytes_of_one_process() {
    let hosts = Hosts::running();
    let project = project(&hosts, Size::Small, "hosts = 2\n");
    let far = project.submit().json();
    for job in ["bf16", FP8, NVFP4] {
        let used = hosts_of(&project.site().join(job).join("attempts/1"));
        assert_eq!(used, ["h1", "h2"].map(str::to_owned).into(), "{job}");
    }
    assert_same_as_here(&project, &far);
}

#[test]
#[ignore = "needs two hosts: tests/cluster/run.sh"]
fn the_candidates_of_a_host_that_is_cut_off_move_and_its_zombies_harm_nothing() {
    let hosts = Hosts::running();
    // The host that files went through, and the other one.
    for cut in ["h1", "h2"] {
        let project = project(&hosts, Size::Long, "");
        let mut running = project.start();
        project.wait_for("submitted", FP8);
        project.wait_for("submitted", NVFP4);
        let on = |job: &str| {
            project.wait_for("submitted", job)["entry"]["handle"]["process"]["host"]
                .as_str()
                .unwrap()
                .to_owned()
        };
        let moved = if on(FP8) == cut { FP8 } else { NVFP4 };
        assert_eq!(on(moved), cut);
        project.wait_for_phase(moved, "1", "evaluate");
        // However fast it is: it sleeps until nobody waits for it any more.
        hosts.on(cut, "pkill -STOP qlaunch-worker");
        hosts.cut(cut);
        assert_eq!(running.finish(), 0, "{}", running.said());
        assert!(running.said().contains(&format!("the host `{cut}` does not answer")), "{}", running.said());
        let accepted = project.wait_for("accepted", moved);
        // The other host may have been busy for a while.
        assert!(accepted["entry"]["attempt"].as_u64() > Some(1), "cut off: {cut}");
        hosts.on(cut, "pkill -CONT qlaunch-worker");
        // Nobody has told the zombie: it comes to its end, in a folder that does not count any more.
        let zombie = project.site().join(moved).join("attempts/1");
        wait("the zombie's end", || zombie.join("outcome.json").exists().then_some(()));
        let far = read_json(&project.run_folder().unwrap().join("portfolio.json"));
        project.assert_done(&far);
        if cut == "h1" {
            assert_same_as_here(&project, &far);
        }
        assert_eq!(hosts_of(&zombie), [cut.to_owned()].into());
        hosts.join(cut);
    }
}

#[test]
#[ignore = "needs two hosts: tests/cluster/run.sh"]
fn a_zombie_is_ended_when_its_host_is_back() {
    let hosts = Hosts::running();
    let project = project(&hosts, Size::Longest, "");
    let mut running = project.start();
    let host = project.wait_for("submitted", "bf16")["entry"]["handle"]["process"]["host"].clone();
    assert_eq!(host, "h1");
    project.wait_for_phase("bf16", "1", "evaluate");
    hosts.cut("h1");
    project.wait_for("ended", "bf16");
    assert_eq!(hosts.jobs("h1"), 1, "the zombie lives on");
    hosts.join("h1");
    wait("the zombie's end", || (hosts.jobs("h1") == 0).then_some(()));
    assert!(!project.site().join("bf16/attempts/1/outcome.json").exists());
    running.kill();
}

#[test]
#[ignore = "needs two hosts: tests/cluster/run.sh"]
fn a_killed_launcher_starts_nothing_twice_on_any_host() {
    let hosts = Hosts::running();
    let project = project(&hosts, Size::Small, "");
    for line in 1..8 {
        let mut running = project.start();
        let end = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while running.runs() && project.journal().len() < line * 3 && std::time::Instant::now() < end {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        running.kill();
    }
    project.assert_done(&project.submit().json());
    for job in ["bf16", FP8, NVFP4] {
        let begun = project.journal();
        let begun =
            begun.iter().filter(|line| line["entry"]["is"] == "submitted" && line["entry"]["job"] == job);
        let attempts: BTreeSet<u64> = begun.filter_map(|line| line["entry"]["attempt"].as_u64()).collect();
        let folders = fs::read_dir(project.site().join(job).join("attempts")).unwrap().flatten();
        let worked = folders.filter(|folder| folder.path().join("events.jsonl").exists()).count();
        assert_eq!(worked, attempts.len(), "{job}: a worker ran that the journal does not know");
    }
}

#[test]
#[ignore = "needs two hosts: tests/cluster/run.sh"]
fn a_workspace_that_one_host_does_not_see_is_told() {
    let hosts = Hosts::running();
    let workspace = "/var/tmp/qlaunch-own";
    hosts.on("h1", &format!("mkdir -p {workspace}; chmod 777 {workspace}"));
    hosts.on("h2", &format!("mount -t tmpfs -o mode=777 none {workspace}"));
    let project = Project::described(Size::Small, &hosts.profile(workspace, ""));
    let call = project.submit();
    hosts.on("h2", &format!("umount {workspace}"));
    hosts.on("h1", &format!("rm -rf {workspace}"));
    call.assert_refused(3, &["`h2` does not see the workspace", "all hosts mount"]);
    // More hosts than there are, are told of before anybody is called.
    let wide = Project::described(Size::Small, &hosts.profile("~/q", "hosts = 3\n"));
    wide.submit().assert_refused(3, &["a job wants 3 hosts, and there are 2", "process.hosts"]);
}
