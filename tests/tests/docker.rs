//! Containers of a real Docker daemon and a real podman: `tests/docker/run.sh` starts them and runs these tests, one after
//! another.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use qlaunch_tests::cluster::{Project, Size, files_of, wait};
use qlaunch_tests::containers::Daemon;
use qlaunch_tests::places::existing;
use qlaunch_tests::programs::{finish, program};
use serde_json::Value;

const FP8: &str = "fp8_default-kv_fp8";

/// Submits the sweep to this machine itself.
fn near(project: &Project) -> Value {
    project.run(&["submit", "--cluster", "local", "--format", "json", "sweep.yaml"]).json()
}

/// Figures and files of two portfolios of one sweep are the same, but for reports that name their inputs by path.
fn assert_same(made: &Value, expected: &Value, folder_of: impl Fn(&Value) -> std::path::PathBuf) {
    let rows = |portfolio: &Value| portfolio["rows"].as_array().unwrap().clone();
    assert_eq!(rows(made).len(), rows(expected).len());
    for (made, expected) in rows(made).iter().zip(rows(expected)) {
        for figure in ["candidate", "bytes", "perplexity", "kl_mean", "delta", "decision"] {
            assert_eq!(made[figure], expected[figure], "{figure} of {}", expected["candidate"]);
        }
        if expected["recipe"].is_null() {
            continue;
        }
        let expected = files_of(Path::new(expected["checkpoint"].as_str().unwrap()));
        let made = files_of(&folder_of(made));
        assert!(expected.iter().any(|(name, _)| name.ends_with(".safetensors")));
        for ((name, bytes), (other, theirs)) in made.iter().zip(&expected) {
            assert_eq!(name, other);
            assert!(name == "quality.json" || name == "README.md" || bytes == theirs, "{name} differs");
        }
    }
}

fn checkpoint(row: &Value) -> std::path::PathBuf {
    row["checkpoint"].as_str().unwrap().into()
}

#[test]
#[ignore = "needs Docker: tests/docker/run.sh"]
fn a_sweep_gives_the_bytes_and_figures_of_this_machine_and_files_belong_to_the_caller() {
    let daemon = Daemon::running();
    let project = Project::described(Size::Small, &daemon.profile("cpus = 1\nmemory = \"1g\"\n"));
    let text = fs::read_to_string(project.path("sweep.yaml")).unwrap();
    let examples = existing("examples").display().to_string();
    fs::write(project.path("sweep.yaml"), text.replace(&examples, "examples")).unwrap();
    // Somebody without rights, whose programs and files nobody else can read by accident.
    let here = project.path("");
    daemon.root(&format!(
        "cp -r {} {here}; cp {} {} {here}; chown -R 65534:65534 {here}",
        existing("examples").display(),
        program("qlaunch").display(),
        program("qlaunch-worker").display(),
        here = here.display()
    ));
    // A model as Hugging Face's cache keeps it: links to where its files really lie.
    daemon.root(&format!(
        "cd {}/examples && mkdir blobs && cd models/tiny-llama && mv model.safetensors ../../blobs/0a1b && \
         ln -s ../../blobs/0a1b model.safetensors && chown -h 65534:65534 model.safetensors ../../blobs",
        here.display()
    ));
    let submit = |cluster: &str| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(project.path("qlaunch"));
        command.args(["submit", "--cluster", cluster, "--format", "json", "sweep.yaml"]).current_dir(&here);
        command.env_clear().env("HOME", &here).env("PATH", std::env::var("PATH").unwrap());
        finish(command).json()
    };
    let made = submit("test");
    assert_same(&made, &submit("local"), checkpoint);
    let run = project.path("runs").join(made["run"].as_str().unwrap());
    let strangers = daemon.root(&format!("find {} ! -uid 65534", run.display()));
    assert_eq!(strangers, "", "files that do not belong to the caller");
    assert_eq!(daemon.containers(), Vec::<String>::new(), "containers are tidied up");
    assert!(run.join("bf16/attempts/1/container").exists(), "the exit record stays");
    let shards = fs::read_dir(run.join(FP8).join("checkpoint")).unwrap().flatten().map(|entry| entry.path());
    for shard in shards.filter(|path| path.extension().is_some_and(|end| end == "safetensors")) {
        let links = std::os::unix::fs::MetadataExt::nlink(&shard.metadata().unwrap());
        assert!(links > 1, "{} is a copy, and not the store's own file", shard.display());
    }
    assert_eq!(submit("test"), made, "a finished run is shown again, not run again");
}

