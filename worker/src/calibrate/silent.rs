//! Routed experts that saw no token: found layer by layer, and what stands in for what they would have seen.
//!
//! Scales of inputs are one for all experts of a layer, so that only what is kept by expert needs a stand-in: sums of
//! products of channels (GPTQ, clipping, local Hessians).

use std::sync::Arc;

use qlaunch_shared::assign::{Assignment, Needs};
use qlaunch_shared::model::{Model, Projection};
use qlaunch_shared::protocol::SilentExperts;
use qlaunch_shared::{Error, Result};

use super::statistics::{BlockGrams, Gram, InputStatistics, Statistics};

/// Names of experts that an error lists.
const LISTED: usize = 8;

/// What stands in for the statistics of an expert that the model sent no token to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StandIn {
    /// It was shown so many tokens besides those that the model sends it.
    Shown(u64),
    /// What the other experts of its layer saw.
    Peers,
    /// Its weights alone.
    Weights,
    /// Nothing needs to: the recipe asks for no statistics of it.
    NotNeeded,
}

impl StandIn {
    /// Its name in reports.
    pub fn name(self) -> String {
        match self {
            Self::Shown(tokens) => format!("shown {tokens} tokens by `moe_calib_experts_ratio`"),
            Self::Peers => "peers".to_owned(),
            Self::Weights => "weights".to_owned(),
            Self::NotNeeded => "not_needed".to_owned(),
        }
    }
}

impl Statistics {
    /// Settles what stands in for the experts of a layer that got no token, once all tokens went through it.
    ///
    /// # Errors
    /// The policy is to fail, and an expert whose statistics the recipe needs saw no token.
    pub fn settle_silent(
        &mut self,
        (assignment, model): (&Assignment, &Model),
        layer: usize,
        policy: SilentExperts,
    ) -> Result<()> {
        let Some(routed) = self.routed.get(&layer) else { return Ok(()) };
        let silent: Vec<u32> =
            (0..).zip(routed).filter(|(_, tokens)| **tokens == 0).map(|(e, _)| e).collect();
        let mut without = Vec::new();
        for expert in silent {
            let own: Vec<usize> = linears(assignment, model, layer)
                .filter(|&(module, _)| model.modules[module].expert() == Some(expert))
                .filter(|&(module, _)| needs(assignment, module) != Needs::default())
                .map(|(module, _)| module)
                .collect();
            let shown = own.iter().filter_map(|module| Some(self.inputs.get(module)?.tokens)).max();
            let stand_in = match (own.is_empty(), shown.filter(|&tokens| tokens > 0)) {
                (true, _) => StandIn::NotNeeded,
                (false, Some(tokens)) => StandIn::Shown(tokens),
                (false, None) => {
                    without.push(expert);
                    continue;
                }
            };
            self.silent.insert((layer, expert), stand_in);
        }
        if without.is_empty() {
            return Ok(());
        }
        if policy == SilentExperts::Fail {
            return Err(refusal(model, layer, &without));
        }
        let heard = policy == SilentExperts::Peers && self.lend(assignment, model, layer, &without);
        let stand_in = if heard { StandIn::Peers } else { StandIn::Weights };
        self.silent.extend(without.into_iter().map(|expert| ((layer, expert), stand_in)));
        Ok(())
    }

    /// Gives the gate and up projections of some experts what those of all others saw; whether anything was seen. The
    /// channels that a down projection reads are its own expert's, and nobody else's say anything of them.
    fn lend(&mut self, assignment: &Assignment, model: &Model, layer: usize, without: &[u32]) -> bool {
        let projections = [Projection::Gate, Projection::Up];
        let mut heard = false;
        for projection in projections {
            let same: Vec<usize> = linears(assignment, model, layer)
                .filter(|(_, own)| *own == Some(projection))
                .map(|(module, _)| module)
                .collect();
            let merged = self.merged(&same);
            heard |= same.iter().any(|module| self.inputs.get(module).is_some_and(|seen| seen.tokens > 0));
            for module in same {
                if model.modules[module].expert().is_some_and(|expert| without.contains(&expert)) {
                    let own = self.inputs.entry(module).or_default();
                    own.gram.clone_from(&merged.gram);
                    own.rounded_gram.clone_from(&merged.rounded_gram);
                    own.block_grams.clone_from(&merged.block_grams);
                }
            }
        }
        heard
    }

    /// The sums of all linears, expert by expert in order.
    fn merged(&self, modules: &[usize]) -> InputStatistics {
        let mut merged = InputStatistics::default();
        for seen in modules.iter().filter_map(|module| self.inputs.get(module)) {
            add(&mut merged.gram, seen.gram.as_ref(), Gram::add);
            add(&mut merged.rounded_gram, seen.rounded_gram.as_ref(), Gram::add);
            add(&mut merged.block_grams, seen.block_grams.as_ref(), BlockGrams::add);
        }
        merged
    }
}

fn add<T: Clone>(sum: &mut Option<Arc<T>>, own: Option<&Arc<T>>, add: impl Fn(&mut T, &T)) {
    match (sum, own) {
        (Some(sum), Some(own)) => add(Arc::make_mut(sum), own),
        (sum @ None, Some(own)) => *sum = Some(Arc::clone(own)),
        (_, None) => {}
    }
}

fn needs(assignment: &Assignment, module: usize) -> Needs {
    let linear = assignment.linear(module);
    linear.map(|linear| Needs::of(&assignment.calibration, linear)).unwrap_or_default()
}

/// The quantized linears of a layer's experts.
fn linears<'a>(
    assignment: &'a Assignment,
    model: &'a Model,
    layer: usize,
) -> impl Iterator<Item = (usize, Option<Projection>)> + 'a {
    assignment.linears.iter().filter_map(move |linear| {
        let part = &model.modules[linear.module];
        (part.layer == Some(layer) && part.expert().is_some()).then_some((linear.module, part.projection))
    })
}

fn refusal(model: &Model, layer: usize, experts: &[u32]) -> Error {
    // `….experts.3.gate_proj` without its last part.
    let name = |expert: u32| {
        let own =
            model.modules.iter().find(|part| part.layer == Some(layer) && part.expert() == Some(expert));
        own.and_then(|part| part.name.rsplit_once('.')).map_or_else(String::new, |(name, _)| name.to_owned())
    };
    let mut names: Vec<String> =
        experts.iter().take(LISTED).map(|&expert| format!("`{}`", name(expert))).collect();
    if experts.len() > LISTED {
        names.push(format!("{} more", experts.len() - LISTED));
    }
    let first = experts.first().map_or_else(String::new, |&expert| name(expert));
    Error::input(format!(
        "{} of the experts of layer {layer} saw no token in calibration: {}",
        experts.len(),
        names.join(", ")
    ))
    .key(first)
    .hint(
        "give more calibration data, set `moe_calib_experts_ratio: 1.0` in the recipe's `algorithm`, or let \
         `silent_experts` be `peers` or `weights`",
    )
}

#[cfg(test)]
#[path = "silent_tests.rs"]
mod tests;
