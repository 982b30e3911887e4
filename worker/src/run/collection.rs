//! One calibration for many candidates: whatever any of them needs of a layer's inputs is observed in one pass and kept.
//!
//! What depends on a candidate's own quantizers (sums behind rounded inputs, layers behind quantized ones) is left to it.

use std::collections::BTreeMap;

use qlaunch_shared::Result;
use qlaunch_shared::assign::{Assignment, Grouping, Piece, Resolved, resolve_with};
use qlaunch_shared::model::Model;
use qlaunch_shared::protocol::{CalibrationSummary, Level, Quantize, TokenSource};
use qlaunch_shared::store::{Aspect, Ground, Key, Observation, Origin, build_keys};

use super::data;
use super::digests::digests;
use super::forward::{Forward, forward};
use super::kept::{Kept, save_observations, wanted};
use super::lookout::Lookout;
use super::quantization::{Means, check_coverage};
use super::relay::Observed;
use crate::calibrate::{Observer, Wanted};
use crate::network::{Batches, CacheSide, Demands, Inputs, SourceWeights, Stage, Streaming, Tap, Turn};
use crate::ops::Backend;
use crate::report::Reporter;
use crate::store::Store;
use crate::tensor::MappedCheckpoint;
use crate::tokens::Use;

/// Observes what any of the candidates needs and the store does not have; what was calibrated on, if anything.
///
/// # Errors
/// A recipe does not fit the model, the data cannot be read, or the disk is full.
pub(super) fn collect<B: Backend>(
    backend: &B,
    (model, means, store): (&Model, Means<'_>, &Store),
    candidates: &[Quantize],
    reporter: &mut Reporter,
) -> Result<Option<CalibrationSummary>> {
    let files = MappedCheckpoint::open(model.files.clone())?;
    let weights = SourceWeights::new(model, &files);
    let stage = Stage::of(means.comm, model, false)?;
    let mut resolved: Vec<(&TokenSource, &Quantize, Resolved)> = Vec::new();
    for candidate in candidates {
        let found = resolve_with(model, Some(&candidate.recipe), candidate.aims(Grouping::ByPiece))?;
        let is_shared = |assignment: &Assignment| {
            assignment.needs_calibration() && !assignment.calibration.is_behind_quantized()
        };
        // Its own job says so, and ends.
        if check_coverage(candidate, &found, model).is_err() {
            continue;
        }
        if let (Some(source), true) =
            (&candidate.calibration, found.assignment.as_ref().is_some_and(is_shared))
        {
            resolved.push((source, candidate, found));
        }
    }
    if resolved.is_empty() {
        return Ok(None);
    }
    let digests = digests(store, (model, &files), means.comm)?;
    let mut summary = None;
    while let Some((source, ..)) = resolved.first() {
        let source = (*source).clone();
        // Each pass shows experts one share of the tokens.
        let ratio = ratio_of(&resolved[0].2);
        let is_same = |(other, _, found): &(&TokenSource, &Quantize, Resolved)| {
            **other == source && ratio_of(found) == ratio
        };
        let (group, others): (Vec<_>, Vec<_>) = resolved.into_iter().partition(is_same);
        resolved = others;
        let samples = data::samples((model, Some(store)), &source, Use::Calibration, reporter)?;
        let told = data::summary(&source, &samples);
        data::agree(stage.comm, &told)?;
        summary = Some(told);
        let tokens = data::identity(&samples);
        let numeric_path = backend.numeric_path();
        if means.comm.rank() == 0 {
            data::note_tokens(store, (&source, model), (&samples, numeric_path))?;
        }
        let mut all = Vec::new();
        for (_, candidate, resolved) in &group {
            let ground = Ground {
                model,
                digests: &digests,
                tokens: Some(&tokens),
                numeric_path,
                silent_experts: candidate.silent_experts,
            };
            let keys = build_keys(resolved, &ground)?;
            let mut say = |text: String| reporter.note(Level::Warning, text);
            all.push(Kept::open(store, (model, resolved), keys, &stage, &mut say)?);
        }
        let assignments: Vec<&Assignment> =
            group.iter().filter_map(|(_, _, resolved)| resolved.assignment.as_ref()).collect();
        let mut collector = Collector::new(store, model, (all, &assignments));
        let pass = Forward {
            weights: &weights,
            stage: &stage,
            batches: Batches::of(&stage, &samples, source.batch_size),
            streaming: collector.streaming(),
            experts_ratio: ratio,
        };
        forward(backend, pass, &mut collector, reporter)?;
        if let Some(lead) = &collector.lead {
            // Another rank may still need its own.
            means.comm.barrier()?;
            lead.trail.forget();
        }
    }
    Ok(summary)
}

fn ratio_of(resolved: &Resolved) -> Option<f64> {
    resolved.assignment.as_ref()?.calibration.experts_ratio()
}

/// The tap that observes for several candidates.
pub(super) struct Collector<'a> {
    store: &'a Store,
    model: &'a Model,
    lookout: Lookout<'a>,
    /// What is kept of each piece.
    unseen: BTreeMap<Piece, Vec<(Observation, Origin)>>,
    /// The first candidate, whose hidden states are those of all.
    lead: Option<Kept<'a>>,
    observed: Observed,
}

