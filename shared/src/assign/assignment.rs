//! An assignment: every linear and every attention of a model with its numerics, and the hash that names the whole.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::quantizers::{Quantizer, Slot, apply, inserted};
use super::{Algorithm, PatternReach};
use crate::checkpoint::LayerAlgorithm;
use crate::model::{FusedGroup, Model, ModuleRole};
use crate::numerics::{Format, QuantizerAttributes};
use crate::recipe::QuantizeConfig;
use crate::{Error, Result};

/// Where the largest magnitude of an activation comes from.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Amax {
    /// From calibration.
    Calibrated,
    /// The recipe gives it, and it is stored.
    Constant(f32),
    /// The format's own reach at scale 1, and nothing is stored (`use_constant_amax`).
    Unit,
}

/// Numerics of an activation.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ActivationNumerics {
    /// What it is rounded to.
    pub format: Format,
    /// Where its scale comes from.
    pub amax: Amax,
}

/// Numerics of one quantized linear.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LinearNumerics {
    /// Index into the model's modules.
    #[serde(skip)]
    pub module: usize,
    /// Its full name.
    pub name: String,
    /// Numerics of the weight.
    pub weight: Format,
    /// Numerics of the input; `None` leaves it as it is.
    pub input: Option<ActivationNumerics>,
    /// Layer and group whose per-tensor scales it shares, where its format asks for that.
    #[serde(skip)]
    pub shared: Option<(usize, FusedGroup)>,
}

impl LinearNumerics {
    /// The pair of formats.
    pub fn algorithm(&self) -> LayerAlgorithm {
        LayerAlgorithm { weight: self.weight, input: self.input.map(|input| input.format) }
    }
}

/// Numerics of the KV cache of one attention.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CacheNumerics {
    /// Decoder layer.
    pub layer: usize,
    /// Full name of the attention.
    pub name: String,
    /// Keys, after rotation.
    pub key: ActivationNumerics,
    /// Values.
    pub value: ActivationNumerics,
}

/// A recipe resolved against one model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Assignment {
    /// Quantized linears in model order.
    pub linears: Vec<LinearNumerics>,
    /// Attentions with a quantized KV cache.
    pub caches: Vec<CacheNumerics>,
    /// How scales are found.
    pub algorithm: Algorithm,
}

impl Assignment {
    /// Resolves a recipe's quantizer configuration against a model.
    ///
    /// # Errors
    /// The recipe enables no weight quantizer, asks for numerics or an algorithm without a codec here, gives members
    /// of a fused group different numerics, or a weight's width is no multiple of its block.
    pub fn resolve(config: &QuantizeConfig, model: &Model) -> Result<(Self, Vec<PatternReach>)> {
        let mut quantizers = inserted(model);
        let reach = apply(&config.quant_cfg, model, &mut quantizers)?;
        let mut assignment =
            Self { linears: Vec::new(), caches: Vec::new(), algorithm: Algorithm::parse(&config.algorithm)? };
        for (module, part) in model.modules.iter().enumerate() {
            let own: Vec<&Quantizer> =
                quantizers.iter().filter(|q| q.module == module && q.enabled).collect();
            match part.role {
                ModuleRole::Linear { columns, .. } => {
                    assignment.linears.extend(linear(module, part.name.as_str(), &own, columns)?);
                }
                ModuleRole::Attention => assignment.caches.extend(cache(part, &own)?),
                ModuleRole::Embedding { .. } | ModuleRole::Norm { .. } => {
                    if let Some(quantizer) = own.first() {
                        return Err(unsupported(quantizer, "only linears and KV caches can be quantized"));
                    }
                }
            }
        }
        if assignment.linears.is_empty() {
            return Err(Error::input("the recipe enables no weight quantizer on this model")
                .at(&model.folder)
                .hint("`qlaunch recipe list` shows recipes; `qlaunch plan MODEL --recipe R` shows what one reaches"));
        }
        assignment.share_within_groups(model)?;
        Ok((assignment, reach))
    }

    /// SHA-256 over the assignment's canonical JSON, 16 hexadecimal digits of it.
    pub fn hash(&self) -> String {
        let text = serde_json::to_string(self).unwrap_or_default();
        let digest = Sha256::digest(text.as_bytes());
        digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect()
    }

    /// The linear of this module index, where it is quantized.
    pub fn linear(&self, module: usize) -> Option<&LinearNumerics> {
        self.linears.iter().find(|linear| linear.module == module)
    }

    /// The cache numerics of a decoder layer.
    pub fn cache(&self, layer: usize) -> Option<&CacheNumerics> {
        self.caches.iter().find(|cache| cache.layer == layer)
    }

    /// Whether activations must be seen before anything can be quantized.
    pub fn needs_calibration(&self) -> bool {
        let calibrated = |numerics: &ActivationNumerics| numerics.amax == Amax::Calibrated;
        self.linears.iter().filter_map(|linear| linear.input.as_ref()).any(calibrated)
            || self.caches.iter().any(|cache| calibrated(&cache.key) || calibrated(&cache.value))
    }

