//! A real SLURM behind a real jump host: `tests/cluster/run.sh` starts them and runs these tests, one after another.

use std::path::Path;

use qlaunch_tests::cluster::{Cluster, Project, Size, files_of, wait};
use qlaunch_tests::places::existing;
use qlaunch_tests::programs::{finish, program, qlaunch, row};

const FP8: &str = "fp8_default-kv_fp8";

/// The example sweep with its model where the job user cannot read it, so that it has to be sent.
fn private_example(folder: &Path) {
    let output =
        std::process::Command::new("cp").arg("-r").arg(existing("examples")).arg(folder).output().unwrap();
    assert!(output.status.success());
    let private = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    std::fs::set_permissions(folder.join("examples"), private).unwrap();
}

#[test]
#[ignore = "needs a cluster: tests/cluster/run.sh"]
fn the_example_sweep_gives_the_same_bytes_and_figures_as_on_this_machine() {
    let cluster = Cluster::running();
    let project = Project::on(&cluster, Size::Small, "");
    private_example(&project.path(""));
    let sweep = "examples/sweeps/tiny-llama.yaml";
    let far = project.run(&["submit", "--cluster", "test", "--format", "json", sweep]);
    assert!(far.stderr.contains("has to be sent"), "{}", far.stderr);
    let far = far.json();
    let near = {
        let mut command = project.command(&["submit", "--cluster", "local", "--format", "json", sweep]);
        command.env("QLAUNCH_THREADS", "1");
        finish(command).json()
    };
    assert_eq!(far["recommendation"]["candidate"], near["recommendation"]["candidate"]);
    project.run(&["fetch", far["run"].as_str().unwrap()]).assert_code(0);
    let rows = |portfolio: &serde_json::Value| portfolio["rows"].as_array().unwrap().clone();
    for (far_row, near_row) in rows(&far).iter().zip(rows(&near)) {
        for figure in ["candidate", "bytes", "perplexity", "kl_mean", "delta", "decision"] {
            assert_eq!(far_row[figure], near_row[figure], "{figure} of {}", near_row["candidate"]);
        }
        if near_row["recipe"].is_null() {
            continue;
        }
        let near_files = files_of(Path::new(near_row["checkpoint"].as_str().unwrap()));
        let fetched = project
            .path("runs")
            .join(far["run"].as_str().unwrap())
            .join(near_row["candidate"].as_str().unwrap());
        for (name, bytes) in files_of(&fetched.join("checkpoint")) {
            let theirs = near_files.iter().find(|(other, _)| *other == name).map(|(_, bytes)| bytes);
            // The report names its inputs by path.
            assert!(
                name == "quality.json" || name == "README.md" || theirs == Some(&bytes),
                "{name} differs"
            );
        }
        assert!(near_files.iter().any(|(name, _)| name.ends_with(".safetensors")));
    }
    cluster.assert_nothing_twice();
    let again = project.run(&["submit", "--cluster", "test", "--format", "json", sweep]);
    assert!(again.stderr.contains("was sent before"), "{}", again.stderr);
    assert_eq!(again.json(), far, "a finished run is shown again, not run again");
}

