//! Modules of a model whose family nobody knows, told from the names and shapes of its tensors.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{FusedGroup, Module, ModuleRole, Part, Projection};
use crate::Result;
use crate::checkpoint::{CheckpointFiles, DType, TensorEntry};

/// What decides how names are read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reading {
    /// Element type of the model; tensors of another one are carried over.
    pub dtype: DType,
    /// Decoder layers, where the config says so; what lies beyond predicts several tokens and is not loaded.
    pub layers: Option<usize>,
    /// Whether the model brings code of its own, which keeps experts as linears.
    pub own_code: bool,
}

/// The modules of a model in the order of their names, numbers as numbers, and tensors that none of them owns.
pub(super) fn modules<'a>(
    tensors: impl Iterator<Item = &'a TensorEntry>,
    reading: Reading,
) -> (Vec<Module>, Vec<String>) {
    let tensors: Vec<&TensorEntry> = tensors.collect();
    let main = main_stack(&tensors);
    let mut modules: BTreeMap<String, Module> = BTreeMap::new();
    let mut rest = Vec::new();
    for tensor in tensors {
        let owner = tensor.name.strip_suffix(".weight").filter(|_| tensor.dtype == reading.dtype);
        let role = owner.and_then(|owner| Some((owner, role(owner, &tensor.shape)?)));
        match role {
            Some((owner, role)) => {
                let layer = layer(owner, main.as_deref());
                if layer.is_some_and(|layer| reading.layers.is_some_and(|layers| layer >= layers)) {
                    rest.push(tensor);
                } else {
                    modules.insert(sortable(owner), module(owner, role, layer, reading));
                }
            }
            None => rest.push(tensor),
        }
    }
    let is_bias = |tensor: &&TensorEntry| {
        tensor.name.strip_suffix(".bias").is_some_and(|owner| modules.contains_key(&sortable(owner)))
    };
    let strangers = rest.iter().filter(|tensor| !is_bias(tensor)).map(|tensor| tensor.name.clone()).collect();
    let attentions: Vec<(String, Module)> = attentions(&modules);
    modules.extend(attentions);
    (modules.into_values().collect(), strangers)
}

/// The files, with fused experts (`experts.gate_up_proj` `[experts, 2 · inner, hidden]`, `experts.down_proj`
/// `[experts, hidden, inner]`) one by one, as they are written. Experts that are stored the other way round stay.
///
/// # Errors
/// Two tensors have one name then.
pub(super) fn taken_apart(files: CheckpointFiles) -> Result<CheckpointFiles> {
    let shape = |container: &str, which: &str| {
        let names = [format!("{container}.{which}"), format!("{container}.{which}.weight")];
        let found = names.iter().find_map(|name| files.find(name)).map(|(_, tensor)| tensor);
        found.and_then(|tensor| <[usize; 3]>::try_from(tensor.shape.as_slice()).ok())
    };
    let is_upright = |container: &str| match (shape(container, "gate_up_proj"), shape(container, "down_proj"))
    {
        (Some([up_count, twice, hidden]), Some([down_count, rows, inner])) => {
            up_count == down_count && twice == 2 * inner && rows == hidden && up_count > 0
        }
        _ => false,
    };
    let place = |tensor: &TensorEntry| {
        let name = tensor.name.strip_suffix(".weight").unwrap_or(&tensor.name);
        let (container, which) = name.rsplit_once('.')?;
        let parts: &[&str] = match which {
            "gate_up_proj" => &["gate_proj", "up_proj"],
            "down_proj" => &["down_proj"],
            _ => return None,
        };
        (container.ends_with(".experts") && is_upright(container)).then(|| (container.to_owned(), parts))
    };
    let mut headers = files.headers.clone();
    for header in &mut headers {
        let split = |tensor: TensorEntry| match place(&tensor) {
            Some((container, parts)) => split(&tensor, &container, parts),
            None => vec![tensor],
        };
        header.tensors = std::mem::take(&mut header.tensors).into_iter().flat_map(split).collect();
    }
    CheckpointFiles::from_headers(&files.folder, headers)
}

/// The linears of a fused tensor `[experts, parts · rows, columns]`.
fn split(tensor: &TensorEntry, container: &str, parts: &[&str]) -> Vec<TensorEntry> {
    let &[count, rows, columns] = tensor.shape.as_slice() else { return vec![tensor.clone()] };
    let length = tensor.length / (count * parts.len()) as u64;
    let slots = (0..count).flat_map(|expert| parts.iter().map(move |part| (expert, part)));
    let entry = |((expert, part), index): ((usize, &&str), u64)| TensorEntry {
        name: format!("{container}.{expert}.{part}.weight"),
        dtype: tensor.dtype,
        shape: vec![rows / parts.len(), columns],
        offset: tensor.offset + index * length,
        length,
    };
    slots.zip(0..).map(entry).collect()
}

fn role(owner: &str, shape: &[usize]) -> Option<ModuleRole> {
    match *shape {
        [width] => Some(ModuleRole::Norm { width }),
        [rows, columns] if is_table(owner) => Some(ModuleRole::Embedding { rows, columns }),
        [rows, columns] => Some(ModuleRole::Linear { rows, columns, group: group(owner) }),
        _ => None,
    }
}

fn is_table(owner: &str) -> bool {
    let last = owner.rsplit('.').next().unwrap_or(owner);
    last.starts_with("embed") && last != "embed_out"
        || matches!(last, "wte" | "wpe")
        || last.ends_with("_embeddings")
}

