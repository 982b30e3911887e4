//! A real SLURM with accounts (slurmdbd and MariaDB): `tests/cluster/run.sh --accounting` starts it and runs these tests.

use qlaunch_tests::cluster::{Cluster, Project, Size, wait};

const FP8: &str = "fp8_default-kv_fp8";

#[test]
#[ignore = "needs a cluster with accounts: tests/cluster/run.sh --accounting"]
fn accounts_tell_who_took_a_job_back_that_left_the_queue_long_ago() {
    let cluster = Cluster::running();
    let project = Project::on(&cluster, Size::Long, "");
    let mut running = project.start();
    let id =
        project.wait_for("submitted", "bf16")["entry"]["handle"]["slurm"]["id"].as_str().unwrap().to_owned();
    project.wait_for("submitted", FP8);
    project.wait_for_phase("bf16", "1", "evaluate");
    running.kill();
    cluster.root(&format!("scancel {id}"));
    // SLURM forgets jobs that have ended; this one was told to do so within seconds.
    wait("an empty queue", || {
        cluster.root(&format!("squeue -h -a -t all -j {id} -o %i 2>/dev/null")).is_empty().then_some(())
    });
    assert!(
        project.site().join("bf16/attempts/1/outcome.json").exists(),
        "the worker said that it was stopped"
    );
    let watched = project.run(&["watch", "--format", "json"]);
    watched.assert_code(11);
    assert!(watched.stderr.contains("it was cancelled"), "{}", watched.stderr);
    let tries = std::fs::read_dir(project.site().join("bf16/attempts")).unwrap().count();
    assert_eq!(tries, 1, "what a person took back is not run again");
}

#[test]
#[ignore = "needs a cluster with accounts: tests/cluster/run.sh --accounting"]
fn a_limit_on_submitted_jobs_is_waited_for() {
    let cluster = Cluster::running();
    let user = &cluster.user;
    cluster.root(&format!("sacctmgr -i modify user {user} set MaxSubmitJobs=1"));
    let project = Project::on(&cluster, Size::Small, "account = \"project\"\n");
    let call = project.submit();
    cluster.root(&format!("sacctmgr -i modify user {user} set MaxSubmitJobs=-1"));
    assert!(call.stderr.contains("the rest is handed over later"), "{}", call.stderr);
    project.assert_done(&call.json());
}

#[test]
#[ignore = "needs a cluster with accounts: tests/cluster/run.sh --accounting"]
fn accounts_and_qualities_of_service_that_are_not_there_are_named() {
    let cluster = Cluster::running();
    for (profile, meaning, remedy) in [
        ("account = \"nosuch\"", "the account does not exist", "slurm.account"),
        ("qos = \"nosuch\"", "there is no such QOS", "slurm.qos"),
    ] {
        let call = Project::on(&cluster, Size::Small, &format!("{profile}\n")).submit();
        call.assert_code(11);
        let text = call.stdout.replace("\\u0060", "`");
        assert!(text.contains(meaning) && text.contains(remedy), "{profile}: {text}");
    }
    let project = Project::on(&cluster, Size::Small, "");
    let check = project.run(&["cluster", "check", "test", "--format", "json"]).json();
    let accounting = check.as_array().unwrap().iter().find(|step| step["step"] == "accounting").unwrap();
    assert_eq!(accounting["verdict"], "ok", "{check:#}");
}
