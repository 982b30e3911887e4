//! One layer of settings with a name, so that every value can say where it came from.

use std::path::Path;

use figment::providers::{Format, Toml};
use figment::value::{Dict, Map, Value};
use figment::{Metadata, Profile, Provider};
use qlaunch_shared::{Error, Result};

/// Values from one place.
#[derive(Debug, Clone)]
pub struct Layer {
    name: String,
    values: Dict,
}

impl Layer {
    /// A layer without values.
    pub fn empty(name: impl Into<String>) -> Self {
        Self { name: name.into(), values: Dict::new() }
    }

    /// A layer from the text of a TOML file.
    ///
    /// # Errors
    /// A text that is not TOML.
    pub fn toml(name: impl Into<String>, text: &str) -> Result<Self> {
        let name = name.into();
        let values = Toml::string(text)
            .data()
            .map_err(|error| Error::input(format!("this is not TOML: {error}")).at(&name))?
            .remove(&Profile::Default)
            .unwrap_or_default();
        Ok(Self { name, values })
    }

    /// A layer from a TOML file; none if there is no such file.
    ///
    /// # Errors
    /// A file that cannot be read or is not TOML.
    pub fn file(path: &Path) -> Result<Option<Self>> {
        match std::fs::read_to_string(path) {
            Ok(text) => Self::toml(path.display().to_string(), &text).map(Some),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io("read the settings", path, &error)),
        }
    }

    /// Adds a value under a dotted path.
    #[must_use]
    pub fn with(mut self, path: &str, value: impl Into<Value>) -> Self {
        insert(&mut self.values, path, value.into());
        self
    }

    /// Puts everything below one key: a cluster's file speaks of the profile only.
    #[must_use]
    pub fn below(self, key: &str) -> Self {
        let values = Dict::from([(key.to_owned(), Value::from(self.values))]);
        Self { name: self.name, values }
    }

    /// Replaces the table `clusters` by the table of one cluster, as `profile`.
    #[must_use]
    pub fn of_cluster(mut self, cluster: &str) -> Self {
        if let Some(Value::Dict(_, mut clusters)) = self.values.remove("clusters")
            && let Some(profile) = clusters.remove(cluster)
        {
            self.values.insert("profile".to_owned(), profile);
        }
        self
    }

    /// A text below a table.
    pub fn text(&self, table: &str, key: &str) -> Option<String> {
        match self.values.get(table)? {
            Value::Dict(_, below) => below.get(key)?.as_str().map(str::to_owned),
            _ => None,
        }
    }

    /// Whether it speaks of the key.
    pub fn has(&self, key: &str) -> bool {
        self.values.contains_key(key)
    }
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.name.clone())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Map::from([(Profile::Default, self.values.clone())]))
    }
}

fn insert(values: &mut Dict, path: &str, value: Value) {
    match path.split_once('.') {
        None => {
            values.insert(path.to_owned(), value);
        }
        Some((outer, inner)) => {
            let mut below = match values.remove(outer) {
                Some(Value::Dict(_, below)) => below,
                _ => Dict::new(),
            };
            insert(&mut below, inner, value);
            values.insert(outer.to_owned(), Value::from(below));
        }
    }
}