#[test]
#[ignore = "needs Docker: tests/docker/run.sh"]
fn podman_and_ranks_over_the_loopback_of_a_container_make_the_same_bytes() {
    let daemon = Daemon::running();
    let project = Project::described(Size::Small, "kind = \"docker\"\n[docker]\nruntime = \"podman\"\n");
    let made = project.submit().json();
    let expected = near(&project);
    assert_same(&made, &expected, checkpoint);
    let ranks = Project::described(Size::Small, &format!("ranks = 2\n{}", daemon.profile("")));
    let made = ranks.submit().json();
    assert_same(&made, &expected, checkpoint);
    let folder = ranks.run_folder().unwrap().join(FP8).join("attempts/1/ranks/1");
    assert!(folder.join("outcome.json").exists(), "there was no second rank");
}

#[test]
#[ignore = "needs Docker: tests/docker/run.sh"]
fn podman_without_root_makes_the_same_bytes_and_they_belong_to_the_caller() {
    use std::os::unix::fs::MetadataExt;
    let daemon = Daemon::running();
    let podman = "kind = \"docker\"\n[docker]\nruntime = \"podman\"\n";
    let project = Project::described(Size::Small, podman);
    let submit = ["submit", "--cluster", "test", "--format", "json", "sweep.yaml"];
    let made = daemon.without_root(&project, &submit).json();
    let checkpoint_here = project.run_folder().unwrap().join(FP8).join("checkpoint");
    let owner = daemon.root("id -u $QLAUNCH_TEST_USER");
    for (name, _) in files_of(&checkpoint_here) {
        let uid = fs::metadata(checkpoint_here.join(&name)).unwrap().uid();
        assert_eq!(uid.to_string(), owner, "{name}");
    }
    assert_ne!(owner, "0");
    assert_same(&made, &near(&project), checkpoint);
    // Where it cannot keep a limit, nobody is told that it does.
    if fs::exists("/sys/fs/cgroup/cgroup.controllers").unwrap() {
        return;
    }
    project.describe(&format!("{podman}memory = \"1g\"\n"));
    daemon.without_root(&project, &submit).assert_refused(22, &["cannot keep limits", "docker.memory"]);
}

#[test]
#[ignore = "needs Docker: tests/docker/run.sh"]
fn a_host_behind_ssh_makes_containers_of_its_own() {
    let daemon = Daemon::running();
    let project = Project::described(Size::Small, "");
    let config = daemon.folder.join("ssh/config");
    let profile = format!(
        "worker_build = \"host\"\nworkspace = \"{}\"\n{}[ssh]\nhost = \"box\"\nconfig = \"{}\"\n",
        project.path("there").display(),
        daemon.profile(""),
        config.display()
    );
    // Keys before tables.
    let profile = profile.replacen("kind = \"docker\"\n", "", 1);
    project.describe(&format!("kind = \"docker\"\n{profile}"));
    let made = project.submit().json();
    let run = made["run"].as_str().unwrap().to_owned();
    project.run(&["fetch", &run]).assert_code(0);
    let fetched = |row: &Value| {
        project.path("runs").join(&run).join(row["candidate"].as_str().unwrap()).join("checkpoint")
    };
    assert_same(&made, &near(&project), fetched);
    assert!(project.site().starts_with(project.path("there").canonicalize().unwrap()));
}