    /// Members of a fused group must agree, and share scales where their format has one per tensor.
    fn share_within_groups(&mut self, model: &Model) -> Result<()> {
        for (module, part) in model.modules.iter().enumerate() {
            let ModuleRole::Linear { group: Some(group), .. } = part.role else { continue };
            let Some(layer) = part.layer else { continue };
            let is_sibling = |other: &&crate::model::Module| {
                other.layer == Some(layer)
                    && matches!(other.role, ModuleRole::Linear { group: Some(g), .. } if g == group)
            };
            let first = model.modules.iter().position(|other| is_sibling(&other)).unwrap_or(module);
            let (mine, leading) = (self.linear(module), self.linear(first));
            let same = |linear: &LinearNumerics| (linear.weight, linear.input);
            if mine.map(same) != leading.map(same) {
                let names: Vec<String> = model
                    .modules
                    .iter()
                    .filter(is_sibling)
                    .map(|other| format!("`{}`", other.name))
                    .collect();
                return Err(Error::input(format!(
                    "the {} group of layer {layer} has mixed numerics, and serving engines fuse it into one matrix: {}",
                    group.name(),
                    names.join(", ")
                ))
                .key(part.name.as_str())
                .hint("give all members of the group the same format in the recipe"));
            }
            if let Some(linear) = self.linears.iter_mut().find(|linear| linear.module == module) {
                linear.shared = linear.weight.shares_scales().then_some((layer, group));
            }
        }
        Ok(())
    }
}

fn unsupported(quantizer: &Quantizer, why: &str) -> Error {
    Error::input(format!("the recipe asks for something that this version cannot do: {why}"))
        .key(quantizer.name.as_str())
        .hint("switch it off in the recipe with `enable: false`")
}

fn linear(module: usize, name: &str, own: &[&Quantizer], columns: usize) -> Result<Option<LinearNumerics>> {
    let in_slot = |slot| own.iter().find(|quantizer| quantizer.slot == slot);
    if let Some(output) = in_slot(Slot::Output) {
        return Err(unsupported(output, "outputs of linears cannot be quantized"));
    }
    let Some(weight) = in_slot(Slot::Weight) else {
        return match in_slot(Slot::Input) {
            Some(input) => Err(unsupported(input, "an input cannot be quantized without its weight")),
            None => Ok(None),
        };
    };
    let format = format_of(weight)?;
    if let Some(block) = format.block().filter(|block| !columns.is_multiple_of(*block)) {
        return Err(Error::input(format!(
            "{columns} input features are no multiple of {format}'s block of {block}"
        ))
        .key(name)
        .hint("leave this module out with an entry `{quantizer_name: …, enable: false}`"));
    }
    let input = in_slot(Slot::Input).map(|quantizer| activation(quantizer)).transpose()?;
    let linear = LinearNumerics { module, name: name.to_owned(), weight: format, input, shared: None };
    if linear.algorithm().name().is_none() {
        let input = linear.input.map_or("unquantized", |input| input.format.name());
        return Err(unsupported(weight, &format!("{format} weights with {input} activations")));
    }
    Ok(Some(linear))
}

fn cache(part: &crate::model::Module, own: &[&Quantizer]) -> Result<Option<CacheNumerics>> {
    if let Some(other) = own.iter().find(|q| matches!(q.slot, Slot::Query | Slot::Probability)) {
        return Err(unsupported(other, "queries and attention probabilities cannot be quantized"));
    }
    let side = |slot| own.iter().find(|q| q.slot == slot).map(|q| activation(q)).transpose();
    match (side(Slot::Key)?, side(Slot::Value)?, part.layer) {
        (None, None, _) => Ok(None),
        (Some(key), Some(value), Some(layer)) if key.format == value.format && key.format == Format::Fp8 => {
            Ok(Some(CacheNumerics { layer, name: part.name.clone(), key, value }))
        }
        _ => Err(unsupported(own[0], "keys and values must both be FP8, or both be left as they are")),
    }
}

/// The one format of a quantizer.
fn format_of(quantizer: &Quantizer) -> Result<Format> {
    match &quantizer.attributes[..] {
        [one] => {
            Format::of(one).ok_or_else(|| unsupported(quantizer, &format!("no codec for {}", one.summary())))
        }
        several => {
            let all: Vec<String> = several.iter().map(QuantizerAttributes::summary).collect();
            Err(unsupported(quantizer, &format!("no codec for the sequence {}", all.join(", then "))))
        }
    }
}

fn activation(quantizer: &Quantizer) -> Result<ActivationNumerics> {
    let format = format_of(quantizer)?;
    let amax = match &quantizer.attributes[..] {
        [one] if one.use_constant_amax == Some(true) => Amax::Unit,
        [one] => one.constant_amax.map_or(Amax::Calibrated, |&amax| Amax::Constant(amax as f32)),
        _ => Amax::Calibrated,
    };
    if amax == Amax::Unit && !matches!(quantizer.slot, Slot::Key | Slot::Value) {
        return Err(unsupported(quantizer, "`use_constant_amax` outside the KV cache"));
    }
    Ok(ActivationNumerics { format, amax })
}
