//! From resolved trees to typed configurations, with the line of whatever is wrong.

use super::body::Metadata;
use super::config::{ConfigForm, QuantizeConfig};
use super::entry::{EntryForm, EntryOrigin, QuantizerCfg, QuantizerEntry};
use super::schema::Schema;
use super::sections;
use crate::numerics::field::Field;
use crate::numerics::{Fault, QuantizerAttributes};
use crate::yaml::{Content, Node, did_you_mean, from_node};
use crate::{Error, Result};

/// Checks that a snippet is of the shape that its comment names.
///
/// # Errors
/// The first thing that does not fit.
pub(super) fn check(node: &Node, schema: Schema) -> Result<()> {
    match schema {
        Schema::Attributes => attributes(node).map(drop),
        Schema::Entry => Reader::default().entry(node).map(drop),
        Schema::Entries => Reader::default().entries(node).map(drop),
        Schema::Config => Reader::default().config(node).map(drop),
        Schema::Patterns => from_node::<Vec<String>>(node).map(drop),
        Schema::Metadata => from_node::<Metadata>(node).map(drop),
        Schema::Recipe(_) => sections::recipe(node, &mut Reader::default()).map(drop),
        Schema::Opaque => mapping(node, "this snippet").map(drop),
        _ => Ok(()),
    }
}

/// Reads typed values and collects what a person should know about them.
#[derive(Debug, Default)]
pub(super) struct Reader {
    /// Old spellings that were understood.
    pub notes: Vec<String>,
}

impl Reader {
    /// A quantizer configuration.
    ///
    /// # Errors
    /// Anything that ModelOpt's `QuantizeConfig` would refuse, at its line.
    pub fn config(&mut self, node: &Node) -> Result<QuantizeConfig> {
        const KNOWN: [&str; 3] = ["algorithm", "effective_bits", "quant_cfg"];
        let fields = mapping(node, "a quantizer configuration")?;
        known_keys(node, &KNOWN)?;
        let mut form = ConfigForm::default();
        if let Some(entries) = fields.get("quant_cfg") {
            form.quant_cfg = Some(self.entries(entries).map_err(|error| within(error, "quant_cfg"))?);
        }
        if let Some(algorithm) = fields.get("algorithm") {
            form.algorithm = match &algorithm.content {
                Content::Null => Field::Null,
                Content::Text(_) | Content::Map(_) | Content::List(_) => Field::Set(algorithm.to_value()),
                _ => {
                    let message =
                        format!("`algorithm` is a name, a mapping, a list or null, not {}", algorithm.kind());
                    return Err(algorithm
                        .mark
                        .refuse(message)
                        .key("algorithm")
                        .hint("write `algorithm: max`"));
                }
            };
        }
        if let Some(bits) = fields.get("effective_bits") {
            form.effective_bits = from_node(bits).map_err(|error| within(error, "effective_bits"))?;
        }
        let at = fields.get("effective_bits").unwrap_or(node);
        QuantizeConfig::try_from(form).map_err(|message| at.mark.refuse(message).key("effective_bits"))
    }

    /// The entries of a configuration: a list, or the mapping of older releases.
    ///
    /// # Errors
    /// Anything that ModelOpt's `QuantizerCfgEntry` would refuse, at its line.
    pub fn entries(&mut self, node: &Node) -> Result<Vec<QuantizerEntry>> {
        let mut entries = Vec::new();
        match &node.content {
            Content::List(list) => {
                for (index, element) in list.iter().enumerate() {
                    let read = self.listed(element).map_err(|error| within(error, &index.to_string()))?;
                    entries.extend(read);
                }
            }
            Content::Map(mapping) => {
                for entry in mapping.iter() {
                    self.note_legacy(node);
                    let read =
                        self.legacy(&entry.key, &entry.node).map_err(|error| within(error, &entry.key))?;
                    entries.extend(read);
                }
            }
            _ => {
                let message = format!("`quant_cfg` is a list of entries, not {}", node.kind());
                return Err(node
                    .mark
                    .refuse(message)
                    .hint("write lines like `- {quantizer_name: '*', enable: false}`"));
            }
        }
        Ok(entries)
    }

    /// One element of the list, in its own or an older form.
    fn listed(&mut self, node: &Node) -> Result<Vec<QuantizerEntry>> {
        let fields = mapping(node, "a quantizer entry")?;
        let is_legacy = fields.get("quantizer_name").is_none()
            && !fields.keys().any(|key| matches!(key, "cfg" | "enable" | "parent_class"))
            && (fields.len() == 1 || fields.keys().any(|key| key.starts_with("nn.")))
            && !fields.is_empty()
            && !looks_like_a_typing_error(fields.keys());
        if !is_legacy {
            return self.entry(node).map(|entry| vec![entry]);
        }
        self.note_legacy(node);
        let mut entries = Vec::new();
        for entry in fields.iter() {
            entries.extend(self.legacy(&entry.key, &entry.node)?);
        }
        Ok(entries)
    }

    fn note_legacy(&mut self, node: &Node) {
        let note = format!(
            "{}:{}: `quant_cfg` as a mapping of patterns is the form of older releases; \
             a list of `quantizer_name` entries is today's",
            node.mark.source.file.display(),
            node.mark.line
        );
        if !self.notes.iter().any(|known| known.contains("of older releases")) {
            self.notes.push(note);
        }
    }

