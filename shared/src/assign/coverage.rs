//! What a recipe's patterns reached, and what became of each part of the model.

use std::collections::BTreeMap;

use super::plan::FamilyCoverage;
use super::{Assignment, Coverage, LinearNumerics, ModuleFamily, PatternReach};
use crate::model::{Model, ModuleRole};

/// The coverage of an assignment; `None` is the model as it is.
pub(super) fn coverage(
    model: &Model,
    assignment: Option<&Assignment>,
    patterns: Vec<PatternReach>,
) -> Coverage {
    let plain = model.config.dtype.name().to_lowercase();
    let mut formats: BTreeMap<&'static str, usize> = BTreeMap::new();
    let mut families: BTreeMap<ModuleFamily, BTreeMap<Numerics<'_>, usize>> = BTreeMap::new();
    let (mut linears, mut unquantized) = (0, Vec::new());
    for (module, part) in model.modules.iter().enumerate() {
        let is_linear = match part.role {
            ModuleRole::Linear { .. } => true,
            ModuleRole::Embedding { .. } => false,
            _ => continue,
        };
        let linear = assignment.and_then(|assignment| assignment.linear(module));
        let numerics =
            linear.map_or(Numerics { weight: &plain, input: &plain }, |linear| Numerics::of(linear, &plain));
        *families.entry(ModuleFamily::of(part)).or_default().entry(numerics).or_default() += 1;
        if is_linear {
            linears += 1;
            match linear.and_then(|linear| linear.algorithm().name()) {
                Some(name) => *formats.entry(name).or_default() += 1,
                None => unquantized.push(part.name.clone()),
            }
        }
    }
    let family = |(family, numerics): (ModuleFamily, BTreeMap<Numerics<'_>, usize>)| FamilyCoverage {
        family,
        modules: numerics.values().sum(),
        numerics: by_count(numerics.into_iter().map(|(numerics, count)| (numerics.words(), count))),
    };
    let kv_cache =
        assignment.and_then(|a| Some((a.caches.first()?.key.format.name().to_owned(), a.caches.len())));
    Coverage {
        linears,
        formats: by_count(formats.into_iter().map(|(name, count)| (name.to_owned(), count))),
        families: families.into_iter().map(family).collect(),
        patterns,
        unquantized,
        kv_cache,
    }
}

/// Names of what a weight is stored in and what it is multiplied with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Numerics<'a> {
    weight: &'a str,
    input: &'a str,
}

impl<'a> Numerics<'a> {
    fn of(linear: &LinearNumerics, plain: &'a str) -> Self {
        let input = linear.input.map_or(plain, |input| input.format.name());
        Self { weight: linear.weight.name(), input }
    }

    fn words(self) -> String {
        match self.weight == self.input {
            true => self.weight.to_owned(),
            false => format!("{} × {}", self.weight, self.input),
        }
    }
}

/// The most frequent first, equals by name.
fn by_count(counts: impl Iterator<Item = (String, usize)>) -> Vec<(String, usize)> {
    let mut counts: Vec<(String, usize)> = counts.collect();
    counts.sort_by(|(a, many), (b, few)| few.cmp(many).then_with(|| a.cmp(b)));
    counts
}