#[test]
#[ignore = "needs Docker: tests/docker/run.sh"]
fn launchers_that_are_killed_again_and_again_make_no_container_twice() {
    let daemon = Daemon::running();
    let project = Project::described(Size::Small, &daemon.profile(""));
    let since = daemon.root("date +%s");
    let kills: u64 = std::env::var("QLAUNCH_KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(6);
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    for kill in 0..kills {
        let mut running = project.start();
        // A moment after a random number of further journal lines: around every intent and effect.
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(kill);
        let lines = project.journal().len() + 1 + usize::try_from(seed >> 61).unwrap() % 3;
        let end = std::time::Instant::now() + Duration::from_secs(20);
        while running.runs() && project.journal().len() < lines && std::time::Instant::now() < end {
            sleep(Duration::from_millis(2));
        }
        sleep(Duration::from_millis((seed >> 32) % 300));
        running.kill();
    }
    project.assert_done(&project.submit().json());
    for (name, count) in daemon.made_since(&since) {
        assert_eq!(count, 1, "{name} was made {count} times");
    }
    assert_eq!(daemon.containers(), Vec::<String>::new());
}

#[test]
#[ignore = "needs Docker: tests/docker/run.sh"]
fn a_daemon_that_is_killed_and_comes_back_costs_nothing_where_it_keeps_containers() {
    let daemon = Daemon::running();
    let project = Project::described(Size::Long, &daemon.profile(""));
    let mut running = project.start();
    project.wait_for_phase("bf16", "1", "evaluate");
    daemon.kill();
    wait("word of the lost daemon", || running.said().contains("daemon does not answer").then_some(()));
    daemon.start(true);
    assert_eq!(running.finish(), 0, "{}", running.said());
    project.assert_done(&project.portfolio());
    let lost = project.journal().iter().any(|line| line["entry"]["ending"]["was"] == "lost");
    assert!(!lost, "{}", running.said());
}

#[test]
#[ignore = "needs Docker: tests/docker/run.sh"]
fn containers_that_die_with_their_daemon_are_tried_again_whatever_it_says_of_them() {
    let daemon = Daemon::running();
    let project = Project::described(Size::Long, &daemon.profile(""));
    daemon.root("kill $(cat $state/docker.pid); while [ -e $state/docker.pid ]; do sleep 0.05; done");
    daemon.start(false);
    let mut running = project.start();
    project.wait_for_phase("bf16", "1", "evaluate");
    daemon.kill();
    daemon.start(false);
    let code = running.finish();
    daemon.root("kill $(cat $state/docker.pid); while [ -e $state/docker.pid ]; do sleep 0.05; done");
    daemon.start(true);
    assert_eq!(code, 0, "{}", running.said());
    project.assert_done(&project.portfolio());
    let tries = fs::read_dir(project.site().join("bf16/attempts")).unwrap().count();
    assert_eq!(tries, 2, "the first try was lost: {}", running.said());
}

#[test]
#[ignore = "needs Docker: tests/docker/run.sh"]
fn a_container_that_somebody_kills_or_removes_is_tried_again() {
    let daemon = Daemon::running();
    let project = Project::described(Size::Long, &daemon.profile(""));
    let mut running = project.start();
    project.wait_for_phase("bf16", "1", "evaluate");
    daemon.root("docker kill $(docker ps -q --filter label=qlaunch.attempt)");
    project.wait_for_phase("bf16", "2", "evaluate");
    daemon.root("docker rm -f $(docker ps -q --filter label=qlaunch.attempt)");
    assert_eq!(running.finish(), 0, "{}", running.said());
    project.assert_done(&project.portfolio());
    let losses: Vec<String> = project
        .journal()
        .iter()
        .filter(|line| line["entry"]["ending"]["was"] == "lost")
        .map(|line| line["entry"]["ending"]["error"]["message"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(losses.len(), 2, "{losses:?}");
    assert!(losses[0].contains("signal 9") && losses[1].contains("no trace"), "{losses:?}");
}

#[test]
#[ignore = "needs Docker: tests/docker/run.sh"]
fn a_job_that_runs_out_of_memory_fails_with_the_setting_that_gives_it_more() {
    let daemon = Daemon::running();
    let project = Project::described(Size::Small, &daemon.profile("memory = \"20m\"\n"));
    let call = project.submit();
    call.assert_code(11);
    for words in ["more memory than its container had", "docker.memory"] {
        assert!(call.stdout.contains(words), "{words}: {}", call.stdout);
    }
    let tries = fs::read_dir(project.site().join("bf16/attempts")).unwrap().count();
    assert_eq!(tries, 1, "it would end the same way again");
}

#[test]
#[ignore = "needs Docker: tests/docker/run.sh"]
fn a_full_disk_is_named() {
    let daemon = Daemon::running();
    let project = Project::described(Size::Small, &daemon.profile(""));
    let runs = project.path("runs");
    fs::create_dir(&runs).unwrap();
    daemon.root(&format!("mount -t tmpfs -o size=4m tmpfs {}", runs.display()));
    let call = project.submit();
    let tail =
        daemon.root(&format!("cat {}/*/bf16/attempts/*/log {0}/*/*/attempts/*/log | tail", runs.display()));
    daemon.root(&format!("umount -l {}", runs.display()));
    call.assert_code(11);
    let text = format!("{}{}", call.stdout, call.stderr).to_lowercase();
    assert!(text.contains("no space left") || text.contains("bytes free"), "{text}\n{tail}");
}

#[test]
#[ignore = "needs Docker: tests/docker/run.sh"]
fn what_the_daemon_refuses_is_explained_before_anything_runs() {
    let daemon = Daemon::running();
    let refused = |profile: &str, code: i32, words: &[&str]| {
        let project = Project::described(Size::Small, profile);
        project.submit().assert_refused(code, words);
        assert!(project.journal().is_empty(), "{profile}: something was begun");
    };
    let docker = |more: &str| daemon.profile(&format!("{more}\n"));
    refused(&docker("image = \"nosuch:1\""), 22, &["the image is not there", "docker pull nosuch:1"]);
    refused(&docker("cpus = 99"), 22, &["fewer CPUs", "docker.cpus"]);
    refused(&docker("memory = \"1m\""), 22, &["docker.memory"]);
    refused(&docker("network = \"nosuch\""), 22, &["no such network", "docker.network"]);
    refused(&docker("options = [\"--bogus\"]"), 22, &["--bogus", "docker.options"]);
    refused(&docker("gpus = 1"), 22, &["no NVIDIA GPUs", "nvidia-ctk"]);
    let podman = "kind = \"docker\"\n[docker]\nruntime = \"podman\"\n";
    refused(
        &format!("{podman}image = \"nosuch:1\"\n"),
        22,
        &["the image is not there", "podman pull nosuch:1"],
    );
    let cdi = ["podman knows no NVIDIA GPUs", "nvidia-ctk cdi generate"];
    refused(&format!("{podman}gpus = 1\n"), 22, &cdi);
    let away = "kind = \"docker\"\n[docker]\naddress = \"unix:///nowhere.sock\"\n";
    refused(away, 20, &["daemon does not answer", "systemctl start docker"]);
    // An image with another C library, or with none, and one that fits.
    daemon.root(
        "t=$(mktemp -d); mkdir $t/etc; tar -C $t -c . | docker import - qlaunch-test/empty:1; rm -rf $t",
    );
    refused(&docker("image = \"qlaunch-test/empty:1\""), 22, &["the image cannot start the worker"]);
}

#[test]
#[ignore = "needs Docker: tests/docker/run.sh"]
fn containers_of_several_launchers_never_take_more_cpus_than_there_are() {
    let daemon = Daemon::running();
    let profile = format!("jobs = 4\n{}", daemon.profile("cpus = 1\n"));
    let profile = format!("kind = \"docker\"\n{}", profile.replacen("kind = \"docker\"\n", "", 1));
    let projects = [Project::described(Size::Small, &profile), Project::described(Size::Small, &profile)];
    for (index, project) in projects.iter().enumerate() {
        let text = fs::read_to_string(project.path("sweep.yaml")).unwrap();
        let more = "  - general/ptq/nvfp4_weight_only-kv_fp16\n";
        fs::write(
            project.path("sweep.yaml"),
            format!("{text}{more}").replace("cluster-test", &format!("cluster-test-{index}")),
        )
        .unwrap();
    }
    let cpus: usize = daemon.root("docker info -f '{{.NCPU}}'").parse().unwrap();
    let mut running: Vec<_> = projects.iter().map(Project::start).collect();
    let mut most = 0;
    while running.iter_mut().any(|launcher| launcher.runs()) {
        most = most.max(daemon.root("docker ps -q --filter label=qlaunch.attempt").lines().count());
        sleep(Duration::from_millis(100));
    }
    for launcher in &mut running {
        assert_eq!(launcher.finish(), 0, "{}", launcher.said());
    }
    assert!(most > 1 && most <= cpus, "{most} containers at a time on {cpus} CPUs");
}

#[test]
#[ignore = "needs Docker: tests/docker/run.sh"]
fn a_dry_run_shows_the_very_script_and_a_person_can_run_it() {
    let daemon = Daemon::running();
    let project = Project::described(Size::Small, &daemon.profile(""));
    let dry =
        project.run(&["submit", "--cluster", "test", "--dry-run", "--format", "json", "sweep.yaml"]).json();
    project.submit().json();
    for job in dry["jobs"].as_array().unwrap() {
        let folder = Path::new(job["folder"].as_str().unwrap());
        let live = fs::read_to_string(folder.join("job.sh")).unwrap();
        assert_eq!(job["script"], live, "{}", job["candidate"]);
        let id = daemon.root(&format!("sh {} 7", folder.join("job.sh").display()));
        assert_eq!(daemon.root(&format!("docker wait {id}; docker rm {id} >/dev/null")), "0", "{live}");
        assert!(folder.join("attempts/7/outcome.json").exists());
    }
    let smoke =
        project.run(&["submit", "--cluster", "test", "--smoke", "--format", "json", "sweep.yaml"]).json();
    assert_eq!((&smoke["failed"], smoke["smoke"].as_array().unwrap().len()), (&0.into(), 2), "{smoke:#}");
    let check = project.run(&["cluster", "check", "test", "--format", "json"]).json();
    for name in ["worker", "containers", "image"] {
        let step = check.as_array().unwrap().iter().find(|step| step["step"] == name);
        assert_eq!(step.unwrap_or_else(|| panic!("no {name}: {check:#}"))["verdict"], "ok", "{check:#}");
    }
}
