//! A YAML tree in which every node remembers the file, line and column it was written at.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::{Map, Number, Value};

use crate::Error;
use crate::error::Place;

/// Where a tree was read from.
#[derive(Debug, PartialEq, Eq)]
pub struct Source {
    /// Path as a person would write it; `<library>/…` for files embedded in the program.
    pub file: PathBuf,
    /// Whether it belongs to a library of reusable files rather than being somebody's own file.
    pub library: bool,
}

/// The place of a node; lines and columns count from 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// The file.
    pub source: Arc<Source>,
    /// Line in the file.
    pub line: usize,
    /// Column in the line.
    pub column: usize,
}

impl Mark {
    /// Names this place in an error.
    #[must_use]
    pub fn locate(&self, error: Error) -> Error {
        error.at(&self.source.file).line(self.line, self.column)
    }

    /// The place as errors have it.
    pub fn place(&self) -> Place {
        let file = Some(self.source.file.clone());
        Place { file, line: Some(self.line), column: Some(self.column), key: None }
    }

    /// An input error at this place.
    pub fn refuse(&self, message: impl Into<String>) -> Error {
        self.locate(Error::input(message))
    }
}

/// A value with its place.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// What was written.
    pub content: Content,
    /// Where it was written.
    pub mark: Mark,
}

/// What a node holds.
#[derive(Debug, Clone, PartialEq)]
pub enum Content {
    /// `null`, `~` or nothing at all.
    Null,
    /// `true`, `yes`, `on` and their opposites.
    Bool(bool),
    /// An integer of 64 bits or a finite float.
    Number(Number),
    /// Anything else that is not a collection.
    Text(String),
    /// A sequence.
    List(Vec<Node>),
    /// A mapping with text keys, in the order of the file.
    Map(Mapping),
}

impl Node {
    /// What sort of thing it is, as a person would call it.
    pub const fn kind(&self) -> &'static str {
        match &self.content {
            Content::Null => "null",
            Content::Bool(_) => "a boolean",
            Content::Number(_) => "a number",
            Content::Text(_) => "text",
            Content::List(_) => "a list",
            Content::Map(_) => "a mapping",
        }
    }

    /// Its text, if it is text.
    pub fn text(&self) -> Option<&str> {
        match &self.content {
            Content::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Its entries, if it is a mapping.
    pub const fn mapping(&self) -> Option<&Mapping> {
        match &self.content {
            Content::Map(mapping) => Some(mapping),
            _ => None,
        }
    }

    /// Its elements, if it is a list.
    pub fn list(&self) -> Option<&[Node]> {
        match &self.content {
            Content::List(list) => Some(list),
            _ => None,
        }
    }

    /// Whether nothing was written.
    pub const fn is_null(&self) -> bool {
        matches!(self.content, Content::Null)
    }

    /// The child under a key or an index written as text.
    pub fn child(&self, step: &str) -> Option<&Node> {
        match &self.content {
            Content::Map(mapping) => mapping.get(step),
            Content::List(list) => step.parse::<usize>().ok().and_then(|index| list.get(index)),
            _ => None,
        }
    }

    /// The same tree without its places.
    pub fn to_value(&self) -> Value {
        match &self.content {
            Content::Null => Value::Null,
            Content::Bool(flag) => Value::Bool(*flag),
            Content::Number(number) => Value::Number(number.clone()),
            Content::Text(text) => Value::String(text.clone()),
            Content::List(list) => Value::Array(list.iter().map(Self::to_value).collect()),
            Content::Map(mapping) => {
                let fields = mapping.iter().map(|entry| (entry.key.clone(), entry.node.to_value()));
                Value::Object(fields.collect::<Map<_, _>>())
            }
        }
    }
}

/// One `key: value` of a mapping.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The key; integers and booleans as JSON writes them.
    pub key: String,
    /// Place of the key.
    pub mark: Mark,
    /// The value.
    pub node: Node,
}

/// The entries of a mapping in the order of the file; keys are unique.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Mapping {
    entries: Vec<Entry>,
}

impl Mapping {
    /// The value under a key.
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.entry(key).map(|entry| &entry.node)
    }

    /// The value under a key, to be changed.
    pub fn get_mut(&mut self, key: &str) -> Option<&mut Node> {
        self.entries.iter_mut().find(|entry| entry.key == key).map(|entry| &mut entry.node)
    }

    /// Key, place and value.
    pub fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.key == key)
    }

    /// Adds an entry whose key is known to be new.
    pub(super) fn push(&mut self, entry: Entry) {
        self.entries.push(entry);
    }

    /// Takes out a key, keeping the order of the others.
    pub fn remove(&mut self, key: &str) -> Option<Entry> {
        let position = self.entries.iter().position(|entry| entry.key == key)?;
        Some(self.entries.remove(position))
    }

    /// Shallow update as of Python's `dict.update`: later values win, first positions stay.
    pub fn update(&mut self, other: Self) {
        let places: HashMap<String, usize> =
            self.entries.iter().enumerate().map(|(place, entry)| (entry.key.clone(), place)).collect();
        for entry in other.entries {
            match places.get(&entry.key) {
                Some(&place) => self.entries[place] = entry,
                None => self.entries.push(entry),
            }
        }
    }

    /// All entries in order.
    pub fn iter(&self) -> std::slice::Iter<'_, Entry> {
        self.entries.iter()
    }

    /// The keys in order.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().map(|entry| entry.key.as_str())
    }

    /// All entries in order, to be changed; keys must stay unique.
    pub(crate) fn iter_mut(&mut self) -> std::slice::IterMut<'_, Entry> {
        self.entries.iter_mut()
    }

    /// How many entries there are.
    pub const fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

impl IntoIterator for Mapping {
    type Item = Entry;
    type IntoIter = std::vec::IntoIter<Entry>;

    fn into_iter(self) -> Self::IntoIter {
        self.entries.into_iter()
    }
}

/// Collects entries; of equal keys the later value wins.
impl FromIterator<Entry> for Mapping {
    fn from_iter<I: IntoIterator<Item = Entry>>(entries: I) -> Self {
        let mut places: HashMap<String, usize> = HashMap::new();
        let mut mapping = Self::default();
        for entry in entries {
            match places.get(&entry.key) {
                Some(&place) => mapping.entries[place] = entry,
                None => {
                    places.insert(entry.key.clone(), mapping.entries.len());
                    mapping.entries.push(entry);
                }
            }
        }
        mapping
    }
}
