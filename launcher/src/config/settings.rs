//! Settings of one command: built-in < user < project < `QLAUNCH_*` < flags, each value with its origin.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use figment::Figment;
use figment::value::{Dict, Value};
use qlaunch_shared::yaml::did_you_mean;
use qlaunch_shared::{Error, Result};
use serde::Deserialize;

use super::Surroundings;
use super::embedded::{cluster, cluster_names};
use super::layer::Layer;
use super::modelopt::ClustersYaml;
use super::notify::Notify;
use super::profile::{Kind, ProcessProfile, Profile, SshProfile};
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
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Folder of all runs.
    pub runs: PathBuf,
    /// The worker binary, if it is not beside this program.
    pub worker: Option<PathBuf>,
    /// Folder of recipes that goes before all others; [`super::library`] looks there.
    pub recipes: Option<PathBuf>,
    /// Who is told what happens to runs.
    pub notify: Notify,
    /// Name of the cluster.
    pub cluster: String,
    /// How the cluster is used.
    pub profile: Profile,
    /// What a person should know about how the profile was read.
    pub remarks: Vec<String>,
    origins: Origins,
}

/// The settings as layers spell them.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    runs: PathBuf,
    worker: Option<PathBuf>,
    recipes: Option<PathBuf>,
    /// Read by [`ClustersYaml::find`], which all layers stand upon.
    #[serde(default, rename = "clusters_yaml")]
    _clusters_yaml: Option<PathBuf>,
    #[serde(default)]
    notify: Notify,
    profile: Profile,
}

impl Settings {
    /// Reads all layers for one cluster.
    ///
    /// # Errors
    /// A cluster that no layer knows, a file that cannot be read, an unknown key or a value of the wrong kind.
    pub fn load(cluster: &str, around: &Surroundings, overrides: &Overrides) -> Result<Self> {
        let (layers, remarks) = layers(cluster, around, overrides)?;
        if !layers.iter().any(|layer| layer.has("profile")) {
            return Err(unknown_cluster(cluster, around));
        }
        let figment = layers.into_iter().fold(Figment::new(), Figment::merge);
        let written: Written = figment.extract().map_err(|error| explain(&error))?;
        if written.profile.jobs == 0 || written.profile.attempts == 0 {
            return Err(Error::input("`jobs` and `attempts` of a cluster must be at least 1").at(cluster));
        }
        let origins = origins(&figment)?;
        check(&written.profile, &origins)?;
        Ok(Self {
            runs: absolute(written.runs, &around.project),
            worker: written.worker.map(|worker| absolute(worker, &around.project)),
            recipes: written.recipes.map(|recipes| absolute(recipes, &around.project)),
            notify: written.notify,
            cluster: cluster.to_owned(),
            profile: written.profile,
            remarks,
            origins,
        })
    }

    /// Where the value of a key came from: a file, a variable, the flags, or `built in`.
    pub fn origin(&self, key: &str) -> Option<&str> {
        self.origins.get(key).map(|(_, origin)| origin.as_str())
    }

    /// Every setting that some layer gives: dotted key, value, origin.
    pub fn all(&self) -> impl Iterator<Item = (&str, &str, &str)> {
        self.origins.iter().map(|(key, (value, origin))| (key.as_str(), value.as_str(), origin.as_str()))
    }
}

type Origins = BTreeMap<String, (String, String)>;

/// Value and origin of every leaf.
fn origins(figment: &Figment) -> Result<Origins> {
    fn walk(prefix: &str, values: &Dict, figment: &Figment, origins: &mut Origins) {
        for (key, value) in values {
            let path = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
            match value {
                Value::Dict(_, below) => walk(&path, below, figment, origins),
                leaf => {
                    let name = figment.get_metadata(leaf.tag()).map(|metadata| metadata.name.to_string());
                    let text = serde_json::to_string(leaf).unwrap_or_default();
                    origins.insert(path, (text, name.unwrap_or_default()));
                }
            }
        }
    }
    let mut found = Origins::new();
    let values: Dict = figment.extract().map_err(|error| explain(&error))?;
    walk("", &values, figment, &mut found);
    Ok(found)
}

