//! ModelOpt's `clusters.yaml` as the lowest layer of a cluster's profile. What it says that is not done here is told.

use std::path::{Path, PathBuf};

use qlaunch_shared::yaml::{Content, Document, Entry, Mapping, did_you_mean};
use qlaunch_shared::{Error, Result};

use super::Surroundings;
use super::chosen::{Chosen, chosen};
use super::embedded;
use super::layer::Layer;

/// Key of `qlaunch.toml` that names the file.
const KEY: &str = "clusters_yaml";
/// Variable that does.
const VARIABLE: &str = "QLAUNCH_CLUSTERS_YAML";
/// Keys of the file itself.
const OUTER: [&str; 2] = ["clusters", "default_cluster"];
/// Keys of a cluster.
const KEYS: [&str; 9] = [
    "login_node",
    "user",
    "ssh_key",
    "ssh_proxy",
    "workspace",
    "gpu_type",
    "container_image",
    "env_type",
    "slurm",
];
/// Keys of a cluster's `slurm`, with the settings that they are here.
const SLURM: [(&str, &str); 2] =
    [("default_account", "profile.slurm.account"), ("default_partition", "profile.slurm.partition")];

/// A `clusters.yaml` that was found.
#[derive(Debug, Clone, PartialEq)]
pub struct ClustersYaml {
    path: PathBuf,
    clusters: Mapping,
    /// What of the file as a whole is not done here.
    pub remarks: Vec<String>,
}

/// What the file says of one cluster.
#[derive(Debug, Clone)]
pub struct Described {
    /// The settings.
    pub layer: Layer,
    /// What of it is not done here, each with its file and line.
    pub remarks: Vec<String>,
}

impl ClustersYaml {
    /// The file that settings name, else the one that ModelOpt would take; none if there is none.
    ///
    /// # Errors
    /// A file that was named and is not there, or one that is not what it should be.
    pub fn find(around: &Surroundings) -> Result<Option<Self>> {
        let path = match chosen(KEY, VARIABLE, None, around)? {
            Some(Chosen { path, origin }) => {
                let path = around.project.join(path);
                if !path.is_file() {
                    return Err(Error::input(format!("there is no such file; it is set by {origin}"))
                        .at(path)
                        .key(KEY)
                        .hint("set it to ModelOpt's `clusters.yaml`, or unset it"));
                }
                path
            }
            None => match usual(around) {
                Some(path) => path,
                None => return Ok(None),
            },
        };
        let text =
            std::fs::read_to_string(&path).map_err(|error| Error::io("read the clusters", &path, &error))?;
        Self::read(&text, path).map(Some)
    }

    fn read(text: &str, path: PathBuf) -> Result<Self> {
        let root = Document::parse(text, &path)?.into_root();
        let mapping = |content: Content, what: &str| match content {
            Content::Map(mapping) => Ok(mapping),
            Content::Null => Ok(Mapping::default()),
            _ => Err(Error::input(format!("{what} is no mapping"))
                .at(&path)
                .hint("write `clusters:` with `NAME: {login_node: HOST, workspace: FOLDER}` below it")),
        };
        let mut outer = mapping(root.content, "the file")?;
        let mut remarks: Vec<String> = outer
            .iter()
            .filter(|entry| !OUTER.contains(&entry.key.as_str()))
            .map(|entry| unknown(entry, "", &OUTER))
            .collect();
        if let Some(entry) = outer.entry("default_cluster").filter(|entry| !entry.node.is_null()) {
            remarks.push(at(
                entry,
                "`default_cluster` is not used: without `--cluster NAME` a run is on this machine",
            ));
        }
        let clusters = outer.remove("clusters").map_or(Content::Null, |entry| entry.node.content);
        let clusters = mapping(clusters, "`clusters`")?;
        for entry in clusters.iter().filter(|entry| is_built_in(&entry.key)) {
            let message = format!(
                "the cluster `{0}` is not used: here `{0}` means the built-in one; give it another name",
                entry.key
            );
            remarks.push(at(entry, &message));
        }
        Ok(Self { path, clusters, remarks })
    }

