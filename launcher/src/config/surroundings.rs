//! What the process finds around it, gathered once at the edge so that nothing below reads the environment.

use std::collections::BTreeMap;
use std::path::PathBuf;

/// Folders and environment variables of the process.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// The working folder; `clusters/`, `templates/` and `qlaunch.toml` are looked up here.
    pub project: PathBuf,
    /// The home folder.
    pub home: Option<PathBuf>,
    /// `~/.config/qlaunch`, if there is a home.
    pub user: Option<PathBuf>,
    /// The executable of this process.
    pub executable: Option<PathBuf>,
    /// Variables whose names start with `QLAUNCH_`.
    pub variables: BTreeMap<String, String>,
    /// The folder of recipes that the command line names.
    pub recipes: Option<PathBuf>,
    /// All variables, for the secrets that profiles name.
    pub secrets: Secrets,
}

/// Values that nobody may read: they are never printed, not even by mistake.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secrets(BTreeMap<String, String>);

impl Secrets {
    /// The values of these names, with the names that have none.
    pub fn of(&self, names: &[String]) -> (Self, Vec<String>) {
        let found: BTreeMap<String, String> =
            names.iter().filter_map(|name| Some((name.clone(), self.0.get(name)?.clone()))).collect();
        let missing = names.iter().filter(|name| !found.contains_key(*name)).cloned().collect();
        (Self(found), missing)
    }

    /// Names with values.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secrets(…)")
    }
}

/// The environment variables that are read, with the setting that each one sets.
pub const VARIABLES: [(&str, &str); 8] = [
    ("QLAUNCH_WEBHOOK", "notify.webhook"),
    ("QLAUNCH_RUNS", "runs"),
    ("QLAUNCH_RECIPES", "recipes"),
    ("QLAUNCH_CLUSTERS_YAML", "clusters_yaml"),
    ("QLAUNCH_WORKER", "worker"),
    ("QLAUNCH_JOBS", "profile.jobs"),
    ("QLAUNCH_THREADS", "profile.threads"),
    ("QLAUNCH_RANKS", "profile.ranks"),
];

impl Surroundings {
    /// Reads them from the process.
    pub fn gather() -> Self {
        let home = std::env::var_os("HOME").map(PathBuf::from);
        let from_home = || home.as_ref().map(|home| home.join(".config"));
        let config = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from).or_else(from_home);
        let all: BTreeMap<String, String> = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        let ours = all.iter().filter(|(name, _)| name.starts_with("QLAUNCH_"));
        let variables = ours.map(|(name, value)| (name.clone(), value.clone())).collect();
        Self {
            project: std::env::current_dir().unwrap_or_default(),
            user: config.map(|config| config.join("qlaunch")),
            home,
            executable: std::env::current_exe().ok(),
            variables,
            recipes: None,
            secrets: Secrets(all),
        }
    }
}
