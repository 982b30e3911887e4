//! The quantizers that ModelOpt would insert into a model (modelopt.md §2.3), and what a recipe's entries do to them.

use std::sync::Arc;

use super::PatternReach;
use super::fates::Fates;
use crate::model::{Model, Module, ModuleRole, QuantizerHome};
use crate::numerics::field::Field;
use crate::numerics::{Axis, QuantizerAttributes};
use crate::recipe::{EntryOrigin, QuantizerEntry};
use crate::{Error, Result};

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
    pub(super) slot: Slot,
    /// One for a plain quantizer, several for a sequence.
    pub(super) attributes: Arc<[QuantizerAttributes]>,
}

/// What a quantizer sits on, and so what it starts as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Seat {
    LinearInput,
    LinearOutput,
    LinearWeight,
    ExpertsInput,
    ExpertWeight,
    TableWeight,
    TableInput,
    TableOutput,
    Query,
    Key,
    Value,
    Probability,
}

/// How many there are.
pub(super) const SEATS: usize = 12;

const LINEAR: [Seat; 3] = [Seat::LinearInput, Seat::LinearOutput, Seat::LinearWeight];
const TABLE: [Seat; 3] = [Seat::TableWeight, Seat::TableInput, Seat::TableOutput];
const ATTENTION: [Seat; 4] = [Seat::Query, Seat::Key, Seat::Value, Seat::Probability];

impl Seat {
    pub(super) const fn slot(self) -> Slot {
        match self {
            Self::LinearWeight | Self::ExpertWeight | Self::TableWeight => Slot::Weight,
            Self::LinearInput | Self::ExpertsInput | Self::TableInput => Slot::Input,
            Self::LinearOutput | Self::TableOutput => Slot::Output,
            Self::Query => Slot::Query,
            Self::Key => Slot::Key,
            Self::Value => Slot::Value,
            Self::Probability => Slot::Probability,
        }
    }

    /// Its name below its module.
    const fn suffix(self) -> &'static str {
        match self {
            Self::LinearWeight | Self::TableWeight => ".weight_quantizer",
            Self::LinearInput | Self::TableInput => ".input_quantizer",
            Self::LinearOutput | Self::TableOutput => ".output_quantizer",
            Self::ExpertsInput => "_input_quantizer",
            Self::ExpertWeight => "_weight_quantizers.",
            Self::Query => ".q_bmm_quantizer",
            Self::Key => ".k_bmm_quantizer",
            Self::Value => ".v_bmm_quantizer",
            Self::Probability => ".p_bmm_quantizer",
        }
    }

    /// Class of the module that it is an attribute of, where recipes can name that.
    pub(super) const fn class(self) -> Option<&'static str> {
        match self {
            Self::LinearInput | Self::LinearOutput | Self::LinearWeight => Some("nn.Linear"),
            Self::TableWeight | Self::TableInput | Self::TableOutput => Some("nn.Embedding"),
            _ => None,
        }
    }

    /// Whether it is on before any entry is applied.
    pub(super) const fn starts_enabled(self) -> bool {
        !matches!(self, Self::LinearOutput | Self::TableInput | Self::TableOutput)
    }

    /// Whether an entry can switch it on: token ids cannot be quantized.
    pub(super) const fn can_be_enabled(self) -> bool {
        !matches!(self, Self::TableInput)
    }

    /// 8-bit integers, of a linear's weight with a scale per row.
    pub(super) fn starts_with(self) -> QuantizerAttributes {
        let axis = match self {
            Self::LinearWeight => Field::Set(Axis::One(0)),
            _ => Field::Unset,
        };
        QuantizerAttributes { axis, ..QuantizerAttributes::default() }
    }
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

/// All quantizers of a model with the recipe's entries applied to them.
#[derive(Debug)]
pub(super) struct Quantizers<'a> {
    fates: Fates<'a>,
    /// Fates of each module's quantizers; fused experts share theirs.
    placed: Vec<Placed>,
    /// How far each entry reached.
    pub(super) reach: Vec<PatternReach>,
}

/// Fates of one module's quantizers; the model has too many modules for a list each.
pub(super) type Placed = [Option<u32>; 4];

impl<'a> Quantizers<'a> {
    /// Applies entries in order, later ones winning, and counts what each pattern reached.
    ///
    /// # Errors
    /// An entry names a parent class that does not exist, or enables a pattern of the user's own file that matches
    /// nothing.
    pub(super) fn apply(entries: &'a [QuantizerEntry], model: &Model) -> Result<Self> {
        entries.iter().try_for_each(check_class)?;
        let mut fates = Fates::new(entries);
        let placed = place(model, &mut fates);
        let reach = entries.iter().zip(fates.counts()).map(|(entry, matched)| {
            if matched == 0 && entry.enable && entry.origin == EntryOrigin::Own {
                return Err(unmatched(entry, model));
            }
            Ok(PatternReach { pattern: entry.quantizer_name.clone(), enables: entry.enable, matched })
        });
        let reach = reach.collect::<Result<_>>()?;
        Ok(Self { fates, placed, reach })
    }