    /// Names of its clusters.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.clusters.keys().filter(|name| !is_built_in(name))
    }

    /// What it says of a cluster; none if it does not know it.
    ///
    /// # Errors
    /// A value of another kind than its key wants, or a cluster without its login node.
    pub fn describe(&self, name: &str) -> Result<Option<Described>> {
        let Some(entry) = self.clusters.entry(name).filter(|_| !is_built_in(name)) else {
            return Ok(None);
        };
        let Content::Map(keys) = &entry.node.content else {
            return Err(entry
                .node
                .mark
                .refuse(format!("the cluster `{name}` is no mapping"))
                .hint("write `login_node`, `user` and `workspace` below it, or take it out"));
        };
        let mut remarks = unknown_keys(keys, &format!("clusters.{name}."), &KEYS);
        let mut layer = Layer::empty(self.path.display().to_string());
        let Some(host) = text(keys, "login_node")? else {
            return Err(entry
                .mark
                .refuse(format!("the cluster `{name}` has no `login_node`"))
                .key(format!("clusters.{name}.login_node"))
                .hint("set it to the host, or to its alias in ~/.ssh/config"));
        };
        layer = layer.with("profile.ssh.host", host);
        let plain = [
            ("user", "profile.ssh.user"),
            ("ssh_key", "profile.ssh.identity"),
            ("workspace", "profile.workspace"),
        ];
        for (key, setting) in plain {
            if let Some(value) = text(keys, key)? {
                layer = layer.with(setting, value);
            }
        }
        let slurm = keys.get("slurm").and_then(|node| node.mapping());
        let kind = kind(keys, slurm.is_some(), &mut remarks)?;
        layer = layer.with("profile.kind", kind);
        if let Some(slurm) = slurm {
            let known = SLURM.map(|(key, _)| key);
            remarks.extend(unknown_keys(slurm, &format!("clusters.{name}.slurm."), &known));
            for (key, setting) in SLURM {
                if let Some(value) = text(slurm, key)? {
                    layer = layer.with(setting, value);
                }
            }
        }
        if let Some(image) = text(keys, "container_image")? {
            match kind {
                "slurm" => layer = layer.with("profile.slurm.container", image),
                "docker" => layer = layer.with("profile.docker.image", image),
                _ => remarks.extend(not_done(
                    keys,
                    "container_image",
                    "hosts without a scheduler run the worker itself; for containers add `env_type: docker`",
                )),
            }
        }
        remarks.extend(not_done(
            keys,
            "ssh_proxy",
            &format!("write `ProxyCommand …` under `Host {name}` in ~/.ssh/config, where ssh finds it"),
        ));
        remarks.extend(not_done(
            keys,
            "gpu_type",
            "jobs ask for GPUs by `[slurm] gpus`, and by `gpu_type` as the cluster itself calls it",
        ));
        Ok(Some(Described { layer, remarks }))
    }
}

/// Where ModelOpt looks: the user's file, else the nearest one at or above the working folder.
fn usual(around: &Surroundings) -> Option<PathBuf> {
    let of_user = around.home.iter().map(|home| home.join(".config/modelopt/clusters.yaml"));
    let of_project = around.project.ancestors().flat_map(|folder| {
        [".agents", ".claude"].map(|inner: &str| folder.join(inner).join("clusters.yaml"))
    });
    of_user.chain(of_project).find(|path: &PathBuf| path.is_file())
}

/// What runs the cluster's jobs. ModelOpt asks the host itself where the file does not say; settings are read without a call.
fn kind(keys: &Mapping, has_slurm: bool, remarks: &mut Vec<String>) -> Result<&'static str> {
    let guess = if has_slurm { "slurm" } else { "ssh" };
    let Some(entry) = keys.entry("env_type").filter(|entry| !entry.node.is_null()) else {
        return Ok(guess);
    };
    match text(keys, "env_type")?.as_deref() {
        Some("slurm") => Ok("slurm"),
        Some("docker") => Ok("docker"),
        Some("bare") => Ok("ssh"),
        Some("auto") => {
            let message =
                format!("`env_type: auto` is taken for `{guess}`; write slurm, docker or bare to be sure");
            remarks.push(at(entry, &message));
            Ok(guess)
        }
        other => Err(entry
            .node
            .mark
            .refuse(format!("`{}` is no kind of environment", other.unwrap_or_default()))
            .key("env_type")
            .hint("write slurm, docker, bare or auto")),
    }
}

/// The text under a key; none where nothing is written.
fn text(keys: &Mapping, key: &str) -> Result<Option<String>> {
    let Some(node) = keys.get(key) else { return Ok(None) };
    match &node.content {
        Content::Null => Ok(None),
        Content::Text(text) => Ok(Some(text.clone())),
        Content::Number(number) => Ok(Some(number.to_string())),
        _ => Err(node
            .mark
            .refuse(format!("`{key}` is {}, expected text", node.kind()))
            .key(key)
            .hint("write its value behind the colon")),
    }
}

fn unknown_keys(keys: &Mapping, prefix: &str, known: &[&str]) -> Vec<String> {
    let strangers = keys.iter().filter(|entry| !known.contains(&entry.key.as_str()));
    strangers.map(|entry| unknown(entry, prefix, known)).collect()
}

fn unknown(entry: &Entry, prefix: &str, known: &[&str]) -> String {
    let message = format!("unknown key `{prefix}{}`; {}", entry.key, did_you_mean(&entry.key, known));
    at(entry, &message)
}

/// Says of a key, where it has a value, that nothing is done with it, and what to do instead.
fn not_done(keys: &Mapping, key: &str, instead: &str) -> Option<String> {
    let entry = keys.entry(key).filter(|entry| !entry.node.is_null())?;
    Some(at(entry, &format!("`{key}` is not used: {instead}")))
}

fn at(entry: &Entry, message: &str) -> String {
    let file: &Path = &entry.mark.source.file;
    format!("{}:{}: {message}", file.display(), entry.mark.line)
}

/// A file that another program made must not change what built-in names mean.
fn is_built_in(name: &str) -> bool {
    embedded::cluster(name).is_some()
}

#[cfg(test)]
#[path = "modelopt_tests.rs"]
mod tests;
