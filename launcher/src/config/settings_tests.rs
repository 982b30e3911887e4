//! Tests of the layers: which one wins, and what each value says about its origin.

use std::fs;

use super::*;

fn around(project: &Path) -> Surroundings {
    Surroundings { project: project.to_owned(), ..Surroundings::default() }
}

fn write(folder: &Path, name: &str, text: &str) {
    let path = folder.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

#[test]
fn without_any_file_the_built_in_profile_serves() {
    let folder = tempfile::tempdir().unwrap();
    let settings = Settings::load("local", &around(folder.path()), &Overrides::default()).unwrap();
    assert_eq!((settings.profile.kind, settings.profile.jobs), (Kind::Local, 1));
    assert_eq!(settings.runs, folder.path().join("runs"));
    assert_eq!(settings.origin("profile.jobs"), Some("built in"));
}

#[test]
fn each_layer_wins_over_the_ones_below_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let (user, project) = (folder.path().join("user"), folder.path().join("project"));
    write(&user, "clusters/local.toml", "jobs = 2\nattempts = 5\nthreads = 7\n");
    write(&project, "clusters/local.toml", "jobs = 3\n");
    write(
        &project,
        "qlaunch.toml",
        "runs = \"out\"\n[clusters.local]\njobs = 4\n[clusters.other]\njobs = 9\n",
    );
    let mut around = Surroundings { user: Some(user), ..around(&project) };
    let load =
        |around: &Surroundings, overrides: &Overrides| Settings::load("local", around, overrides).unwrap();

    let settings = load(&around, &Overrides::default());
    assert_eq!((settings.profile.jobs, settings.profile.attempts), (4, 5));
    assert_eq!(settings.runs, project.join("out"));
    assert!(settings.origin("profile.jobs").unwrap().ends_with("project/qlaunch.toml"));
    assert!(settings.origin("profile.attempts").unwrap().ends_with("user/clusters/local.toml"));

    around.variables.insert("QLAUNCH_JOBS".to_owned(), "6".to_owned());
    let flags = Overrides { threads: Some(1), ..Overrides::default() };
    let settings = load(&around, &flags);
    assert_eq!((settings.profile.jobs, settings.profile.threads), (6, Some(1)));
    assert_eq!(settings.origin("profile.jobs"), Some("environment variable QLAUNCH_JOBS"));
    assert_eq!(settings.origin("profile.threads"), Some("command line"));
}

#[test]
fn a_cluster_that_no_layer_knows_is_refused_with_the_one_that_was_meant() {
    let folder = tempfile::tempdir().unwrap();
    let refusal = Settings::load("locl", &around(folder.path()), &Overrides::default()).unwrap_err();
    assert_eq!(refusal.exit_code(), 3);
    assert_eq!(
        refusal.hint.as_deref(),
        Some("did you mean `local`; describe a new one in clusters/locl.toml")
    );
}

#[test]
fn an_unknown_setting_is_refused_with_its_file() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "clusters/local.toml", "job = 2\n");
    let refusal = Settings::load("local", &around(folder.path()), &Overrides::default()).unwrap_err();
    assert_eq!(refusal.message, "unknown setting `job`");
    assert_eq!(refusal.hint.as_deref(), Some("did you mean `jobs`?"));
    assert!(refusal.to_string().contains("clusters/local.toml"), "{refusal}");
}

#[test]
fn text_that_is_not_toml_is_refused_with_its_file() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "qlaunch.toml", "runs = [\n");
    let refusal = Settings::load("local", &around(folder.path()), &Overrides::default()).unwrap_err();
    assert!(refusal.message.starts_with("this is not TOML"), "{refusal}");
    assert!(refusal.to_string().contains("qlaunch.toml"), "{refusal}");
}

#[test]
fn a_profile_starts_from_the_built_in_one_of_its_kind() {
    let folder = tempfile::tempdir().unwrap();
    let text = "kind = \"slurm\"\njobs = 7\n[ssh]\nhost = \"login\"\n[slurm]\npartition = \"gpu\"\n";
    write(folder.path(), "clusters/mine.toml", text);
    let settings = Settings::load("mine", &around(folder.path()), &Overrides::default()).unwrap();
    let profile = &settings.profile;
    assert_eq!((profile.kind, profile.jobs, profile.template.as_str()), (Kind::Slurm, 7, "slurm.sh.j2"));
    assert_eq!(settings.origin("profile.template"), Some("built in"));
    assert!(settings.origin("profile.slurm.partition").unwrap().ends_with("clusters/mine.toml"));
    assert!(settings.all().any(|(key, value, _)| (key, value) == ("profile.ssh.host", "\"login\"")));
}

#[test]
fn a_host_behind_ssh_needs_a_name_and_a_kind_must_be_known() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "clusters/far.toml", "kind = \"ssh\"\n");
    write(folder.path(), "clusters/odd.toml", "kind = \"slrm\"\njobs = 1\nattempts = 1\ntemplate = \"x\"\n");
    let refusal =
        |name: &str| Settings::load(name, &around(folder.path()), &Overrides::default()).unwrap_err();
    assert_eq!(refusal("far").message, "a cluster of kind `ssh` needs the host");
    assert_eq!(refusal("odd").hint.as_deref(), Some("did you mean `slurm`?"));
}
