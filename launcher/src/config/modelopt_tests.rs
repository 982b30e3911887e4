//! Tests of what is taken from ModelOpt's `clusters.yaml`, where it is looked for, and what is said about the rest.

use std::fs;

use super::*;
use crate::config::{Kind, Overrides, Settings};

const TEXT: &str = "\
clusters:
  lab:
    login_node: lab.example.net
    user: ada
    ssh_key: ~/.ssh/lab
    workspace: /scratch/ada
    gpu_type: H200
    container_image: lab/cuda:13
    slurm:
      default_account: optics
      default_partition: long
  bench:
    login_node: bench
    workspace: /data/ada
    env_type: bare
default_cluster: lab
";

fn around(folder: &Path) -> Surroundings {
    let (home, project) = (folder.join("home"), folder.join("work/project"));
    fs::create_dir_all(&project).unwrap();
    Surroundings { project, home: Some(home), ..Surroundings::default() }
}

fn write(path: PathBuf, text: &str) -> PathBuf {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, text).unwrap();
    path
}

fn load(name: &str, around: &Surroundings) -> Settings {
    Settings::load(name, around, &Overrides::default()).unwrap()
}

#[test]
fn a_cluster_of_modelopts_file_is_a_profile_whose_values_say_where_they_are_from() {
    let work = tempfile::tempdir().unwrap();
    let around = around(work.path());
    let file = write(work.path().join("home/.config/modelopt/clusters.yaml"), TEXT);
    let settings = load("lab", &around);
    let profile = &settings.profile;
    let ssh = profile.ssh.as_ref().unwrap();
    assert_eq!((profile.kind, profile.template.as_str()), (Kind::Slurm, "slurm.sh.j2"));
    assert_eq!((ssh.host.as_str(), ssh.user.as_deref()), ("lab.example.net", Some("ada")));
    assert_eq!(ssh.identity.as_deref(), Some(Path::new("~/.ssh/lab")));
    assert_eq!(profile.workspace.as_deref(), Some("/scratch/ada"));
    assert_eq!(profile.slurm.account.as_deref(), Some("optics"));
    assert_eq!(profile.slurm.partition.as_deref(), Some("long"));
    assert_eq!(profile.slurm.container.as_deref(), Some("lab/cuda:13"));
    assert_eq!(settings.origin("profile.slurm.partition"), file.to_str());
    assert_eq!(settings.origin("profile.jobs"), Some("built in"));
    assert_eq!(load("bench", &around).profile.kind, Kind::Ssh);
    // A profile of one's own goes before it, key by key.
    write(around.project.join("clusters/lab.toml"), "[slurm]\npartition = \"short\"\n");
    let settings = load("lab", &around);
    assert_eq!(settings.profile.slurm.partition.as_deref(), Some("short"));
    assert_eq!(settings.profile.slurm.account.as_deref(), Some("optics"));
    assert!(settings.origin("profile.slurm.partition").unwrap().ends_with("clusters/lab.toml"));
}

#[test]
fn what_is_not_known_or_not_done_is_told_with_file_line_and_key() {
    let work = tempfile::tempdir().unwrap();
    let around = around(work.path());
    let text = "clusters:\n  lab:\n    login_node: lab\n    ssh_proxy: nc %h %p\n    gpu_type: H200\n    acount: x\n\
                \x20   container_image: a\n    env_type: auto\n  local:\n    login_node: x\ncluster: {}\ndefault_cluster: lab\n";
    let file = write(work.path().join("home/.config/modelopt/clusters.yaml"), text);
    let found = ClustersYaml::find(&around).unwrap().unwrap();
    let starts = |line: usize, message: &str| format!("{}:{line}: {message}", file.display());
    let all = |remarks: &[String], expected: &[(usize, &str)]| {
        assert_eq!(remarks.len(), expected.len(), "{remarks:#?}");
        for (remark, (line, message)) in remarks.iter().zip(expected) {
            assert!(remark.starts_with(&starts(*line, message)), "{remark}");
        }
    };
    all(
        &found.remarks,
        &[
            (11, "unknown key `cluster`; did you mean `clusters`?"),
            (12, "`default_cluster` is not used"),
            (9, "the cluster `local` is not used"),
        ],
    );
    let settings = load("lab", &around);
    all(
        &settings.remarks,
        &[
            (6, "unknown key `clusters.lab.acount`"),
            (8, "`env_type: auto` is taken for `ssh`"),
            (7, "`container_image` is not used"),
            (4, "`ssh_proxy` is not used: write `ProxyCommand …` under `Host lab`"),
            (5, "`gpu_type` is not used"),
        ],
    );
    assert_eq!(found.names().collect::<Vec<_>>(), ["lab"]);
    assert_eq!(load("local", &around).profile.kind, Kind::Local);
}

#[test]
fn the_file_is_looked_for_where_modelopt_looks_and_settings_go_before() {
    let work = tempfile::tempdir().unwrap();
    let mut around = around(work.path());
    let user = |around: &Surroundings| load("lab", around).profile.ssh.unwrap().user.unwrap();
    let named = |user: &str| format!("clusters: {{lab: {{login_node: lab, user: {user}}}}}\n");
    let refused = Settings::load("lab", &around, &Overrides::default()).unwrap_err();
    assert_eq!(refused.message, "there is no cluster `lab`");
    write(work.path().join("work/.claude/clusters.yaml"), &named("above"));
    assert_eq!(user(&around), "above");
    write(around.project.join(".agents/clusters.yaml"), &named("project"));
    assert_eq!(user(&around), "project");
    write(work.path().join("home/.config/modelopt/clusters.yaml"), &named("home"));
    assert_eq!(user(&around), "home");
    write(around.project.join("lab.yaml"), &named("set"));
    write(around.project.join("qlaunch.toml"), "clusters_yaml = \"lab.yaml\"\n");
    assert_eq!(user(&around), "set");
    around.variables.insert(
        VARIABLE.to_owned(),
        write(work.path().join("v.yaml"), &named("variable")).display().to_string(),
    );
    assert_eq!(user(&around), "variable");
    around.variables.insert(VARIABLE.to_owned(), "gone.yaml".to_owned());
    let refused = ClustersYaml::find(&around).unwrap_err();
    assert_eq!(
        refused.message,
        "there is no such file; it is set by the environment variable QLAUNCH_CLUSTERS_YAML"
    );
}

#[test]
fn a_file_that_is_not_what_it_should_be_is_refused_with_its_line() {
    let read = |text: &str| ClustersYaml::read(text, PathBuf::from("clusters.yaml"));
    let refused = |text: &str| read(text).unwrap().describe("lab").unwrap_err();
    let error = refused("clusters:\n  lab:\n    user: ada\n");
    assert_eq!(
        (error.place.line, error.message.as_str()),
        (Some(2), "the cluster `lab` has no `login_node`")
    );
    let error = refused("clusters:\n  lab:\n    login_node: [a]\n");
    assert_eq!(
        (error.place.line, error.message.as_str()),
        (Some(3), "`login_node` is a list, expected text")
    );
    let error = refused("clusters:\n  lab: {login_node: a, env_type: kubernetes}\n");
    assert_eq!((error.exit_code(), error.message.as_str()), (3, "`kubernetes` is no kind of environment"));
    assert!(read("clusters: [lab]\n").unwrap_err().hint.is_some());
    assert!(read("clusters: {lab: {login_node: x}\n").unwrap_err().place.line.is_some());
    assert!(read("clusters:\n").unwrap().describe("lab").unwrap().is_none());
}
