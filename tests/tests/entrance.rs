//! Ways into a real cluster: passwords typed by a person, login shells that are no POSIX shell, models of the Hub.
//! `tests/cluster/run.sh` starts it and runs these tests.

use std::fs;

use qlaunch_tests::cluster::{Cluster, Project, Size, files_of};
use qlaunch_tests::hub::{COMMIT, Hub, TOKEN};
use qlaunch_tests::places::tiny_llama;
use qlaunch_tests::programs::finish;
use qlaunch_tests::terminal::Terminal;

const FP8: &str = "fp8_default-kv_fp8";

#[test]
#[ignore = "needs a cluster: tests/cluster/run.sh"]
fn who_typed_a_password_once_is_not_asked_again_until_the_connection_is_gone() {
    let cluster = Cluster::running();
    let project = Project::on(&cluster, Size::Small, "");
    project.write_profile("door", "");
    let password = fs::read_to_string(cluster.folder.join("ssh/password")).unwrap();
    let refused = || {
        for command in [&["cluster", "check", "test"][..], &["submit", "--cluster", "test", "sweep.yaml"]] {
            let call = project.run(command);
            assert_eq!(call.code, 21, "{}{}", call.stdout, call.stderr);
            assert!(
                format!("{}{}", call.stdout, call.stderr).contains("qlaunch cluster login test"),
                "{call:#?}"
            );
        }
    };
    refused();

    // A wrong password first, as it happens.
    let mut person = Terminal::start(&project.command(&["cluster", "login", "test"]));
    person.wait_for("Password:");
    person.type_line("not it");
    // PAM waits a while before it asks again.
    let again = || person.shown().matches("Password:").count() >= 2;
    qlaunch_tests::cluster::wait("the second question", || again().then_some(()));
    person.type_line(password.trim());
    person.wait_for("logged in to `door`");
    assert!(!person.shown().contains(password.trim()), "nothing is echoed");
    assert_eq!(person.finish(), 0);

    let socket = project.path(".config/qlaunch/logins/test");
    let master = || cluster.root(&format!("ssh -S {} -O check door 2>&1", socket.display()));
    assert!(master().contains("Master running"), "{}", master());
    let call = project.run(&["cluster", "check", "test"]);
    assert_eq!(call.code, 0, "{}{}", call.stdout, call.stderr);
    project.assert_done(&project.submit().json());
    assert!(master().contains("Master running"), "commands leave it open: {}", master());

    // The network goes, or eight hours pass.
    cluster.root(&format!("ssh -S {} -O exit door", socket.display()));
    refused();
}

#[test]
#[ignore = "needs a cluster: tests/cluster/run.sh"]
fn a_login_without_anybody_at_the_keyboard_says_so() {
    let cluster = Cluster::running();
    let project = Project::on(&cluster, Size::Small, "");
    project.write_profile("door", "");
    let mut command = project.command(&["cluster", "login", "test"]);
    command.stdin(std::process::Stdio::null());
    // Without a terminal of its own ssh would ask on the one that runs these tests.
    let mut detached = std::process::Command::new("setsid");
    detached.args(["-w"]).arg(command.get_program()).args(command.get_args()).current_dir(project.path(""));
    detached.env_clear().envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    detached.stdin(std::process::Stdio::null());
    finish(detached).assert_refused(21, &["ssh could not log in to `door`"]);
}

#[test]
#[ignore = "needs a cluster: tests/cluster/run.sh"]
fn a_deep_folder_for_temporary_files_leaves_no_room_for_the_socket_of_a_connection() {
    let cluster = Cluster::running();
    let project = Project::on(&cluster, Size::Small, "");
    let deep = project.path(&"deep/".repeat(24));
    fs::create_dir_all(&deep).unwrap();
    let mut command = project.command(&["cluster", "check", "test"]);
    command.env("TMPDIR", &deep);
    let call = finish(command);
    assert_eq!(call.code, 0, "{}{}", call.stdout, call.stderr);
}

