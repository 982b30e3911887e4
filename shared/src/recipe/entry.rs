//! One line of a quantizer configuration: which quantizers, what they do, and whether they are on.

use serde::{Deserialize, Serialize};

use crate::error::Place;
use crate::numerics::field::{Field, given};
use crate::numerics::{Fault, QuantizerAttributes};

/// One entry of a `quant_cfg` list; later entries win over earlier ones.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "EntryForm", into = "EntryForm")]
pub struct QuantizerEntry {
    /// Pattern over full quantizer names ([`super::fnmatch`]).
    pub quantizer_name: String,
    /// Class that the quantizer's module must be of, as `nn.Linear`.
    pub parent_class: Option<String>,
    /// What the matched quantizers become; nothing keeps what they are.
    pub cfg: QuantizerCfg,
    /// Whether the matched quantizers are on.
    pub enable: bool,
    /// Whose line it is.
    pub origin: EntryOrigin,
    /// Where it was written; an entry that came in a job spec does not know.
    pub place: WrittenAt,
    written: Written,
}

/// Where an entry was written, which is no part of what it says: entries are equal wherever they stand.
#[derive(Debug, Clone, Default)]
pub struct WrittenAt(pub Option<Box<Place>>);

impl PartialEq for WrittenAt {
    fn eq(&self, _other: &Self) -> bool {
        true
    }
}

/// What matched quantizers become.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum QuantizerCfg {
    /// They keep their attributes; only the switch is set.
    None,
    /// All attributes are replaced by these.
    One(Box<QuantizerAttributes>),
    /// They become a sequence of quantizers, one applied after the other.
    Many(Vec<QuantizerAttributes>),
}

/// Whose line an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EntryOrigin {
    /// A file of a library, which serves many model families: its patterns may match nothing.
    Library,
    /// Somebody's own file, whose patterns are meant to match.
    #[default]
    Own,
}

/// Which of the optional keys the author wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Written {
    parent_class: bool,
    cfg: bool,
    enable: bool,
}

/// An entry as it is written: nothing but what its author wrote.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EntryForm {
    #[serde(default, skip_serializing_if = "Field::is_unset")]
    pub cfg: Field<QuantizerCfg>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    pub enable: Option<bool>,
    #[serde(default, skip_serializing_if = "Field::is_unset")]
    pub parent_class: Field<String>,
    pub quantizer_name: String,
    /// Travels in job specs; not part of a recipe file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<EntryOrigin>,
    #[serde(skip)]
    pub place: WrittenAt,
}

impl EntryForm {
    /// The rules of ModelOpt's `QuantizerCfgEntry`.
    pub fn entry(self) -> Result<QuantizerEntry, Fault> {
        let enable = self.enable.unwrap_or(true);
        let written = Written {
            parent_class: !self.parent_class.is_unset(),
            cfg: !self.cfg.is_unset(),
            enable: self.enable.is_some(),
        };
        if !written.cfg && !written.enable {
            let message = "an entry needs `cfg`, `enable` or both: a name alone changes nothing".to_owned();
            return Err(Fault { key: "", message });
        }
        let cfg = match self.cfg {
            Field::Set(cfg) if cfg.is_empty() && enable => {
                let message = "an empty `cfg` says nothing: leave it out to keep the attributes, \
                               or set `enable: false`";
                return Err(Fault { key: "cfg", message: message.to_owned() });
            }
            Field::Set(cfg) if !cfg.is_empty() => cfg,
            _ => QuantizerCfg::None,
        };
        Ok(QuantizerEntry {
            quantizer_name: self.quantizer_name,
            parent_class: self.parent_class.value().cloned(),
            cfg,
            enable,
            origin: self.origin.unwrap_or_default(),
            place: self.place,
            written,
        })
    }
}

impl QuantizerCfg {
    /// Whether it is written but sets no attribute.
    fn is_empty(&self) -> bool {
        let nothing = QuantizerAttributes::default();
        match self {
            Self::None => false,
            Self::One(one) => **one == nothing,
            Self::Many(many) => many.iter().all(|attributes| *attributes == nothing),
        }
    }

    /// The attributes, in order of application.
    pub fn attributes(&self) -> &[QuantizerAttributes] {
        match self {
            Self::None => &[],
            Self::One(one) => std::slice::from_ref(one),
            Self::Many(many) => many,
        }
    }
}

impl TryFrom<EntryForm> for QuantizerEntry {
    type Error = String;

    fn try_from(form: EntryForm) -> Result<Self, String> {
        form.entry().map_err(|fault| fault.message)
    }
}

impl From<QuantizerEntry> for EntryForm {
    fn from(entry: QuantizerEntry) -> Self {
        let QuantizerEntry { quantizer_name, parent_class, cfg, enable, origin, place, written } = entry;
        Self {
            cfg: match cfg {
                QuantizerCfg::None if written.cfg => Field::Null,
                QuantizerCfg::None => Field::Unset,
                cfg => Field::Set(cfg),
            },
            enable: written.enable.then_some(enable),
            parent_class: match parent_class {
                Some(class) => Field::Set(class),
                None if written.parent_class => Field::Null,
                None => Field::Unset,
            },
            quantizer_name,
            origin: Some(origin),
            place,
        }
    }
}