#[test]
#[ignore = "needs a cluster: tests/cluster/run.sh"]
fn a_launcher_that_is_killed_again_and_again_loses_nothing_and_submits_nothing_twice() {
    let cluster = Cluster::running();
    let project = Project::on(&cluster, Size::Small, "");
    let kills: u64 = std::env::var("QLAUNCH_KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(20);
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    for kill in 0..kills {
        let mut running = project.start();
        // A moment after a random number of further journal lines: around every intent and effect.
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(kill);
        let lines = project.journal().len() + 1 + usize::try_from(seed >> 60).unwrap() % 4;
        let moment = std::time::Duration::from_millis((seed >> 32) % 400);
        let end = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while running.runs() && project.journal().len() < lines && std::time::Instant::now() < end {
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        std::thread::sleep(moment);
        running.kill();
    }
    project.assert_done(&project.submit().json());
    // Each job was handed over once: no attempt was given up because its launcher died.
    for job in ["bf16", FP8] {
        let attempts = std::fs::read_dir(project.site().join(job).join("attempts")).unwrap().count();
        let begun = project
            .journal()
            .iter()
            .filter(|line| line["entry"]["is"] == "submitting" && line["entry"]["job"] == job)
            .count();
        assert!(attempts <= begun, "{job}: {attempts} folders of {begun} intents");
    }
}

#[test]
#[ignore = "needs a cluster: tests/cluster/run.sh"]
fn a_lost_link_is_no_lost_job() {
    let cluster = Cluster::running();
    let project = Project::on(&cluster, Size::Long, "");
    let mut running = project.start();
    project.wait_for("submitted", FP8);
    // The session's sshd dies, then the login host refuses connections for a while.
    cluster
        .root("for pid in $(cat /proc/$(cat $cluster/ssh/login.pid)/task/*/children); do kill -9 $pid; done");
    cluster.root("kill $(cat $cluster/ssh/login.pid)");
    wait("word of the lost link", || running.said().contains("the link").then_some(()));
    cluster.mend();
    assert_eq!(running.finish(), 0, "{}", running.said());
    assert!(running.said().contains("the link is back"), "{}", running.said());
    project.assert_done(&project.portfolio());
    assert!(
        project.journal().iter().all(|line| line["entry"]["attempt"].as_u64().unwrap_or(1) == 1),
        "tried once"
    );
}

#[test]
#[ignore = "needs a cluster: tests/cluster/run.sh"]
fn a_controller_that_dies_right_after_sbatch_loses_no_job() {
    let cluster = Cluster::running();
    let project = Project::on(&cluster, Size::Small, "");
    let mut running = project.start();
    project.wait_for("submitted", "bf16");
    cluster.root("kill -9 $(cat $cluster/run/slurmctld.pid)");
    std::thread::sleep(std::time::Duration::from_secs(3));
    cluster.mend();
    assert_eq!(running.finish(), 0, "{}", running.said());
    project.assert_done(&project.portfolio());
}

#[test]
#[ignore = "needs a cluster: tests/cluster/run.sh"]
fn a_reply_of_sbatch_that_is_lost_makes_no_second_job_and_banners_are_no_answers() {
    let cluster = Cluster::running();
    let project = Project::on(&cluster, Size::Small, "");
    let bin = cluster.home().join("wrapped");
    std::fs::create_dir_all(&bin).unwrap();
    let mark = cluster.home().join("reply-lost");
    drop(std::fs::remove_file(&mark));
    // The first job is taken, and its reply is lost with the connection; the second one's reply says nothing.
    let wrapper = format!(
        "#!/bin/bash\n/usr/bin/sbatch \"$@\" > /tmp/qlaunch-reply.$$ || exit\nif [ ! -e {mark} ]; then\n  : > {mark}\n  pid=$$\n  while [ \"$(cat /proc/$pid/comm)\" != sshd ]; do pid=$(awk '/^PPid/ {{print $2}}' /proc/$pid/status); done\n  kill -9 $pid\n  exit 1\nfi\necho 'sbatch: error: Batch job submission failed: Socket timed out on send/recv operation' >&2\nexit 1\n",
        mark = mark.display()
    );
    std::fs::write(bin.join("sbatch"), wrapper).unwrap();
    cluster.root(&format!("chmod 755 {0} {0}/sbatch; chown -R {1} {0}", bin.display(), cluster.user));
    cluster.set_bashrc(
        "echo 'Welcome to the cluster! 17|noise|RUNNING|n1|None'\nexport PATH=$HOME/wrapped:$PATH\n",
    );
    let call = project.submit();
    cluster.set_bashrc("");
    assert!(mark.exists(), "the wrapper was not used: {}", call.stderr);
    project.assert_done(&call.json());
    assert!(call.stderr.contains("the link to `test` was lost"), "{}", call.stderr);
    let attempts = |job: &str| std::fs::read_dir(project.site().join(job).join("attempts")).unwrap().count();
    assert_eq!((attempts("bf16"), attempts(FP8)), (1, 1), "each was handed over once");
}

#[test]
#[ignore = "needs a cluster: tests/cluster/run.sh"]
fn slow_a_job_that_is_told_of_its_time_limit_queues_itself_again_and_ends() {
    let cluster = Cluster::running();
    let project = Project::on(&cluster, Size::Long, "");
    let mut running = project.start();
    let id =
        project.wait_for("submitted", "bf16")["entry"]["handle"]["slurm"]["id"].as_str().unwrap().to_owned();
    project.wait_for_phase("bf16", "1", "evaluate");
    // What `--signal` does before the limit.
    cluster.root(&format!("scancel -b -s USR2 {id}"));
    assert_eq!(running.finish(), 0, "{}", running.said());
    assert!(running.said().contains("bf16: started again by the scheduler (1)"), "{}", running.said());
    project.assert_done(&project.portfolio());
    assert!(project.site().join("bf16/attempts/1.1/outcome.json").exists());
}

#[test]
#[ignore = "needs a cluster: tests/cluster/run.sh"]
fn a_preempted_job_starts_again() {
    let cluster = Cluster::running();
    let project =
        Project::on(&cluster, Size::Longest, "partition = \"spot\"\noptions = [\"--nodelist=n1\"]\n");
    let mut running = project.start();
    project.wait_for_phase("bf16", "1", "evaluate");
    cluster.root(&format!(
        "runuser -u {} -- sbatch --chdir=/tmp --output=/dev/null -p batch -w n1 --exclusive --wrap 'sleep 1'",
        cluster.user
    ));
    assert_eq!(running.finish(), 0, "{}", running.said());
    assert!(running.said().contains("started again by the scheduler (1)"), "{}", running.said());
    project.assert_done(&project.portfolio());
}

#[test]
#[ignore = "needs a cluster: tests/cluster/run.sh"]
fn a_node_that_dies_costs_a_try_and_its_zombie_harms_nothing() {
    let cluster = Cluster::running();
    let project = Project::on(&cluster, Size::Long, "options = [\"--nodelist=n2\"]\n");
    let mut running = project.start();
    project.wait_for_phase("bf16", "1", "evaluate");
    project.write_profile("login", "options = []\n");
    // The daemon dies, the job's processes live on and write.
    cluster.root("kill -9 $(cat $cluster/run/slurmd.n2.pid)");
    cluster.root("scontrol update nodename=n2 state=down reason=test");
    std::thread::sleep(std::time::Duration::from_secs(2));
    cluster.mend();
    cluster.root("scontrol update nodename=n2 state=resume");
    assert_eq!(running.finish(), 0, "{}", running.said());
    project.assert_done(&project.portfolio());
    let tries = std::fs::read_dir(project.site().join("bf16/attempts")).unwrap().count();
    assert!(tries >= 2, "the first try was lost: {}", running.said());
}

#[test]
#[ignore = "needs a cluster: tests/cluster/run.sh"]
fn a_job_that_somebody_cancels_by_hand_is_not_run_again() {
    let cluster = Cluster::running();
    let project = Project::on(&cluster, Size::Long, "");
    let mut running = project.start();
    let id =
        project.wait_for("submitted", FP8)["entry"]["handle"]["slurm"]["id"].as_str().unwrap().to_owned();
    cluster.root(&format!("scancel {id}"));
    assert_eq!(running.finish(), 11, "{}", running.said());
    assert!(running.said().contains("it was cancelled"), "{}", running.said());
    let portfolio = project.portfolio();
    let row = row(&portfolio, FP8);
    assert_eq!(row["decision"]["is"], "failed", "{row:#}");
    // Asked for again, it runs.
    project.assert_done(&project.run(&["rerun", "--failed", "--format", "json"]).json());
}

#[test]
#[ignore = "needs a cluster: tests/cluster/run.sh"]
fn interrupted_launchers_leave_jobs_alone_and_any_terminal_takes_over() {
    let cluster = Cluster::running();
    let project = Project::on(&cluster, Size::Long, "");
    let mut running = project.start();
    project.wait_for("submitted", FP8);
    assert_eq!(running.signal("INT"), 30);
    assert!(running.said().contains("detached"), "{}", running.said());
    let before = project.journal();
    let status = project.run(&["status", "--format", "json"]).json();
    assert_eq!(status["jobs"][1]["state"], "queued", "{status:#}");
    assert_eq!(project.journal(), before, "to look changes nothing");
    project.wait_for_phase("bf16", "1", "evaluate");
    project.run(&["logs", "--candidate", "bf16"]).assert_code(0);
    project.assert_done(&project.run(&["watch", "--format", "json"]).json());
    let again = project.run(&["cancel", "--yes"]);
    assert!(again.stderr.contains("nothing of"), "{}", again.stderr);
}

#[test]
#[ignore = "needs a cluster: tests/cluster/run.sh"]
fn cancelling_stops_jobs_whoever_drives_the_run() {
    let cluster = Cluster::running();
    for driven in [true, false] {
        let project = Project::on(&cluster, Size::Long, "");
        let mut running = project.start();
        project.wait_for_phase("bf16", "1", "evaluate");
        project.wait_for("submitted", FP8);
        if !driven {
            running.kill();
        }
        project.run(&["cancel", "--yes"]).assert_code(0);
        if driven {
            assert_eq!(running.finish(), 11, "{}", running.said());
        }
        let left = wait("an empty queue", || {
            let left = cluster.root("squeue -h -o '%j %T' | grep '^ql-' | grep -v COMPLETING");
            left.is_empty().then_some(left)
        });
        assert_eq!(left, "");
        let status = project.run(&["status", "--format", "json"]).json();
        for job in status["jobs"].as_array().unwrap() {
            assert_eq!(job["state"], "failed", "{status:#}");
        }
    }
}

#[test]
#[ignore = "needs a cluster: tests/cluster/run.sh"]
fn what_sbatch_refuses_is_explained() {
    let cluster = Cluster::running();
    let cases = [
        ("partition = \"nosuch\"", "no such partition", "sinfo"),
        ("memory = \"900G\"", "so much memory", "slurm.memory"),
        ("cpus = 99", "so many CPUs", "slurm.cpus"),
        ("gpus = 1", "no node has what it asks for", "slurm.gpus"),
        ("partition = \"short\"", "more time", "slurm.time"),
        ("options = [\"--nodelist=n99\"]", "no such node", "slurm.options"),
        ("options = [\"--bogus\"]", "does not know", "sbatch --help"),
    ];
    for (profile, meaning, remedy) in cases {
        let call = Project::on(&cluster, Size::Small, &format!("{profile}\n")).submit();
        call.assert_code(11);
        let text = call.stdout.replace("\\u0060", "`");
        assert!(text.contains(meaning) && text.contains(remedy), "{profile}: {text}");
    }
}

#[test]
#[ignore = "needs a cluster: tests/cluster/run.sh"]
fn hosts_that_do_not_let_us_in_are_told_apart() {
    let cluster = Cluster::running();
    let project = Project::on(&cluster, Size::Small, "");
    let config = std::fs::read_to_string(cluster.folder.join("ssh/config")).unwrap();
    let with = |name: &str, from: &str, to: &str| {
        let path = project.path(name);
        std::fs::write(&path, config.replace(from, to)).unwrap();
        let profile = format!(
            "kind = \"slurm\"\nworker_build = \"host\"\n[ssh]\nhost = \"direct\"\nconfig = \"{}\"\n",
            path.display()
        );
        std::fs::write(project.path("clusters/test.toml"), profile).unwrap();
        project.submit()
    };
    with("unknown", "/ssh/known_hosts", "/ssh/none")
        .assert_refused(21, &["host key of `direct` is not known"]);
    let user = format!("User {}", cluster.user);
    with("stranger", &user, "User nobody-here")
        .assert_refused(21, &["Permission denied", "qlaunch cluster login test"]);
    with("nowhere", "HostName 127.0.0.1", "HostName nosuch.invalid").assert_refused(20, &["cannot be found"]);
    let closed = config.lines().find(|line| line.contains("Port ")).unwrap().trim().to_owned();
    drop(closed);
    with("closed", "Port ", "Port 1").assert_refused(20, &["does not answer"]);
}

#[test]
#[ignore = "needs a cluster: tests/cluster/run.sh"]
fn three_nodes_with_two_ranks_each_make_the_bytes_of_one_process() {
    let cluster = Cluster::running();
    let project = Project::on(&cluster, Size::Small, "nodes = 3\nranks_per_node = 2\ncpus = 1\n");
    let far = project.submit().json();
    project.assert_done(&far);
    let hosts = cluster.root(&format!(
        "grep -ho '\"host\":\"[^\"]*\"' -r {}/{FP8}/attempts/1 --include=events.jsonl | sort -u",
        project.site().display()
    ));
    assert_eq!(hosts.lines().count(), 3, "{hosts}");
    let near = project.run(&["submit", "--cluster", "local", "--format", "json", "sweep.yaml"]).json();
    let row = |portfolio: &serde_json::Value| portfolio["rows"].as_array().unwrap()[1].clone();
    for figure in ["bytes", "perplexity", "kl_mean"] {
        assert_eq!(row(&far)[figure], row(&near)[figure], "{figure}");
    }
    let (made, expected) = (project.site().join(FP8).join("checkpoint"), row(&near)["checkpoint"].clone());
    let weights = |folder: &Path| -> Vec<(String, Vec<u8>)> {
        files_of(folder).into_iter().filter(|(name, _)| name.ends_with(".safetensors")).collect()
    };
    let (made, expected) = (weights(&made), weights(Path::new(expected.as_str().unwrap())));
    assert!(made.len() == 10 && made == expected, "the bytes differ");
}

#[test]
#[ignore = "needs a cluster: tests/cluster/run.sh"]
fn a_host_without_a_scheduler_works_on_files_that_lie_there() {
    let cluster = Cluster::running();
    let project = Project::on(&cluster, Size::Small, "");
    let files = cluster.home().join("files");
    cluster.root(&format!(
        "rm -rf {0}; cp -r {1} {0} && chown -R {2} {0} && chmod -R u+rX {0}",
        files.display(),
        existing("examples").display(),
        cluster.user
    ));
    let replace = |name: &str, from: &str, to: &str| {
        let text = std::fs::read_to_string(project.path(name)).unwrap();
        std::fs::write(project.path(name), text.replace(from, to)).unwrap();
    };
    replace("clusters/test.toml", "kind = \"slurm\"", "kind = \"ssh\"");
    let there = format!("cluster:{}", files.display());
    replace("sweep.yaml", &existing("examples").display().to_string(), &there);
    let mut running = project.start();
    project.wait_for("submitted", "bf16");
    running.kill();
    let call = project.submit();
    assert!(call.stderr.contains("lies on the cluster"), "{}", call.stderr);
    project.assert_done(&call.json());
    let attempts = |job: &str| std::fs::read_dir(project.site().join(job).join("attempts")).unwrap().count();
    assert_eq!((attempts("bf16"), attempts(FP8)), (1, 1), "the killed launcher's job was taken over");
}

#[test]
#[ignore = "needs a cluster: tests/cluster/run.sh"]
fn a_check_says_what_works_and_a_worker_for_other_machines_is_refused_with_the_remedy() {
    let cluster = Cluster::running();
    let project = Project::on(&cluster, Size::Small, "");
    let check = project.run(&["cluster", "check", "test", "--format", "json"]).json();
    let step = |name: &str| {
        check.as_array().unwrap().iter().find(|step| step["step"] == name).unwrap()["verdict"].clone()
    };
    for name in ["connection", "workspace", "clock", "worker", "slurm", "compute node"] {
        assert_eq!(step(name), "ok", "{name}: {check:#}");
    }
    let profile = std::fs::read_to_string(project.path("clusters/test.toml")).unwrap();
    std::fs::write(project.path("clusters/test.toml"), profile.replace("worker_build = \"host\"\n", ""))
        .unwrap();
    project.submit().assert_refused(3, &["needs glibc", "cargo zigbuild"]);
    let home = project.path("home");
    let mut other = qlaunch(&home);
    other
        .current_dir(project.path(""))
        .env("QLAUNCH_WORKER", program("qlaunch-worker"))
        .args(["cluster", "list"]);
    finish(other).assert_code(0);
}

#[test]
#[ignore = "needs a cluster: tests/cluster/run.sh"]
fn jobs_begin_when_they_may_though_the_launcher_has_left() {
    let cluster = Cluster::running();
    let project = Project::on(&cluster, Size::Small, "");
    let mut command = project.command(&["submit", "--cluster", "test", "--begin", "now+15", "sweep.yaml"]);
    let before = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_millis();
    let log = project.path("begin.log");
    let mut launcher = command
        .stdout(std::process::Stdio::null())
        .stderr(std::fs::File::create(&log).unwrap())
        .spawn()
        .unwrap();
    let said = || std::fs::read_to_string(&log).unwrap();
    wait("the scheduler's word", || said().contains("BeginTime: its time has not come").then_some(()));
    project.wait_for("submitted", FP8);
    launcher.kill().unwrap();
    launcher.wait().unwrap();
    project.assert_done(&project.run(&["watch", "--format", "json"]).json());
    let events = std::fs::read_to_string(project.site().join("bf16/attempts/1/events.jsonl")).unwrap();
    let first: serde_json::Value = serde_json::from_str(events.lines().next().unwrap()).unwrap();
    let waited = u128::from(first["at"].as_u64().unwrap()) - before;
    assert!(waited >= 14_000, "it began after {waited} ms");
}

#[test]
#[ignore = "needs a cluster: tests/cluster/run.sh"]
fn slow_a_scheduled_job_queues_itself_again_and_runs_the_sweep_once_for_each_moment() {
    let cluster = Cluster::running();
    let project = Project::on(&cluster, Size::Small, "");
    // This machine as a login host; what its jobs run belongs to the user who tests.
    let near = "kind = \"slurm\"\nworker_build = \"host\"\npoll_seconds = 1\n[slurm]\nlag_seconds = 3\n";
    std::fs::write(project.path("clusters/near.toml"), near).unwrap();
    let text = std::fs::read_to_string(project.path("sweep.yaml")).unwrap();
    std::fs::write(project.path("sweep.yaml"), text.replace("name: cluster-test", "name: again")).unwrap();
    let conf = cluster.folder.join("etc/slurm.conf");
    let run = |arguments: &[&str]| {
        let mut command = project.command(arguments);
        command.env("SLURM_CONF", &conf);
        finish(command)
    };
    // The next two minutes: each of them is a moment.
    let soon = cluster.root("date -d '+1 minute' +%H:%M; date -d '+2 minutes' +%H:%M");
    let every = format!("daily {}", soon.replace('\n', ","));
    let added = run(&["schedule", "add", "sweep.yaml", "--cluster", "near", "--every", &every]);
    added.assert_code(0);
    let script = project.path(".config/qlaunch/schedules/again/begin.sh");
    assert!(added.stderr.contains(&format!("sbatch {}", script.display())), "{}", added.stderr);
    let home = project.path("");
    cluster.root(&format!("HOME={} sbatch {}", home.display(), script.display()));
    let pending = || cluster.root("squeue -h -n qlaunch-again -t PENDING -o %i").lines().count();
    wait("the job for the next moment", || (pending() == 1).then_some(()));
    let firings = || -> Vec<serde_json::Value> {
        let shown = run(&["schedule", "show", "again", "--format", "json"]).json();
        shown["firings"].as_array().unwrap().clone()
    };
    let end = std::time::Instant::now() + std::time::Duration::from_secs(240);
    while firings().len() < 2 && std::time::Instant::now() < end {
        std::thread::sleep(std::time::Duration::from_secs(1));
    }
    let log = std::fs::read_to_string(script.with_file_name("begin.log")).unwrap_or_default();
    let fired = firings();
    assert_eq!(fired.len(), 2, "{log}");
    assert!(
        fired.iter().all(|firing| firing["code"] == 0 && firing["run"] == fired[0]["run"]),
        "{fired:#?} {log}"
    );
    assert_ne!(fired[0]["moment"], fired[1]["moment"]);
    assert_eq!(pending(), 1, "one for tomorrow, and no more");
    run(&["schedule", "remove", "again"]).assert_code(0);
    cluster.root("scancel --name=qlaunch-again");
}
