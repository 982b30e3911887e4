//! One scenario over every kind of cluster: the same commands lead to the same events, journals and figures.

use std::path::PathBuf;

use qlaunch_tests::cluster::{Cluster, Project, Size};
use qlaunch_tests::containers::Daemon;
use serde_json::{Value, json};

const FP8: &str = "fp8_default-kv_fp8";

/// What a kind of cluster made of the scenario, without what belongs to one host or one moment.
#[derive(Debug, PartialEq)]
struct Told {
    /// What the worker of each job said, the latest attempt's.
    events: Vec<(String, Vec<Value>)>,
    /// What the launcher meant to do and what became of it, job by job.
    journal: Vec<(String, Vec<Value>)>,
    /// States after the end.
    states: Vec<Value>,
    /// Figures of the portfolio.
    figures: Vec<Value>,
}

/// Submit, look, run one job again, look again.
fn scenario(project: &Project, cluster: &str) -> Told {
    let submit = ["submit", "--cluster", cluster, "--format", "json", "sweep.yaml"];
    let first = project.run(&submit).json();
    assert_eq!(project.run(&submit).json(), first, "{cluster}: a finished run is shown again, not run again");
    let again = project.run(&["rerun", "--candidate", FP8, "--format", "json"]).json();
    let status = project.run(&["status", "--format", "json"]).json();
    project.run(&["logs", "--candidate", FP8]).assert_code(0);
    assert_eq!(project.run(&["watch", "--format", "json"]).json()["rows"], again["rows"], "{cluster}");
    assert_eq!(project.run(&["portfolio", "--format", "json"]).json()["rows"], again["rows"], "{cluster}");
    let cancelled = project.run(&["cancel", "--yes"]);
    assert!(cancelled.stderr.contains("nothing of"), "{cluster}: {}", cancelled.stderr);
    let folder = project.run_folder().expect("a run");
    let jobs = [("bf16", "1"), (FP8, "2")];
    let events = |(job, attempt): &(&str, &str)| {
        let path = folder.join(job).join("attempts").join(attempt).join("events.jsonl");
        ((*job).to_owned(), events(&path))
    };
    let of_job = |(job, _): &(&str, &str)| {
        let lines = project.journal();
        let own = lines.iter().filter(|line| line["entry"]["job"] == *job);
        let told = own.map(|line| {
            let entry = &line["entry"];
            json!({"is": entry["is"], "attempt": entry["attempt"], "was": entry["ending"]["was"]})
        });
        ((*job).to_owned(), told.collect())
    };
    let rows = again["rows"].as_array().expect("rows");
    let figure = |row: &Value| {
        let names =
            ["candidate", "bytes", "perplexity", "kl_mean", "delta", "numeric_path", "gates", "decision"];
        Value::Array(names.iter().map(|name| row[*name].clone()).collect())
    };
    let state = |job: &Value| json!([job["job"], job["state"], job["attempt"]]);
    Told {
        events: jobs.iter().map(events).collect(),
        journal: jobs.iter().map(of_job).collect(),
        states: status["jobs"].as_array().expect("jobs").iter().map(state).collect(),
        figures: rows.iter().map(figure).collect(),
    }
}

/// Events without progress, times and hosts.
fn events(path: &PathBuf) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let all = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("an event"));
    let told = all.filter(|event| event["event"] != "progress").map(|mut event| {
        let fields = event.as_object_mut().expect("an object");
        for name in ["sequence", "at", "host", "pid", "threads", "seconds"] {
            fields.remove(name);
        }
        event
    });
    told.collect()
}

#[test]
#[ignore = "needs SLURM, sshd, Docker and podman: tests/matrix/run.sh"]
fn one_scenario_is_the_same_on_every_kind_of_cluster() {
    let (cluster, daemon) = (Cluster::running(), Daemon::running());
    let project = Project::on(&cluster, Size::Small, "");
    let expected = scenario(&project, "local");
    assert!(expected.events.iter().all(|(_, events)| events.len() > 3), "{expected:#?}");
    let podman = "kind = \"docker\"\n[docker]\nruntime = \"podman\"\n".to_owned();
    let docker = daemon.profile("memory = \"1g\"\n");
    for kind in ["slurm", "ssh", "docker", "podman"] {
        let project = Project::on(&cluster, Size::Small, "");
        let own = std::fs::read_to_string(project.path("clusters/test.toml")).expect("a profile");
        match kind {
            "ssh" => project.describe(&own.replace("kind = \"slurm\"", "kind = \"ssh\"")),
            "docker" => project.describe(&docker),
            "podman" => project.describe(&podman),
            _ => {}
        }
        let told = scenario(&project, "test");
        for (told, expected) in told.events.iter().zip(&expected.events) {
            assert_eq!(told, expected, "{kind}");
        }
        assert_eq!(told, expected, "{kind}");
    }
}
