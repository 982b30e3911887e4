//! The linears of a model as engines build them: q/k/v and gate/up as one matrix, the experts of a layer as one module.

use std::collections::HashMap;

use crate::model::{FusedGroup, Model, Module, ModuleRole, Part};

/// A layer of an engine and the linears of the checkpoint that it is made from.
#[derive(Debug, Clone)]
pub(super) struct ServedLayer<'a> {
    /// What engines call it, as in `model.layers.0.self_attn.qkv_proj` or `model.layers.0.mlp.experts`.
    pub(super) name: String,
    pub(super) kind: Kind,
    /// Indexes of its linears with their modules.
    pub(super) shards: Vec<(usize, &'a Module)>,
}

/// How a layer is put together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// One linear.
    Single,
    /// Linears that read the same input, under each other.
    Fused,
    /// All linears of all routed experts.
    Experts,
}

/// The layers of a model in the order of their first linear; a tied head has none of its own.
pub(super) fn served_layers(model: &Model) -> Vec<ServedLayer<'_>> {
    let mut layers: Vec<ServedLayer<'_>> = Vec::new();
    let mut places: HashMap<String, usize> = HashMap::new();
    let linears = model.modules.iter().enumerate().filter(|(_, part)| part.is_linear());
    for (module, part) in linears.filter(|(_, part)| !model.is_tied_head(part)) {
        let (name, kind) = served_name(part);
        let place = *places.entry(name).or_insert_with_key(|name| {
            layers.push(ServedLayer { name: name.clone(), kind, shards: Vec::new() });
            layers.len() - 1
        });
        layers[place].shards.push((module, part));
    }
    layers
}

fn served_name(part: &Module) -> (String, Kind) {
    let parent = part.name.rsplit_once('.').map_or("", |(parent, _)| parent);
    if let Part::Expert(_) = part.part {
        let block = part.name.split_once(".experts.").map_or(parent, |(block, _)| block);
        return (format!("{block}.experts"), Kind::Experts);
    }
    let ModuleRole::Linear { group: Some(group), .. } = part.role else {
        return (part.name.clone(), Kind::Single);
    };
    let fused = match group {
        FusedGroup::Qkv => "qkv_proj",
        FusedGroup::GateUp | FusedGroup::Expert(_) => "gate_up_proj",
        FusedGroup::LinearInputs => "in_proj_qkvz",
        FusedGroup::LinearGates => "in_proj_ba",
    };
    (format!("{parent}.{fused}"), Kind::Fused)
}

impl ServedLayer<'_> {
    /// Names of its linears.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.shards.iter().map(|(_, part)| part.name.as_str())
    }

    /// Whether all of its linears are excluded, by one rule; an error where some are and others not.
    pub(super) fn all_or_none(&self, is_excluded: impl Fn(&str) -> bool) -> Result<bool, String> {
        let hits = self.names().filter(|name| is_excluded(name)).count();
        if hits != 0 && hits != self.shards.len() {
            return Err(format!("{hits} of {} linears of `{}` are excluded", self.shards.len(), self.name));
        }
        Ok(hits > 0)
    }

    /// Whether it chooses experts; engines keep these unquantized or build them from the config like any linear.
    pub(super) fn is_router(&self) -> bool {
        self.shards.iter().all(|(_, part)| part.part == Part::Router)
    }

    /// Linears that must share their per-tensor scales: the whole layer, or gate and up of one expert.
    pub(super) fn sharing(&self) -> Vec<Vec<&str>> {
        match self.kind {
            Kind::Single => Vec::new(),
            Kind::Fused => vec![self.names().collect()],
            Kind::Experts => {
                let mut groups: HashMap<FusedGroup, Vec<&str>> = HashMap::new();
                for (_, part) in &self.shards {
                    if let ModuleRole::Linear { group: Some(group), .. } = part.role {
                        groups.entry(group).or_default().push(&part.name);
                    }
                }
                let mut groups: Vec<_> = groups.into_iter().collect();
                groups.sort_by_key(|(group, _)| *group);
                groups.into_iter().map(|(_, names)| names).collect()
            }
        }
    }
}