    /// Fates of a module's quantizers that are on: what its numerics depend on.
    pub(super) fn enabled(&self, module: usize) -> Placed {
        self.placed[module].map(|fate| fate.filter(|&fate| self.fates.get(fate).enabled))
    }

    /// A module's quantizers that are on.
    pub(super) fn of(&self, module: usize, part: &Module) -> Vec<Quantizer> {
        let enabled = self.enabled(module).into_iter().flatten();
        enabled
            .map(|index| {
                let fate = self.fates.get(index);
                let mut name = String::new();
                write_name(part, fate.seat, &mut name);
                Quantizer { name, slot: fate.seat.slot(), attributes: Arc::clone(&fate.attributes) }
            })
            .collect()
    }
}

#[cfg(test)]
impl Quantizers<'_> {
    /// Every quantizer by name, and whether it is on.
    pub(super) fn all(&self, model: &Model) -> std::collections::BTreeMap<String, bool> {
        let mut all = std::collections::BTreeMap::new();
        for (module, part) in model.modules.iter().enumerate() {
            for index in self.placed[module].into_iter().flatten() {
                let fate = self.fates.get(index);
                let mut name = String::new();
                write_name(part, fate.seat, &mut name);
                all.insert(name, fate.enabled);
            }
        }
        all
    }
}

/// Fates of the quantizers that linears of the experts at hand share: of the inputs of both tensors, and of the weights.
#[derive(Debug, Default)]
struct Experts<'a> {
    container: &'a str,
    inputs: [Option<u32>; 2],
    weights: [Vec<Option<u32>>; 2],
}

impl<'a> Experts<'a> {
    fn enter(&mut self, container: &'a str) {
        if self.container != container {
            *self = Self { container, ..Self::default() };
        }
    }

    fn fate(&mut self, seat: Seat, tensor: &str, expert: u32) -> &mut Option<u32> {
        let which = usize::from(tensor == "down_proj");
        if seat == Seat::ExpertsInput {
            return &mut self.inputs[which];
        }
        let (weights, expert) = (&mut self.weights[which], expert as usize);
        if weights.len() <= expert {
            weights.resize(expert + 1, None);
        }
        &mut weights[expert]
    }
}

/// Gives every quantizer its fate.
fn place(model: &Model, fates: &mut Fates<'_>) -> Vec<Placed> {
    let mut placed = vec![Placed::default(); model.modules.len()];
    let mut name = String::new();
    let mut experts = Experts::default();
    for (part, own) in model.modules.iter().zip(&mut placed) {
        let seats: &[Seat] = match part.role {
            ModuleRole::Linear { .. } => match part.quantizer_home() {
                QuantizerHome::Linear => &LINEAR,
                QuantizerHome::Nowhere => &[],
                QuantizerHome::Experts { container, tensor, expert } => {
                    experts.enter(container);
                    for (fate, seat) in own.iter_mut().zip([Seat::ExpertsInput, Seat::ExpertWeight]) {
                        let known = experts.fate(seat, tensor, expert);
                        *fate = Some(*known.get_or_insert_with(|| {
                            write_name(part, seat, &mut name);
                            fates.of(seat, &name)
                        }));
                    }
                    continue;
                }
            },
            ModuleRole::Embedding { .. } => &TABLE,
            ModuleRole::Attention => &ATTENTION,
            _ => &[],
        };
        for (fate, &seat) in own.iter_mut().zip(seats) {
            write_name(part, seat, &mut name);
            *fate = Some(fates.of(seat, &name));
        }
    }
    placed
}

/// Writes the full name of a module's quantizer.
fn write_name(part: &Module, seat: Seat, name: &mut String) {
    name.clear();
    match (seat, part.quantizer_home()) {
        (Seat::ExpertsInput | Seat::ExpertWeight, QuantizerHome::Experts { container, tensor, expert }) => {
            name.push_str(container);
            name.push('.');
            name.push_str(tensor);
            name.push_str(seat.suffix());
            if seat == Seat::ExpertWeight {
                name.push_str(&expert.to_string());
            }
        }
        _ => {
            name.push_str(&part.name);
            name.push_str(seat.suffix());
        }
    }
}

fn check_class(entry: &QuantizerEntry) -> Result<()> {
    match entry.parent_class.as_deref().filter(|class| !PARENT_CLASSES.contains(class)) {
        None => Ok(()),
        Some(class) => Err(Error::input(format!("there is no module class `{class}`"))
            .key("parent_class")
            .hint("use a class such as `nn.Linear` or `nn.Embedding`")),
    }
}

fn unmatched(entry: &QuantizerEntry, model: &Model) -> Error {
    let error =
        Error::input(format!("the pattern `{}` matches no quantizer of this model", entry.quantizer_name))
            .at(&model.folder)
            .hint(
                "`qlaunch plan MODEL --recipe fp8` shows the names of its modules; remove what is not there",
            );
    let error = match entry.place.0.as_deref() {
        Some(place) => Error { place: Box::new(place.clone()), ..error },
        None => error,
    };
    error.key("quantize.quant_cfg")
}
