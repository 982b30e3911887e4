//! Settings of one command: built-in < user < project < `QLAUNCH_*` < flags, each value with its origin.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use figment::Figment;
use figment::value::Value;
use qlaunch_shared::yaml::did_you_mean;
use qlaunch_shared::{Error, Result};
use serde::{Deserialize, Serialize};

use super::Surroundings;
use super::embedded::{cluster, cluster_names};
use super::layer::Layer;
use super::surroundings::VARIABLES;

/// What flags say; a flag that was not given says nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overrides {
    /// `--runs`.
    pub runs: Option<PathBuf>,
    /// `--threads`.
    pub threads: Option<usize>,
    /// `--ranks`.
    pub ranks: Option<usize>,
}

/// The settings of one command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Folder of all runs.
    pub runs: PathBuf,
    /// The worker binary, if it is not beside this program.
    pub worker: Option<PathBuf>,
    /// Folder of recipes that goes before all others; [`super::library`] looks there.
    pub recipes: Option<PathBuf>,
    /// Name of the cluster.
    pub cluster: String,
    /// How the cluster is used.
    pub profile: Profile,
    origins: BTreeMap<String, String>,
}

/// How a cluster is used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// What sort of cluster it is: which backend runs its jobs.
    pub kind: String,
    /// Jobs at a time.
    pub jobs: usize,
    /// Tries of a job whose process dies without an outcome.
    pub attempts: u32,
    /// Name of the job template.
    pub template: String,
    /// CPU threads of each job, if neither sweep nor flag says; all cores if none does.
    #[serde(default)]
    pub threads: Option<usize>,
    /// Processes that share the layers of each job's model, if neither sweep nor flag says; one if none does.
    #[serde(default)]
    pub ranks: Option<usize>,
}

/// The settings as layers spell them.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    runs: PathBuf,
    worker: Option<PathBuf>,
    recipes: Option<PathBuf>,
    profile: Profile,
}

const KEYS: [&str; 10] = [
    "runs",
    "worker",
    "recipes",
    "clusters",
    "profile.kind",
    "profile.jobs",
    "profile.attempts",
    "profile.template",
    "profile.threads",
    "profile.ranks",
];

impl Settings {
    /// Reads all layers for one cluster.
    ///
    /// # Errors
    /// A cluster that no layer knows, a file that cannot be read, an unknown key or a value of the wrong kind.
    pub fn load(cluster: &str, around: &Surroundings, overrides: &Overrides) -> Result<Self> {
        let layers = layers(cluster, around, overrides)?;
        if !layers.iter().any(|layer| layer.has("profile")) {
            return Err(unknown_cluster(cluster, around));
        }
        let figment = layers.into_iter().fold(Figment::new(), Figment::merge);
        let written: Written = figment.extract().map_err(|error| explain(&error))?;
        if written.profile.jobs == 0 || written.profile.attempts == 0 {
            return Err(Error::input("`jobs` and `attempts` of a cluster must be at least 1").at(cluster));
        }
        let origin = |key: &str| Some((key.to_owned(), figment.find_metadata(key)?.name.to_string()));
        let origins = KEYS.iter().filter_map(|key| origin(key)).collect();
        Ok(Self {
            runs: absolute(written.runs, &around.project),
            worker: written.worker.map(|worker| absolute(worker, &around.project)),
            recipes: written.recipes.map(|recipes| absolute(recipes, &around.project)),
            cluster: cluster.to_owned(),
            profile: written.profile,
            origins,
        })
    }

    /// Where the value of a key came from: a file, a variable, the flags, or `built in`.
    pub fn origin(&self, key: &str) -> Option<&str> {
        self.origins.get(key).map(String::as_str)
    }
}

/// The lowest layer first.
fn layers(name: &str, around: &Surroundings, overrides: &Overrides) -> Result<Vec<Layer>> {
    let mut layers = vec![Layer::empty("built in").with("runs", "runs")];
    if let Some(text) = cluster(name) {
        layers.push(Layer::toml("built in", text)?.below("profile"));
    }
    let folders = [around.user.as_deref(), Some(around.project.as_path())];
    for folder in folders.into_iter().flatten() {
        let profile = Layer::file(&folder.join("clusters").join(format!("{name}.toml")))?;
        layers.extend(profile.map(|layer| layer.below("profile")));
        layers.extend(Layer::file(&folder.join("qlaunch.toml"))?.map(|layer| layer.of_cluster(name)));
    }
    for (variable, key) in VARIABLES {
        if let Some(value) = around.variables.get(variable) {
            let origin = format!("environment variable {variable}");
            layers.push(Layer::empty(origin).with(key, number_or_text(value)));
        }
    }
    let mut flags = Layer::empty("command line");
    if let Some(runs) = &overrides.runs {
        flags = flags.with("runs", runs.display().to_string());
    }
    if let Some(recipes) = &around.recipes {
        flags = flags.with("recipes", recipes.display().to_string());
    }
    for (key, value) in [("profile.threads", overrides.threads), ("profile.ranks", overrides.ranks)] {
        if let Some(value) = value {
            flags = flags.with(key, value);
        }
    }
    layers.push(flags);
    Ok(layers)
}

fn number_or_text(value: &str) -> Value {
    value.parse::<u64>().map_or_else(|_| Value::from(value), Value::from)
}

fn absolute(path: PathBuf, project: &Path) -> PathBuf {
    project.join(path)
}

fn unknown_cluster(name: &str, around: &Surroundings) -> Error {
    let mut known: Vec<String> = cluster_names().into_iter().map(str::to_owned).collect();
    let folders = [around.user.as_deref(), Some(around.project.as_path())];
    for folder in folders.into_iter().flatten() {
        let files = std::fs::read_dir(folder.join("clusters")).into_iter().flatten().flatten();
        let names =
            files.map(|file| file.path()).filter(|path| path.extension().is_some_and(|end| end == "toml"));
        known.extend(names.filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned())));
    }
    known.sort();
    known.dedup();
    let known: Vec<&str> = known.iter().map(String::as_str).collect();
    Error::input(format!("there is no cluster `{name}`")).hint(format!(
        "{}; describe a new one in clusters/{name}.toml",
        did_you_mean(name, &known).trim_end_matches('?')
    ))
}

/// A figment error in our words: where the value came from, and the key that was meant.
fn explain(error: &figment::Error) -> Error {
    let key = error.path.join(".");
    let mut failure = Error::input(match &error.kind {
        figment::error::Kind::UnknownField(field, _) => format!("unknown setting `{field}`"),
        figment::error::Kind::MissingField(field) => format!("the setting `{field}` is missing"),
        kind => kind.to_string(),
    });
    if let figment::error::Kind::UnknownField(field, known) = &error.kind {
        failure = failure.hint(did_you_mean(field, known));
    }
    if let Some(metadata) = &error.metadata {
        failure = failure.at(metadata.name.as_ref());
    }
    if key.is_empty() { failure } else { failure.key(key) }
}

#[cfg(test)]
#[path = "settings_tests.rs"]
mod tests;
