//! Fused groups: linears that read the same input, which serving engines turn into one matrix, must agree.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::assignment::{Assignment, LinearNumerics};
use crate::checkpoint::PlannedTensor;
use crate::model::{FusedGroup, Model, ModuleRole};
use crate::{Error, Result};

/// What becomes of a recipe that gives the members of a fused group different numerics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MixedGroups {
    /// It is refused, with the group and its members named.
    #[default]
    Refuse,
    /// All members get the numerics of the one with the most stored bits; a member that is left as it is has the most.
    Fix,
}

impl MixedGroups {
    /// Whether it is what happens unless somebody asks for something else.
    pub const fn is_default(&self) -> bool {
        matches!(self, Self::Refuse)
    }
}

/// A group whose numerics were made to agree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupChange {
    /// Name of the module that its members are parts of.
    pub parent: String,
    /// Full names of its members.
    pub members: Vec<String>,
    /// What was found and what became of it; the same for groups that fare alike.
    pub text: String,
}

/// Members of one group, as indexes into the model's modules.
struct Group<'a> {
    /// Name of the module that they are parts of.
    parent: &'a str,
    group: FusedGroup,
    members: Vec<usize>,
}

impl Assignment {
    /// Makes members of fused groups agree, and share scales where their format asks for that. Returns the
    /// groups that had to be changed.
    ///
    /// # Errors
    /// A group with mixed numerics that is not to be fixed.
    pub(super) fn settle_groups(&mut self, model: &Model, mixed: MixedGroups) -> Result<Vec<GroupChange>> {
        let mut changes = Vec::new();
        let mut gone = Vec::new();
        let mut places = vec![None; model.modules.len()];
        for (place, linear) in self.linears.iter().enumerate() {
            places[linear.module] = Some(place);
        }
        for group in groups(model) {
            if !self.agrees(&group.members, &places) {
                match mixed {
                    MixedGroups::Refuse => return Err(refusal(&group, self, model)),
                    MixedGroups::Fix => changes.push(self.fix(&group, model, &mut gone)),
                }
            }
        }
        if !gone.is_empty() {
            self.linears.retain(|linear| gone.binary_search(&linear.module).is_err());
        }
        for linear in &mut self.linears {
            let part = &model.modules[linear.module];
            if let (ModuleRole::Linear { group: Some(group), .. }, Some(layer)) = (part.role, part.layer) {
                linear.shared = linear.weight.shares_scales().then_some((layer, group));
            }
        }
        Ok(changes)
    }

    /// Whether members have the same numerics; `places` are the places of modules among the linears.
    fn agrees(&self, members: &[usize], places: &[Option<usize>]) -> bool {
        let numerics = |module: usize| {
            let linear = &self.linears[places[module]?];
            Some((linear.weight, linear.input))
        };
        members.windows(2).all(|pair| numerics(pair[0]) == numerics(pair[1]))
    }

    /// Gives all members what the one with the most bits has; members that lose theirs are added to `gone`.
    fn fix(&mut self, group: &Group<'_>, model: &Model, gone: &mut Vec<usize>) -> GroupChange {
        let before = words(group, self, model);
        let most = group.members.iter().copied().reduce(|most, other| {
            let bits = |module| stored_bits(self.linear(module), model, module);
            if bits(other) > bits(most) { other } else { most }
        });
        let chosen = most.and_then(|module| self.linear(module)).cloned();
        let outcome = chosen.as_ref().map_or_else(
            || "as they are, for one of them is not quantized".to_owned(),
            |chosen| format!("as {}, which stores the most bits", numerics_words(chosen)),
        );
        for &module in &group.members {
            let place = self.linears.binary_search_by_key(&module, |linear| linear.module);
            match (place, &chosen) {
                (Ok(at), Some(chosen)) => {
                    self.linears[at].weight = chosen.weight;
                    self.linears[at].input = chosen.input;
                }
                (Ok(_), None) => {
                    let at = gone.partition_point(|other| *other < module);
                    gone.insert(at, module);
                }
                // A member that is not quantized has the most bits, so there is nothing to give to it.
                (Err(_), _) => {}
            }
        }
        GroupChange {
            parent: group.parent.to_owned(),
            members: group.members.iter().map(|&module| model.modules[module].name.clone()).collect(),
            text: format!("{} had mixed numerics ({before}), and all are kept {outcome}", group.group.name()),
        }
    }
}

/// Groups of two and more, in the order of their first members.
fn groups(model: &Model) -> Vec<Group<'_>> {
    let mut places: HashMap<(&str, FusedGroup), usize, foldhash::fast::RandomState> = HashMap::default();
    let mut groups: Vec<Group<'_>> = Vec::new();
    for (module, part) in model.modules.iter().enumerate() {
        let ModuleRole::Linear { group: Some(group), .. } = part.role else { continue };
        let parent = part.name.rsplit_once('.').map_or("", |(parent, _)| parent);
        // Members stand side by side mostly.
        let is_last = groups.last().is_some_and(|last| last.group == group && last.parent == parent);
        let place = match is_last {
            true => groups.len() - 1,
            false => *places.entry((parent, group)).or_insert_with(|| {
                groups.push(Group { parent, group, members: Vec::with_capacity(3) });
                groups.len() - 1
            }),
        };
        groups[place].members.push(module);
    }
    groups.retain(|group| group.members.len() > 1);
    groups
}

/// Bits of a weight element with its scales, and of an element that it is multiplied with; compared in this order.
fn stored_bits(linear: Option<&LinearNumerics>, model: &Model, module: usize) -> (f64, u32) {
    let plain = (8 * model.config.dtype.size()) as u32;
    match (linear, model.modules[module].role) {
        (Some(linear), ModuleRole::Linear { rows, columns, .. }) => {
            let parts = linear.weight.weight_parts(rows, columns, model.config.dtype);
            let bytes: u64 = parts
                .into_iter()
                .map(|part| {
                    PlannedTensor { name: String::new(), dtype: part.dtype, shape: part.shape }.bytes()
                })
                .sum();
            let input = linear.input.map_or(plain, |input| input.format.bits());
            (8.0 * bytes as f64 / (rows * columns) as f64, input)
        }
        _ => (f64::INFINITY, plain),
    }
}

fn refusal(group: &Group<'_>, assignment: &Assignment, model: &Model) -> Error {
    let first = group.members.first().map_or("", |&module| model.modules[module].name.as_str());
    Error::input(format!(
        "the {} group of `{}` has mixed numerics, and serving engines fuse it into one matrix: {}",
        group.group.name(),
        group.parent,
        words(group, assignment, model)
    ))
    .key(first)
    .hint("add `--fix-groups` to give all members those with the most bits, or give them the same format in the recipe")
}

/// `q_proj FP8, k_proj as it is, …`.
fn words(group: &Group<'_>, assignment: &Assignment, model: &Model) -> String {
    let member = |&module: &usize| {
        let name = &model.modules[module].name;
        let short = name.rsplit('.').next().unwrap_or(name);
        let numerics = assignment.linear(module).map_or_else(|| "as it is".to_owned(), numerics_words);
        format!("`{short}` {numerics}")
    };
    group.members.iter().map(member).collect::<Vec<_>>().join(", ")
}

fn numerics_words(linear: &LinearNumerics) -> String {
    match linear.input {
        Some(input) if input.format == linear.weight => linear.weight.to_string(),
        Some(input) => format!("{} with {} inputs", linear.weight, input.format),
        None => format!("{} weight only", linear.weight),
    }
}