/// What a kind of cluster cannot do without.
fn check(profile: &Profile, origins: &Origins) -> Result<()> {
    let missing = |message: &str, hint: &str| {
        let origin = origins.get("profile.kind").map(|(_, origin)| origin.clone()).unwrap_or_default();
        Err(Error::input(message).at(origin).key("profile.ssh").hint(hint))
    };
    match (profile.kind, &profile.ssh) {
        (Kind::Ssh, None) => missing(
            "a cluster of kind `ssh` needs the host",
            "add `[ssh]` with `host = \"NAME\"`, as you would give it to ssh",
        ),
        (Kind::Local, Some(_)) => {
            missing("a cluster of kind `local` has no host", "write `kind = \"ssh\"`, or take `[ssh]` away")
        }
        (Kind::Ssh, Some(ssh)) => check_hosts(ssh, &profile.process, origins),
        (kind, Some(ssh)) if !ssh.others.is_empty() => {
            let name = kind.name();
            missing(
                &format!("a cluster of kind `{name}` is reached by one host"),
                "take `ssh.others` away, or write `kind = \"ssh\"`",
            )
        }
        _ => Ok(()),
    }
}

/// Hosts without a scheduler, and what a job takes of them.
fn check_hosts(ssh: &SshProfile, process: &ProcessProfile, origins: &Origins) -> Result<()> {
    let fault = |key: &str, message: String, hint: &str| {
        let origin = origins.get(key).or_else(|| origins.get("profile.kind"));
        let origin = origin.map(|(_, origin)| origin.clone()).unwrap_or_default();
        Err(Error::input(message).at(origin).key(key).hint(hint))
    };
    let (there, wanted) = (ssh.hosts().count(), process.hosts as usize);
    let mut names: Vec<&str> = ssh.hosts().collect();
    names.sort_unstable();
    if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
        let message = format!("the host `{}` is named twice", pair[0]);
        return fault("profile.ssh.others", message, "name each host once");
    }
    if wanted == 0 || process.ranks_per_host == 0 || process.cpus == Some(0) {
        let message = "a job takes at least one host, one rank on it and one CPU".to_owned();
        return fault("profile.process", message, "take the 0 away");
    }
    if wanted > there {
        let message = format!("a job wants {wanted} hosts, and there are {there}");
        return fault(
            "profile.process.hosts",
            message,
            "name more in `ssh.others`, or lower `process.hosts`",
        );
    }
    Ok(())
}

/// The lowest layer first, and what a person should know about them.
fn layers(name: &str, around: &Surroundings, overrides: &Overrides) -> Result<(Vec<Layer>, Vec<String>)> {
    let mut layers = Vec::new();
    let mut remarks = Vec::new();
    // What is built in needs no file of another program, and must work though it is broken.
    let theirs = if cluster(name).is_some() { None } else { ClustersYaml::find(around)? };
    if let Some(described) = theirs.map(|theirs| theirs.describe(name)).transpose()?.flatten() {
        layers.push(described.layer);
        remarks = described.remarks;
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
    let kind = layers.iter().rev().find_map(|layer| layer.text("profile", "kind"));
    // A profile starts from the built-in one of its name, else of its kind.
    let mut base = vec![Layer::empty("built in").with("runs", "runs")];
    if let Some(text) = cluster(name).or_else(|| cluster(&kind?)) {
        base.push(Layer::toml("built in", text)?.below("profile"));
    }
    base.extend(layers);
    Ok((base, remarks))
}

fn number_or_text(value: &str) -> Value {
    value.parse::<u64>().map_or_else(|_| Value::from(value), Value::from)
}

fn absolute(path: PathBuf, project: &Path) -> PathBuf {
    project.join(path)
}

/// Names of all clusters that have a profile of their own: built in, ModelOpt's, the user's, the project's.
pub fn known_clusters(around: &Surroundings, theirs: Option<&ClustersYaml>) -> Vec<String> {
    let mut known: Vec<String> = cluster_names().into_iter().map(str::to_owned).collect();
    known.extend(theirs.into_iter().flat_map(ClustersYaml::names).map(str::to_owned));
    let folders = [around.user.as_deref(), Some(around.project.as_path())];
    for folder in folders.into_iter().flatten() {
        let files = std::fs::read_dir(folder.join("clusters")).into_iter().flatten().flatten();
        let names =
            files.map(|file| file.path()).filter(|path| path.extension().is_some_and(|end| end == "toml"));
        known.extend(names.filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned())));
    }
    known.sort();
    known.dedup();
    known
}

fn unknown_cluster(name: &str, around: &Surroundings) -> Error {
    // A file that cannot be read was refused before.
    let theirs = ClustersYaml::find(around).ok().flatten();
    let known = known_clusters(around, theirs.as_ref());
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
        figment::error::Kind::UnknownVariant(word, _) => {
            format!("`{word}` is none of the values that it may have")
        }
        kind => kind.to_string(),
    });
    if let figment::error::Kind::UnknownField(field, known)
    | figment::error::Kind::UnknownVariant(field, known) = &error.kind
    {
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
