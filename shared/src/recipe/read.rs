//! From resolved trees to typed configurations, with the line of everything that is wrong.

use serde_json::Value;

use super::body::Metadata;
use super::config::{ConfigForm, QuantizeConfig};
use super::entry::{EntryForm, EntryOrigin, QuantizerCfg, QuantizerEntry, WrittenAt};
use super::faults::{Checked, ENOUGH, Faults};
use super::schema::Schema;
use super::sections;
use super::typed::typed;
use crate::numerics::field::Field;
use crate::numerics::{Fault, QuantizerAttributes};
use crate::yaml::{Content, Mapping, Mark, Node, did_you_mean};
use crate::{Error, Result};

/// Checks that a snippet is of the shape that its comment names.
///
/// # Errors
/// Everything that does not fit.
pub(super) fn check(node: &Node, schema: Schema) -> Checked<()> {
    match schema {
        Schema::Attributes => attributes(node).map(drop),
        Schema::Entry => Reader::default().entry(node).map(drop),
        Schema::Entries => Reader::default().entries(node).map(drop),
        Schema::Config => Reader::default().config(node).map(drop),
        Schema::Patterns => typed::<Vec<String>>(node).map(drop),
        Schema::Metadata => typed::<Metadata>(node).map(drop),
        Schema::Recipe(_) => sections::recipe(node, &mut Reader::default()).map(drop),
        Schema::Opaque => Ok(mapping(node, "this snippet").map(drop)?),
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
    /// Everything that ModelOpt's `QuantizeConfig` would refuse, at its line.
    pub fn config(&mut self, node: &Node) -> Checked<QuantizeConfig> {
        const KNOWN: [&str; 3] = ["algorithm", "effective_bits", "quant_cfg"];
        let fields = mapping(node, "a quantizer configuration")?;
        let mut faults = Faults::default();
        faults.keep(known_keys(node, &KNOWN));
        let mut form = ConfigForm::default();
        if let Some(entries) = fields.get("quant_cfg") {
            form.quant_cfg = faults.keep(self.entries(entries).map_err(|faults| faults.within("quant_cfg")));
        }
        if let Some(algorithm) = fields.get("algorithm") {
            form.algorithm = faults.keep(self.algorithm(algorithm)).unwrap_or_default();
        }
        if let Some(bits) = fields.get("effective_bits") {
            let read = typed(bits).map_err(|faults| faults.within("effective_bits"));
            form.effective_bits = faults.keep(read).unwrap_or_default();
        }
        let form = faults.unless_any(form)?;
        let at = fields.get("effective_bits").unwrap_or(node);
        Ok(QuantizeConfig::try_from(form).map_err(|message| at.mark.refuse(message).key("effective_bits"))?)
    }

    /// `algorithm` as it is written: what it asks for is checked where it is carried out, as ModelOpt does.
    fn algorithm(&mut self, node: &Node) -> Result<Field<Value>> {
        match &node.content {
            Content::Null => Ok(Field::Null),
            Content::Text(_) | Content::Map(_) | Content::List(_) => {
                self.notes.extend(old_options(node));
                Ok(Field::Set(node.to_value()))
            }
            _ => {
                let message =
                    format!("`algorithm` is a name, a mapping, a list or null, not {}", node.kind());
                Err(node.mark.refuse(message).key("algorithm").hint("write `algorithm: max`"))
            }
        }
    }

    /// The entries of a configuration: a list, or the mapping of older releases.
    ///
    /// # Errors
    /// Everything that ModelOpt's `QuantizerCfgEntry` would refuse, at its line.
    pub fn entries(&mut self, node: &Node) -> Checked<Vec<QuantizerEntry>> {
        let (mut entries, mut faults) = (Vec::new(), Faults::default());
        match &node.content {
            Content::List(list) => {
                for (index, element) in list.iter().enumerate() {
                    let read = self.listed(element).map_err(|faults| faults.within(&index.to_string()));
                    entries.extend(faults.keep(read).into_iter().flatten());
                    if faults.are_enough() {
                        break;
                    }
                }
            }
            Content::Map(mapping) => {
                for entry in mapping.iter() {
                    self.note_legacy(node);
                    let read =
                        self.legacy(&entry.key, &entry.node).map_err(|faults| faults.within(&entry.key));
                    entries.extend(faults.keep(read).into_iter().flatten());
                    if faults.are_enough() {
                        break;
                    }
                }
            }
            _ => {
                let message = format!("`quant_cfg` is a list of entries, not {}", node.kind());
                return Err(node
                    .mark
                    .refuse(message)
                    .hint("write lines like `- {quantizer_name: '*', enable: false}`")
                    .into());
            }
        }
        faults.unless_any(entries)
    }

    /// One element of the list, in its own or an older form.
    fn listed(&mut self, node: &Node) -> Checked<Vec<QuantizerEntry>> {
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
    fn legacy(&mut self, key: &str, value: &Node) -> Checked<Vec<QuantizerEntry>> {
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
    /// Unknown or missing keys, wrong attributes, or an entry that changes nothing.
    pub fn entry(&mut self, node: &Node) -> Checked<QuantizerEntry> {
        const KNOWN: [&str; 4] = ["quantizer_name", "parent_class", "cfg", "enable"];
        let fields = mapping(node, "a quantizer entry")?;
        let mut faults = Faults::default();
        faults.keep(known_keys(node, &KNOWN));
        let unnamed = || {
            node.mark
                .refuse("`quantizer_name` is missing")
                .key("quantizer_name")
                .hint("name the quantizers, like `quantizer_name: '*weight_quantizer'`")
        };
        let part = |key: &'static str| move |faults: Faults| faults.within(key);
        let read = fields.get("cfg").map_or(Ok(Field::Unset), cfg).map_err(part("cfg"));
        let cfg = faults.keep(read);
        let enable = faults.keep(fields.get("enable").map(typed).transpose().map_err(part("enable")));
        let class = fields.get("parent_class").map_or(Ok(Field::Unset), typed);
        let parent_class = faults.keep(class.map_err(part("parent_class")));
        let name = fields.get("quantizer_name").ok_or_else(|| unnamed().into());
        let quantizer_name = faults.keep(name.and_then(typed).map_err(|faults: Faults| {
            if fields.get("quantizer_name").is_some() { faults.within("quantizer_name") } else { faults }
        }));
        faults.unless_any(())?;
        let form = EntryForm {
            cfg: cfg.unwrap_or_default(),
            enable: enable.flatten(),
            parent_class: parent_class.unwrap_or_default(),
            quantizer_name: quantizer_name.unwrap_or_default(),
            origin: Some(origin(node)),
            place: WrittenAt(Some(Box::new(node.mark.place()))),
        };
        Ok(form.entry().map_err(|fault| place(&fault, node))?)
    }
}

/// The spellings of calibration options that ModelOpt has dropped, with today's.
fn old_options(algorithm: &Node) -> Vec<String> {
    let steps = algorithm.list().unwrap_or(std::slice::from_ref(algorithm));
    let entries = steps.iter().filter_map(Node::mapping).flat_map(Mapping::iter);
    let old = entries.filter_map(|entry| {
        let today = match entry.key.as_str() {
            "use_sequential" => format!("layerwise: {{enable: {}}}", entry.node.to_value()),
            "layerwise_checkpoint_dir" => "layerwise: {enable: true, checkpoint_dir: DIR}".to_owned(),
            "layerwise" if matches!(entry.node.content, Content::Bool(_)) => {
                format!("layerwise: {{enable: {}}}", entry.node.to_value())
            }
            _ => return None,
        };
        let Mark { source, line, .. } = &entry.mark;
        let file = source.file.display();
        Some(format!("{file}:{line}: `{}` is a form of older releases; today's is `{today}`", entry.key))
    });
    old.collect()
}

/// A single unknown key close to a known one is a misspelt entry rather than a pattern of the older form.
fn looks_like_a_typing_error<'a>(mut keys: impl Iterator<Item = &'a str>) -> bool {
    keys.any(|key| crate::yaml::closest(key, ["quantizer_name", "parent_class", "enable"]).is_some())
}

fn origin(node: &Node) -> EntryOrigin {
    if node.mark.source.library { EntryOrigin::Library } else { EntryOrigin::Own }
}

fn legacy_entry(name: &str, parent_class: Field<String>, value: &Node) -> Checked<QuantizerEntry> {
    let mut value = value.clone();
    let mut enable = None;
    if let Content::Map(fields) = &mut value.content {
        enable = fields.remove("enable").map(|entry| typed::<bool>(&entry.node)).transpose()?;
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
        place: WrittenAt(Some(Box::new(value.mark.place()))),
    };
    Ok(form.entry().map_err(|fault| place(&fault, &value))?)
}

fn cfg(node: &Node) -> Checked<Field<QuantizerCfg>> {
    Ok(match &node.content {
        Content::Null => Field::Null,
        Content::List(list) => {
            let (mut many, mut faults) = (Vec::with_capacity(list.len()), Faults::default());
            for (index, element) in list.iter().enumerate() {
                let read = attributes(element).map_err(|faults| faults.within(&index.to_string()));
                many.extend(faults.keep(read));
            }
            Field::Set(QuantizerCfg::Many(faults.unless_any(many)?))
        }
        _ => Field::Set(QuantizerCfg::One(Box::new(attributes(node)?))),
    })
}

/// Attributes of one quantizer, checked.
///
/// # Errors
/// Everything that ModelOpt's `QuantizerAttributeConfig` would refuse, at its line.
pub(super) fn attributes(node: &Node) -> Checked<QuantizerAttributes> {
    mapping(node, "quantizer attributes")?;
    let attributes: QuantizerAttributes = typed(node)?;
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
/// Each unknown key, with a suggestion.
pub(super) fn known_keys(node: &Node, known: &[&str]) -> Checked<()> {
    let mut faults = Faults::default();
    let entries = node.mapping().into_iter().flat_map(Mapping::iter);
    for entry in entries.filter(|entry| !known.contains(&entry.key.as_str())).take(ENOUGH) {
        let refusal = entry.mark.refuse(format!("unknown key `{}`", entry.key)).key(&entry.key);
        faults.keep::<()>(Err(refusal.hint(did_you_mean(&entry.key, known))));
    }
    faults.unless_any(())
}

/// The error for a broken rule, at the attribute at fault.
pub(super) fn place(fault: &Fault, node: &Node) -> Error {
    let at = node.child(fault.key).unwrap_or(node);
    let error = at.mark.refuse(&fault.message);
    if fault.key.is_empty() { error } else { error.key(fault.key) }
}