#[test]
#[ignore = "needs a cluster: tests/cluster/run.sh"]
fn somebody_whose_login_shell_is_tcsh_gets_the_same_bytes() {
    let cluster = Cluster::running();
    let project = Project::on(&cluster, Size::Small, "");
    project.write_profile("csh", "");
    // As sites have it: a word of the shell before every answer.
    let home = cluster.root(&format!("getent passwd {}-csh | cut -d: -f6", cluster.user));
    fs::write(format!("{home}/.cshrc"), "set backslash_quote\necho Willkommen\nset prompt='%m!! '\n")
        .unwrap();
    let shell = cluster.root(&format!("getent passwd {}-csh | cut -d: -f7", cluster.user));
    assert!(shell.ends_with("tcsh"), "{shell}");
    let call = project.run(&["cluster", "check", "test"]);
    assert_eq!(call.code, 0, "{}{}", call.stdout, call.stderr);
    let far = project.submit().json();
    project.assert_done(&far);
    let home = format!("bring it home: `qlaunch fetch {}/{FP8} --to DIR`", far["run"].as_str().unwrap());
    assert_eq!(far["next"][0], home.as_str(), "the next step is a command that works here");
    project.run(&["logs", "--candidate", FP8]).assert_code(0);
    project.run(&["fetch", far["run"].as_str().unwrap()]).assert_code(0);
    let near = {
        let mut command =
            project.command(&["submit", "--cluster", "local", "--format", "json", "sweep.yaml"]);
        command.env("QLAUNCH_THREADS", "1");
        finish(command).json()
    };
    let folder = |run: &serde_json::Value| {
        project.path("runs").join(run["run"].as_str().unwrap()).join(FP8).join("checkpoint")
    };
    let weights = |run: &serde_json::Value| -> Vec<(String, Vec<u8>)> {
        files_of(&folder(run)).into_iter().filter(|(name, _)| name.ends_with(".safetensors")).collect()
    };
    assert!(!weights(&far).is_empty());
    assert!(weights(&far) == weights(&near), "the same weights");
}

/// A project whose sweep takes its model from a Hub.
fn project_on_hub(cluster: &Cluster, environment: &str) -> (Project, Hub) {
    let hub = Hub::start();
    hub.add("models/tiny/llama", &tiny_llama());
    hub.gate("models/tiny/llama");
    let project = Project::on(cluster, Size::Small, environment);
    let path = project.path("sweep.yaml");
    let text = fs::read_to_string(&path).unwrap();
    let text = text.replace(&tiny_llama().display().to_string(), "tiny/llama");
    fs::write(&path, text).unwrap();
    (project, hub)
}

#[test]
#[ignore = "needs a cluster: tests/cluster/run.sh"]
fn a_model_of_the_hub_is_downloaded_on_the_login_host_and_the_token_stays_nowhere() {
    let cluster = Cluster::running();
    let (project, hub) = project_on_hub(&cluster, "");
    let environment = format!("[environment]\nHF_ENDPOINT = \"{}\"\n", hub.endpoint());
    project.write_profile("login", &environment);
    let submit = |more: &[&str]| {
        let arguments = [&["submit", "--cluster", "test", "sweep.yaml"], more].concat();
        let mut command = project.command(&arguments);
        command.env("HF_TOKEN", TOKEN);
        finish(command)
    };
    let plan = submit(&["--dry-run"]);
    plan.assert_code(0);
    assert!(plan.stdout.contains("of the Hub has to be downloaded there: 16"), "{}", plan.stdout);
    let ran = submit(&["--format", "json"]);
    project.assert_done(&ran.json());
    let workspace = project.workspace().unwrap();
    let snapshot = workspace.join("huggingface/hub/models--tiny--llama/snapshots").join(COMMIT);
    assert_eq!(
        fs::read(snapshot.join("model.safetensors")).unwrap(),
        fs::read(tiny_llama().join("model.safetensors")).unwrap()
    );
    for folder in [workspace.as_path(), &project.path("")] {
        let found = cluster.root(&format!("grep -r -l -a {TOKEN} {}", folder.display()));
        assert_eq!(found, "", "files with the token");
    }
    for call in [&plan, &ran] {
        assert!(!format!("{}{}", call.stdout, call.stderr).contains(TOKEN));
    }
    let asked = hub.questions().len();
    let again = submit(&["--dry-run"]);
    assert!(again.stdout.contains("of the Hub is there already"), "{}", again.stdout);
    assert_eq!(hub.questions().len(), asked);
}

#[test]
#[ignore = "needs a cluster: tests/cluster/run.sh"]
fn slow_where_the_login_host_reaches_no_hub_the_model_is_downloaded_here_and_sent() {
    let cluster = Cluster::running();
    let (project, hub) = project_on_hub(&cluster, "[environment]\nHF_ENDPOINT = \"http://127.0.0.1:9\"\n");
    let submit = |more: &[&str]| {
        let arguments = [&["submit", "--cluster", "test", "sweep.yaml"], more].concat();
        let mut command = project.command(&arguments);
        command.env("HF_TOKEN", TOKEN).env("HF_ENDPOINT", hub.endpoint());
        finish(command)
    };
    let plan = submit(&["--dry-run"]);
    plan.assert_code(0);
    assert!(plan.stdout.contains("of the Hub has to be downloaded here and sent: 16"), "{}", plan.stdout);
    assert!(plan.stdout.contains("the Hub at http://127.0.0.1:9 does not answer"), "{}", plan.stdout);
    project.assert_done(&submit(&["--format", "json"]).json());
    let again = submit(&["--dry-run"]);
    assert!(again.stdout.contains("of the Hub was sent before"), "{}", again.stdout);
}
