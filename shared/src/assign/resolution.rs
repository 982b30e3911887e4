//! Resolving a recipe's quantizer configuration against a model.

use std::collections::HashMap;

use super::assignment::{Assignment, LinearNumerics};
use super::groups::{GroupChange, MixedGroups};
use super::numerics::{cache, linear, unsupported};
use super::quantizers::{Placed, Quantizer, Quantizers};
use super::{Calibration, PatternReach};
use crate::model::{Model, Module, ModuleRole};
use crate::recipe::QuantizeConfig;
use crate::{Error, Result};

/// An assignment, and how it came about.
#[derive(Debug, Clone)]
pub struct Resolution {
    /// The assignment.
    pub assignment: Assignment,
    /// How far each entry of the recipe reached, in its order.
    pub reach: Vec<PatternReach>,
    /// Fused groups whose numerics were changed.
    pub changes: Vec<GroupChange>,
}

/// Numerics of linears that have been worked out: they depend on the fates of quantizers and on the shape only.
type Known = HashMap<(Placed, [usize; 2]), Option<LinearNumerics>, foldhash::fast::RandomState>;

impl Assignment {
    /// Resolves a recipe's quantizer configuration against a model.
    ///
    /// # Errors
    /// The recipe enables no weight quantizer, asks for numerics or an algorithm without a codec here, gives members
    /// of a fused group different numerics, or a weight's width is no multiple of its block.
    pub fn resolve(config: &QuantizeConfig, model: &Model) -> Result<(Self, Vec<PatternReach>)> {
        let resolution = Self::settle(config, model, MixedGroups::Refuse)?;
        Ok((resolution.assignment, resolution.reach))
    }

    /// Resolves a recipe's quantizer configuration against a model, whose fused groups are refused or fixed.
    ///
    /// # Errors
    /// As [`Assignment::resolve`].
    pub fn settle(config: &QuantizeConfig, model: &Model, mixed: MixedGroups) -> Result<Resolution> {
        let quantizers = Quantizers::apply(&config.quant_cfg, model)?;
        let calibration = Calibration::parse(&config.algorithm)?;
        let mut assignment = Self { linears: Vec::new(), caches: Vec::new(), calibration };
        let mut known = Known::default();
        for (module, part) in model.modules.iter().enumerate() {
            match part.role {
                ModuleRole::Linear { rows, columns, .. } => {
                    let one = Linear { module, part, shape: [rows, columns] };
                    assignment.linears.extend(one.numerics(&quantizers, &mut known)?);
                }
                ModuleRole::Attention => {
                    let own = quantizers.of(module, part);
                    assignment.caches.extend(cache(part, &own.iter().collect::<Vec<_>>())?);
                }
                _ => {
                    if let Some(quantizer) = quantizers.of(module, part).first() {
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
        let changes = assignment.settle_groups(model, mixed)?;
        super::smoothing::place(&mut assignment, model);
        Ok(Resolution { assignment, reach: quantizers.reach, changes })
    }
}

/// A linear of a model.
#[derive(Clone, Copy)]
struct Linear<'a> {
    module: usize,
    part: &'a Module,
    shape: [usize; 2],
}

impl Linear<'_> {
    fn numerics(self, quantizers: &Quantizers<'_>, known: &mut Known) -> Result<Option<LinearNumerics>> {
        let key = (quantizers.enabled(self.module), self.shape);
        if let Some(numerics) = known.get(&key) {
            let own = |numerics: &LinearNumerics| LinearNumerics {
                module: self.module,
                name: self.part.name.clone(),
                ..numerics.clone()
            };
            return Ok(numerics.as_ref().map(own));
        }
        let quantizers = quantizers.of(self.module, self.part);
        let own: Vec<&Quantizer> = quantizers.iter().collect();
        let numerics = linear(self.module, &self.part.name, &own, self.shape)?;
        let template = numerics.clone().map(|numerics| LinearNumerics { name: String::new(), ..numerics });
        known.insert(key, template);
        Ok(numerics)
    }
}