impl<'a> Collector<'a> {
    fn new(store: &'a Store, model: &'a Model, (all, assignments): (Vec<Kept<'a>>, &[&Assignment])) -> Self {
        let mut unseen: BTreeMap<Key, (Piece, Observation, Origin)> = BTreeMap::new();
        let mut total = Wanted::default();
        for (kept, assignment) in all.iter().zip(assignments) {
            for (piece, observation, origin) in kept.unseen_statistics() {
                if observation.aspect == Aspect::RoundedGram || unseen.contains_key(&origin.key()) {
                    continue;
                }
                // Two ways to look at one thing do not go together: the second candidate looks for itself.
                let own = wanted([observation].into_iter(), assignment);
                if merge(&mut total, own) {
                    unseen.insert(origin.key(), (piece, observation.clone(), origin.clone()));
                }
            }
        }
        let mut by_piece: BTreeMap<Piece, Vec<(Observation, Origin)>> = BTreeMap::new();
        for (piece, observation, origin) in unseen.into_values() {
            by_piece.entry(piece).or_default().push((observation, origin));
        }
        let lookout = Lookout::new(Observer::new(total, model));
        let observed = Observed {
            all: all.iter().flat_map(|kept| kept.observed().all).collect(),
            unseen: by_piece.values().flatten().map(|(_, origin)| origin.key()).collect(),
        };
        let lead = all.into_iter().next();
        Self { store, model, lookout, unseen: by_piece, lead, observed }
    }

    fn streaming(&self) -> Streaming {
        match self.lookout.observer.keeps_large_sums() {
            true => Streaming::AheadThenLayerByLayer,
            false => Streaming::InGroups,
        }
    }

    /// Keeps what was seen of a piece.
    fn keep(&mut self, piece: Piece) -> Result<()> {
        self.lookout.observer.settle();
        if let Some(unseen) = self.unseen.remove(&piece) {
            let unseen = unseen.iter().map(|(observation, origin)| (observation, origin));
            save_observations(self.store, unseen, self.model, &mut self.lookout)?;
        }
        let model = self.model;
        self.lookout.observer.statistics.forget(|module| model.modules[module].layer == piece.layer());
        Ok(())
    }
}

/// Adds what is wanted; false, and nothing is added, where something of it is wanted in another way already.
fn merge(total: &mut Wanted, own: Wanted) -> bool {
    let clashes = own.inputs.iter().any(|(module, needs)| {
        let known = total.inputs.get(module).and_then(|known| known.block_grams);
        needs.block_grams.is_some_and(|own| known.is_some_and(|known| known != own))
    });
    let clashes = clashes
        || own.keys.iter().any(|(layer, own)| total.keys.get(layer).is_some_and(|known| known != own))
        || own.values.iter().any(|(layer, own)| total.values.get(layer).is_some_and(|known| known != own));
    if clashes {
        return false;
    }
    for (module, needs) in own.inputs {
        let known = total.inputs.entry(module).or_default();
        *known = known.and(needs);
    }
    total.keys.extend(own.keys);
    total.values.extend(own.values);
    true
}

impl<'a, B: Backend> super::forward::Watcher<'a, B> for Collector<'a> {
    fn unseen(&self) -> Option<Vec<Piece>> {
        Some(self.unseen.keys().copied().collect())
    }

    fn lookout(&self) -> &Lookout<'a> {
        &self.lookout
    }

    fn lookout_mut(&mut self) -> &mut Lookout<'a> {
        &mut self.lookout
    }

    fn kept(&self) -> Option<&Kept<'a>> {
        self.lead.as_ref()
    }

    fn observed(&self) -> Observed {
        self.observed.clone()
    }

    fn look_again(&mut self, _layer: Option<usize>) -> Result<bool> {
        self.keep(Piece::Last)?;
        Ok(false)
    }
}

impl<B: Backend> Tap<B> for Collector<'_> {
    fn demands(&self) -> Demands {
        Tap::<B>::demands(&self.lookout.observer)
    }

    fn input(&mut self, backend: &B, readers: &[usize], x: &B::Tensor) -> Result<Inputs<B::Tensor>> {
        self.lookout.observer.input(backend, readers, x)
    }

    fn routed(&mut self, layer: usize, tokens: &[u64]) -> Result<()> {
        Tap::<B>::routed(&mut self.lookout.observer, layer, tokens)
    }

    fn widened(&mut self, layer: usize, tokens: &[u64]) -> Result<()> {
        Tap::<B>::widened(&mut self.lookout.observer, layer, tokens)
    }

    fn cache(&mut self, backend: &B, layer: usize, side: CacheSide, x: &mut B::Tensor) -> Result<()> {
        self.lookout.observer.cache(backend, layer, side, x)
    }

    fn turn(&mut self, _backend: &B, layer: usize) -> Result<Turn> {
        self.keep(Piece::Layer(layer))?;
        Ok(Turn::Next)
    }

    fn arrived(&mut self, backend: &B, group: usize, states: &[B::Tensor]) -> Result<()> {
        self.lookout.arrived(backend, group, states)
    }

    fn grouped(&mut self, groups: usize, seen: bool) -> Result<()> {
        self.lookout.grouped(groups, seen)
    }

    fn passed(&mut self, backend: &B, layer: usize, hidden: &[B::Tensor]) -> Result<()> {
        match (&mut self.lead, self.lookout.samples) {
            (Some(lead), Some(samples)) => lead.trail.pass(backend, layer, (samples, hidden)),
            _ => Ok(()),
        }
    }
}
