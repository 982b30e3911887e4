//! The quantizers that ModelOpt would insert into a model, and what a recipe's entries do to them.

use crate::model::{Model, ModuleRole};
use crate::numerics::QuantizerAttributes;
use crate::recipe::{EntryOrigin, Pattern, QuantizerCfg, QuantizerEntry};
use crate::{Error, Result};

use super::PatternReach;

/// Which tensor of a module a quantizer sits on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Slot {
    Weight,
    Input,
    Output,
    Query,
    Key,
    Value,
    Probability,
}

/// One quantizer and its state.
#[derive(Debug, Clone)]
pub(super) struct Quantizer {
    /// Full name, as in `model.layers.0.self_attn.k_bmm_quantizer`.
    pub(super) name: String,
    /// Index into the model's modules.
    pub(super) module: usize,
    pub(super) slot: Slot,
    pub(super) enabled: bool,
    /// One for a plain quantizer, several for a sequence.
    pub(super) attributes: Vec<QuantizerAttributes>,
}

/// Classes that a recipe may name as `parent_class`: ModelOpt's registry of quantized modules.
const PARENT_CLASSES: [&str; 28] = [
    "nn.AdaptiveAvgPool1d",
    "nn.AdaptiveAvgPool2d",
    "nn.AdaptiveAvgPool3d",
    "nn.AvgPool1d",
    "nn.AvgPool2d",
    "nn.AvgPool3d",
    "nn.BatchNorm1d",
    "nn.BatchNorm2d",
    "nn.BatchNorm3d",
    "nn.Conv1d",
    "nn.Conv2d",
    "nn.Conv3d",
    "nn.ConvTranspose1d",
    "nn.ConvTranspose2d",
    "nn.ConvTranspose3d",
    "nn.Embedding",
    "nn.GRU",
    "nn.InstanceNorm1d",
    "nn.InstanceNorm2d",
    "nn.InstanceNorm3d",
    "nn.LSTM",
    "nn.LayerNorm",
    "nn.LeakyReLU",
    "nn.Linear",
    "nn.MaxPool1d",
    "nn.MaxPool2d",
    "nn.MaxPool3d",
    "nn.RNN",
];

/// The quantizers of a model in module order, in the state that ModelOpt inserts them in: on, 8-bit integers, except
/// outputs and embedding inputs.
pub(super) fn inserted(model: &Model) -> Vec<Quantizer> {
    use Slot::{Input, Key, Output, Probability, Query, Value, Weight};
    let mut quantizers = Vec::new();
    for (module, part) in model.modules.iter().enumerate() {
        let slots: &[(Slot, &str, bool)] = match part.role {
            ModuleRole::Linear { .. } => {
                &[(Input, "input", true), (Output, "output", false), (Weight, "weight", true)]
            }
            ModuleRole::Embedding { .. } => {
                &[(Weight, "weight", true), (Input, "input", false), (Output, "output", false)]
            }
            ModuleRole::Attention => &[
                (Query, "q_bmm", true),
                (Key, "k_bmm", true),
                (Value, "v_bmm", true),
                (Probability, "p_bmm", true),
            ],
            ModuleRole::Norm { .. } => &[],
        };
        quantizers.extend(slots.iter().map(|&(slot, prefix, enabled)| Quantizer {
            name: format!("{}.{prefix}_quantizer", part.name),
            module,
            slot,
            enabled,
            attributes: vec![QuantizerAttributes::default()],
        }));
    }
    quantizers
}

/// Applies entries in order, later ones winning, and counts what each pattern reached.
///
/// # Errors
/// An entry names a parent class that does not exist, or enables a pattern of the user's own file that matches nothing.
pub(super) fn apply(
    entries: &[QuantizerEntry],
    model: &Model,
    quantizers: &mut [Quantizer],
) -> Result<Vec<PatternReach>> {
    let mut reach = Vec::with_capacity(entries.len());
    for entry in entries {
        let class = entry.parent_class.as_deref();
        if let Some(class) = class.filter(|class| !PARENT_CLASSES.contains(class)) {
            return Err(Error::input(format!("there is no module class `{class}`"))
                .key("parent_class")
                .hint("use a class such as `nn.Linear` or `nn.Embedding`"));
        }
        let pattern = Pattern::new(&entry.quantizer_name);
        let mut matched = 0;
        for quantizer in quantizers.iter_mut() {
            let in_class =
                class.is_none_or(|class| class_of(model.modules[quantizer.module].role) == Some(class));
            if in_class && pattern.matches(&quantizer.name) {
                matched += 1;
                apply_one(entry, quantizer);
            }
        }
        if matched == 0 && entry.enable && entry.origin == EntryOrigin::Own {
            return Err(Error::input(format!(
                "the pattern `{}` matches no quantizer of this model",
                entry.quantizer_name
            ))
            .at(&model.folder)
            .key("quantize.quant_cfg")
            .hint(
                "`qlaunch plan MODEL --recipe general/ptq/fp8_default-kv_fp8` shows the names of its modules",
            ));
        }
        reach.push(PatternReach { pattern: entry.quantizer_name.clone(), enables: entry.enable, matched });
    }
    Ok(reach)
}

/// A configuration replaces the whole state; without one, only the switch is set.
fn apply_one(entry: &QuantizerEntry, quantizer: &mut Quantizer) {
    match &entry.cfg {
        QuantizerCfg::None => {}
        QuantizerCfg::One(attributes) => quantizer.attributes = vec![(**attributes).clone()],
        QuantizerCfg::Many(sequence) => quantizer.attributes = sequence.clone(),
    }
    quantizer.enabled = entry.enable;
}

const fn class_of(role: ModuleRole) -> Option<&'static str> {
    match role {
        ModuleRole::Linear { .. } => Some("nn.Linear"),
        ModuleRole::Embedding { .. } => Some("nn.Embedding"),
        ModuleRole::Norm { .. } | ModuleRole::Attention => None,
    }
}