fn group(owner: &str) -> Option<FusedGroup> {
    match owner.rsplit('.').next()? {
        "q_proj" | "k_proj" | "v_proj" => Some(FusedGroup::Qkv),
        "gate_proj" | "up_proj" | "w1" | "w3" => {
            Some(expert(owner).map_or(FusedGroup::GateUp, |(_, expert)| FusedGroup::Expert(expert)))
        }
        "in_proj_qkv" | "in_proj_z" => Some(FusedGroup::LinearInputs),
        "in_proj_a" | "in_proj_b" => Some(FusedGroup::LinearGates),
        _ => None,
    }
}

fn module(owner: &str, role: ModuleRole, layer: Option<usize>, reading: Reading) -> Module {
    let part = part(owner, role, reading.own_code);
    let projection = match owner.rsplit('.').next() {
        Some("q_proj") => Some(Projection::Query),
        Some("k_proj") => Some(Projection::Key),
        Some("v_proj") => Some(Projection::Value),
        Some("o_proj") => Some(Projection::Output),
        Some("gate_proj" | "w1") => Some(Projection::Gate),
        Some("up_proj" | "w3") => Some(Projection::Up),
        Some("down_proj" | "w2") => Some(Projection::Down),
        _ => None,
    };
    let fused = expert(owner).filter(|_| !reading.own_code && projection.is_some());
    let container = fused.map(|(container, _)| Arc::from(container));
    Module { layer, projection, container, ..Module::new(owner, role, part) }
}

fn part(owner: &str, role: ModuleRole, own_code: bool) -> Part {
    let last = owner.rsplit('.').next().unwrap_or(owner);
    let any = |fits: fn(&str) -> bool| owner.split('.').any(fits);
    if any(is_vision) {
        return Part::Vision;
    }
    match role {
        ModuleRole::Embedding { .. } => return Part::Embedding,
        ModuleRole::Norm { .. } => return Part::Norm,
        ModuleRole::Linear { .. } | ModuleRole::Attention => {}
    }
    if matches!(last, "lm_head" | "output_layer" | "embed_out") || owner == "output" {
        return Part::Head;
    }
    if last == "shared_expert_gate" {
        return Part::Gate;
    }
    if last == "gate" || any(|segment| segment.contains("router")) {
        return if own_code { Part::Gate } else { Part::Router };
    }
    if any(|segment| matches!(segment, "shared_expert" | "shared_experts" | "share_expert" | "shared_mlp")) {
        return Part::SharedExpert;
    }
    if let Some((_, expert)) = expert(owner) {
        return Part::Expert(expert);
    }
    if any(|segment| segment.contains("attn") || segment.contains("attention")) {
        return Part::Attention;
    }
    let is_mlp =
        |segment: &str| matches!(segment, "mlp" | "ffn" | "feed_forward" | "block_sparse_moe" | "moe");
    if any(is_mlp) { Part::Mlp } else { Part::Other }
}

fn is_vision(segment: &str) -> bool {
    ["vision", "visual", "multi_modal_projector", "mm_projector"].iter().any(|word| segment.contains(word))
}

/// The module that holds all experts, and which of them a linear belongs to.
fn expert(owner: &str) -> Option<(&str, u32)> {
    let at = owner.find(".experts.")? + ".experts".len();
    let number = owner[at + 1..].split('.').next()?;
    Some((&owner[..at], number.parse().ok()?))
}

/// Attentions with a cache: what has a key and a value projection.
fn attentions(modules: &BTreeMap<String, Module>) -> Vec<(String, Module)> {
    let keys = modules.values().filter(|module| {
        module.projection == Some(Projection::Key) && module.part == Part::Attention && module.layer.is_some()
    });
    let attention = |key: &Module| {
        let name = key.name.strip_suffix(".k_proj")?;
        modules.get(&sortable(&format!("{name}.v_proj")))?;
        let own = Module { layer: key.layer, ..Module::new(name, ModuleRole::Attention, Part::Attention) };
        Some((sortable(name), own))
    };
    keys.filter_map(attention).collect()
}

/// A name as a key that sorts numbers by their value.
fn sortable(name: &str) -> String {
    let mut key = String::with_capacity(name.len() + 12);
    for segment in name.split('.') {
        if segment.bytes().all(|byte| byte.is_ascii_digit()) {
            for _ in segment.len()..8 {
                key.push('0');
            }
        }
        key.push_str(segment);
        // Below every character of a name, so that a module stands before its parts.
        key.push('\u{1}');
    }
    key
}

/// What stands before the number of a layer, and the number.
fn stacked(name: &str) -> Option<(&str, usize)> {
    let mut at = 0;
    for segment in name.split('.') {
        if at > 0
            && let Ok(number) = segment.parse()
        {
            return Some((&name[..at - 1], number));
        }
        at += segment.len() + 1;
    }
    None
}

/// The stack with the most layers: the decoder, not the encoder of pictures.
fn main_stack(tensors: &[&TensorEntry]) -> Option<String> {
    let mut stacks: BTreeMap<&str, BTreeSet<usize>> = BTreeMap::new();
    for (stack, layer) in tensors.iter().filter_map(|tensor| stacked(&tensor.name)) {
        if !stack.split('.').any(is_vision) {
            stacks.entry(stack).or_default().insert(layer);
        }
    }
    stacks.into_iter().max_by_key(|(_, layers)| layers.len()).map(|(stack, _)| stack.to_owned())
}

fn layer(owner: &str, main: Option<&str>) -> Option<usize> {
    let (stack, layer) = stacked(owner)?;
    (main == Some(stack)).then_some(layer)
}