    /// `pattern: attributes`, `nn.Class: {pattern: attributes}` and `default: attributes` of older releases.
    fn legacy(&mut self, key: &str, value: &Node) -> Result<Vec<QuantizerEntry>> {
        if !key.starts_with("nn.") {
            let name = if key == "default" { "*" } else { key };
            return Ok(vec![legacy_entry(name, Field::Unset, value)?]);
        }
        let scoped = mapping(value, "a module class of the older form")?;
        let class = || Field::Set(key.to_owned());
        scoped.iter().map(|entry| legacy_entry(&entry.key, class(), &entry.node)).collect()
    }

    /// One entry in today's form.
    ///
    /// # Errors
    /// An unknown or missing key, wrong attributes, or an entry that changes nothing.
    pub fn entry(&mut self, node: &Node) -> Result<QuantizerEntry> {
        const KNOWN: [&str; 4] = ["quantizer_name", "parent_class", "cfg", "enable"];
        let fields = mapping(node, "a quantizer entry")?;
        known_keys(node, &KNOWN)?;
        let Some(name) = fields.get("quantizer_name") else {
            return Err(node
                .mark
                .refuse("`quantizer_name` is missing")
                .key("quantizer_name")
                .hint("name the quantizers, like `quantizer_name: '*weight_quantizer'`"));
        };
        let part = |key: &'static str| move |error| within(error, key);
        let form = EntryForm {
            cfg: fields.get("cfg").map_or(Ok(Field::Unset), cfg).map_err(part("cfg"))?,
            enable: fields.get("enable").map(from_node).transpose().map_err(part("enable"))?,
            parent_class: fields
                .get("parent_class")
                .map_or(Ok(Field::Unset), from_node)
                .map_err(part("parent_class"))?,
            quantizer_name: from_node(name).map_err(part("quantizer_name"))?,
            origin: Some(origin(node)),
        };
        form.entry().map_err(|fault| place(&fault, node))
    }
}

/// A single unknown key close to a known one is a misspelt entry rather than a pattern of the older form.
fn looks_like_a_typing_error<'a>(mut keys: impl Iterator<Item = &'a str>) -> bool {
    keys.any(|key| crate::yaml::closest(key, ["quantizer_name", "parent_class", "enable"]).is_some())
}

fn origin(node: &Node) -> EntryOrigin {
    if node.mark.source.library { EntryOrigin::Library } else { EntryOrigin::Own }
}

fn legacy_entry(name: &str, parent_class: Field<String>, value: &Node) -> Result<QuantizerEntry> {
    let mut value = value.clone();
    let mut enable = None;
    if let Content::Map(fields) = &mut value.content {
        enable = fields.remove("enable").map(|entry| from_node::<bool>(&entry.node)).transpose()?;
        if fields.is_empty() {
            value.content = Content::Null;
        }
    }
    let cfg = cfg(&value)?;
    let form = EntryForm {
        cfg,
        enable,
        parent_class,
        quantizer_name: name.to_owned(),
        origin: Some(origin(&value)),
    };
    form.entry().map_err(|fault| place(&fault, &value))
}

fn cfg(node: &Node) -> Result<Field<QuantizerCfg>> {
    Ok(match &node.content {
        Content::Null => Field::Null,
        Content::List(list) => {
            let many = list.iter().enumerate().map(|(index, element)| {
                attributes(element).map_err(|error| within(error, &index.to_string()))
            });
            Field::Set(QuantizerCfg::Many(many.collect::<Result<_>>()?))
        }
        _ => Field::Set(QuantizerCfg::One(Box::new(attributes(node)?))),
    })
}

/// Attributes of one quantizer, checked.
///
/// # Errors
/// Anything that ModelOpt's `QuantizerAttributeConfig` would refuse, at its line.
pub(super) fn attributes(node: &Node) -> Result<QuantizerAttributes> {
    mapping(node, "quantizer attributes")?;
    let attributes: QuantizerAttributes = from_node(node)?;
    attributes.check().map_err(|fault| place(&fault, node))?;
    Ok(attributes)
}

/// The entries of a mapping, or an error that says what should have been one.
///
/// # Errors
/// The node is no mapping.
pub(super) fn mapping<'a>(node: &'a Node, what: &str) -> Result<&'a crate::yaml::Mapping> {
    node.mapping().ok_or_else(|| node.mark.refuse(format!("{what} is a mapping, not {}", node.kind())))
}

/// Refuses keys that are not among the known ones.
///
/// # Errors
/// The first unknown key, with a suggestion.
pub(super) fn known_keys(node: &Node, known: &[&str]) -> Result<()> {
    let unknown =
        node.mapping().and_then(|fields| fields.iter().find(|entry| !known.contains(&entry.key.as_str())));
    match unknown {
        Some(entry) => Err(entry
            .mark
            .refuse(format!("unknown key `{}`", entry.key))
            .key(&entry.key)
            .hint(did_you_mean(&entry.key, known))),
        None => Ok(()),
    }
}

/// Puts a step in front of the key of an error.
pub(super) fn within(mut error: Error, step: &str) -> Error {
    error.place.key = Some(match error.place.key.take().filter(|key| !key.is_empty()) {
        Some(key) => format!("{step}.{key}"),
        None => step.to_owned(),
    });
    error
}

/// The error for a broken rule, at the attribute at fault.
pub(super) fn place(fault: &Fault, node: &Node) -> Error {
    let at = node.child(fault.key).unwrap_or(node);
    let error = at.mark.refuse(&fault.message);
    if fault.key.is_empty() { error } else { error.key(fault.key) }
}
