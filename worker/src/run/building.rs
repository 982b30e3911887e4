//! The tap that makes a checkpoint while calibration data streams through the model: it observes a layer as often as the
//! recipe needs it, has the layer quantized and written, and goes on behind it, quantized where the recipe wants that.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use qlaunch_shared::assign::{Assignment, Piece};
use qlaunch_shared::model::Model;
use qlaunch_shared::protocol::{Level, NumericPath, SilentExperts};
use qlaunch_shared::{Error, ErrorKind, Result};

use super::forward::Watcher;
use super::kept::Kept;
use super::lookout::Lookout;
use super::looks::{Look, known_beforehand, known_of_layer, linears_of, served, waits};
use super::output::Output;
use super::relay::Observed;
use crate::calibrate::Observer;
use crate::evaluate::{ServedNumerics, Simulator};
use crate::export::Production;
use crate::network::{CacheSide, Demands, Inputs, Streaming, Tap, Turn};
use crate::ops::Backend;
use crate::report::Reporter;
use crate::store::{Claim, Watch};

/// A checkpoint that is made layer by layer.
pub(super) struct Building<'a> {
    assignment: &'a Assignment,
    model: &'a Model,
    lookout: Lookout<'a>,
    production: Production<'a>,
    output: Output<'a>,
    /// What quantizers do to inputs by scales that need no calibration.
    known: ServedNumerics,
    look: Look,
    silent_experts: SilentExperts,
}

impl<'a> Building<'a> {
    /// Begins with nothing seen; `silent_experts` says what stands in for the statistics of experts without tokens.
    pub(super) fn new(
        assignment: &'a Assignment,
        model: &'a Model,
        (production, output): (Production<'a>, Output<'a>),
        silent_experts: SilentExperts,
        numeric_path: NumericPath,
    ) -> Self {
        let mut observer = Observer::new(output.wanted(assignment), model);
        observer.statistics.numeric_path = Some(numeric_path);
        let known = known_beforehand(assignment);
        let (lookout, look) = (Lookout::new(observer), Look::First);
        Self { assignment, model, lookout, production, output, known, look, silent_experts }
    }

    /// How batches may go through the layers of one of several ranks.
    pub(super) fn streaming(&self) -> Streaming {
        if self.assignment.calibration.is_behind_quantized() {
            return Streaming::LayerByLayer;
        }
        match self.lookout.observer.keeps_large_sums() {
            true => Streaming::AheadThenLayerByLayer,
            false => Streaming::InGroups,
        }
    }

    /// Whether a piece is still to be made.
    pub(super) fn is_missing(&self, piece: Piece) -> bool {
        self.output.is_missing(piece)
    }

    /// Whether pieces are kept one by one, for another attempt to go on from.
    pub(super) const fn keeps_pieces(&self) -> bool {
        self.output.kept().is_some()
    }

    /// Share of the experts that every token is to be shown to.
    pub(super) fn experts_ratio(&self) -> Option<f64> {
        self.assignment.calibration.experts_ratio()
    }

    /// What was made, and where it went.
    pub(super) fn into_parts(self) -> (Production<'a>, Output<'a>) {
        (self.production, self.output)
    }

    /// Makes a piece, once its inputs were seen as often as they have to be; nothing where it is there.
    ///
    /// # Errors
    /// A weight or an activation is not finite, or the disk is full.
    pub(super) fn complete(
        &mut self,
        piece: Piece,
        progress: &mut dyn FnMut(u64) -> Result<()>,
    ) -> Result<()> {
        if !self.output.is_missing(piece) {
            return Ok(());
        }
        self.settle(piece)?;
        self.output.make(&mut self.production, piece, &self.lookout.observer.statistics, progress)?;
        self.forget(piece);
        Ok(())
    }

    /// Completes pieces that others may be making at this moment: what somebody else has in hand is left for last, and found
    /// when he is done. `kept` is called behind each piece.
    ///
    /// # Errors
    /// As [`Building::complete`], or the job is to stop.
    pub(super) fn complete_all(
        &mut self,
        pieces: &[Piece],
        reporter: &mut Reporter,
        kept: &dyn Fn() -> Result<()>,
    ) -> Result<()> {
        let mut left: VecDeque<(Piece, Option<Watch>)> = pieces.iter().map(|&piece| (piece, None)).collect();
        while let Some((piece, watch)) = left.pop_front() {
            if let Some(mut watch) = watch
                && !watch.is_over()?
            {
                reporter.advance(0, piece.layer())?;
                kept()?;
                std::thread::sleep(Duration::from_millis(20));
                left.push_back((piece, Some(watch)));
                continue;
            }
            let mut say = |text: String| reporter.note(Level::Warning, text);
            match self.output.claim(piece, &mut say)? {
                None => {}
                Some(Some(Claim::Taken(watch))) => {
                    left.push_back((piece, Some(watch)));
                    continue;
                }
                Some(Some(Claim::Held(lease))) => {
                    self.complete(piece, &mut |bytes| reporter.advance(bytes, None))?;
                    drop(lease);
                }
                Some(None) => self.complete(piece, &mut |bytes| reporter.advance(bytes, None))?,
            }
            kept()?;
        }
        Ok(())
    }

    /// Brings the statistics of a piece together: what was observed, which is kept, and what the store has.
    fn settle(&mut self, piece: Piece) -> Result<()> {
        self.lookout.observer.settle();
        self.output.load(piece, &mut self.lookout.observer.statistics)?;
        self.output.save(piece, &mut self.lookout)?;
        let model = self.model;
        let is_own = |module: usize| Piece::of_module(&model.modules[module]) == piece;
        self.lookout.observer.statistics.restrict(self.assignment, is_own);
        if let Some(layer) = piece.layer() {
            let known = (self.assignment, self.model);
            self.lookout.observer.statistics.settle_silent(known, layer, self.silent_experts)?;
        }
        Ok(())
    }

    /// What is not needed any more of a piece that is made; what it took is no part of observing the next one.
    fn forget(&mut self, piece: Piece) {
        self.lookout.spent();
        let model = self.model;
        self.lookout.observer.statistics.forget(|module| Piece::of_module(&model.modules[module]) == piece);
    }

    fn waits(&self, layer: Option<usize>) -> bool {
        linears_of(self.assignment, self.model, layer).any(|linear| waits(self.assignment, linear.module))
    }

    /// Whether a third look is worth its time: something of the layer is quantized, and its output is read.
    fn goes_behind(&self, layer: usize) -> bool {
        let linears = linears_of(self.assignment, self.model, Some(layer));
        self.assignment.calibration.is_behind_quantized()
            && self.lookout.unread != Some(layer)
            && (linears.count() > 0 || self.assignment.cache(layer).is_some())
    }

    /// Quantizes and writes a layer; the next one is seen for the first time, or this one behind its quantizers.
    fn finish(&mut self, layer: usize) -> Result<Turn> {
        let piece = Piece::Layer(layer);
        let goes_behind = self.goes_behind(layer);
        if !goes_behind && !self.output.is_missing(piece) {
            return Ok(Turn::Next);
        }
        if !self.output.is_prepared(piece) {
            let message = "hidden states that the calibration was to begin with are gone";
            return Err(Error::new(ErrorKind::Resumable, message).hint("start the job again"));
        }
        self.settle(piece)?;
        let statistics = &self.lookout.observer.statistics;
        let finished = self.output.make(&mut self.production, piece, statistics, &mut |_| Ok(()))?;
        let turn = match goes_behind {
            true => {
                let (numerics, weights) =
                    served(self.assignment, statistics, self.model, (layer, &finished))?;
                self.look = Look::Behind(numerics);
                Turn::AgainWith(weights)
            }
            false => {
                self.look = Look::First;
                Turn::Next
            }
        };
        self.forget(piece);
        Ok(turn)
    }
}

/// Shows the observer what the quantizers of some readers leave of an activation.
fn show_rounded<B: Backend>(
    observer: &mut Observer,
    (backend, numerics): (&B, &ServedNumerics),
    readers: &[usize],
    x: &B::Tensor,
) -> Result<()> {
    let inputs = Simulator::new(numerics).input(backend, readers, x)?;
    let is_same = |left: &Option<Arc<B::Tensor>>, right: &Option<Arc<B::Tensor>>| match (left, right) {
        (Some(left), Some(right)) => Arc::ptr_eq(left, right),
        (left, right) => left.is_none() && right.is_none(),
    };
    let mut begin = 0;
    for same in inputs.chunk_by(is_same) {
        let own = &readers[begin..begin + same.len()];
        begin += same.len();
        if let Some(input) = same.first() {
            observer.rounded(backend, own, input.as_deref().unwrap_or(x))?;
        }
    }
    Ok(())
}

impl<'a, B: Backend> Watcher<'a, B> for Building<'a> {
    fn unseen(&self) -> Option<Vec<Piece>> {
        self.output.unseen()
    }

    fn lookout(&self) -> &Lookout<'a> {
        &self.lookout
    }

    fn lookout_mut(&mut self) -> &mut Lookout<'a> {
        &mut self.lookout
    }

    fn kept(&self) -> Option<&Kept<'a>> {
        self.output.kept()
    }

    fn looks(&self, layer: usize) -> usize {
        1 + usize::from(self.waits(Some(layer))) + usize::from(self.goes_behind(layer))
    }

    fn observed(&self) -> Observed {
        self.output.kept().map(Kept::observed).unwrap_or_default()
    }

    /// Inputs are seen as their quantizers leave them from now on.
    fn look_again(&mut self, layer: Option<usize>) -> Result<bool> {
        if !matches!(self.look, Look::First) || !self.waits(layer) {
            return Ok(false);
        }
        let piece = layer.map_or(Piece::Last, Piece::Layer);
        self.output.load(piece, &mut self.lookout.observer.statistics)?;
        let known = known_of_layer(self.assignment, &self.lookout.observer.statistics, self.model, layer)?;
        self.look = Look::Rounded(known);
        Ok(true)
    }
}

impl<B: Backend> Tap<B> for Building<'_> {
    fn demands(&self) -> Demands {
        let waits = self.assignment.linears.iter().any(|linear| waits(self.assignment, linear.module));
        let repeats = waits || self.assignment.calibration.is_behind_quantized();
        Demands { codes: true, repeats, ..Tap::<B>::demands(&self.lookout.observer) }
    }

    fn input(&mut self, backend: &B, readers: &[usize], x: &B::Tensor) -> Result<Inputs<B::Tensor>> {
        let rounds = |observer: &Observer, module| observer.needs(module).rounded_gram;
        let assignment = self.assignment;
        let own = |observer: &Observer, waiting: bool| -> Vec<usize> {
            let readers = readers.iter().copied().filter(|&module| rounds(observer, module));
            readers.filter(|&module| waits(assignment, module) == waiting).collect()
        };
        match &self.look {
            Look::First => {
                let ready = own(&self.lookout.observer, false);
                if !ready.is_empty() {
                    show_rounded(&mut self.lookout.observer, (backend, &self.known), &ready, x)?;
                }
                self.lookout.observer.input(backend, readers, x)
            }
            Look::Rounded(numerics) => {
                let waited = own(&self.lookout.observer, true);
                if !waited.is_empty() {
                    show_rounded(&mut self.lookout.observer, (backend, numerics), &waited, x)?;
                }
                Ok(vec![None; readers.len()])
            }
            Look::Behind(numerics) => Simulator::new(numerics).input(backend, readers, x),
        }
    }

    fn output(&mut self, backend: &B, module: usize, x: &B::Tensor, y: &mut B::Tensor) -> Result<()> {
        match &self.look {
            Look::Behind(numerics) => Simulator::new(numerics).output(backend, module, x, y),
            Look::First | Look::Rounded(_) => Ok(()),
        }
    }

    fn routed(&mut self, layer: usize, tokens: &[u64]) -> Result<()> {
        self.lookout.observer.set_widening(false);
        match self.look {
            Look::First => Tap::<B>::routed(&mut self.lookout.observer, layer, tokens),
            Look::Rounded(_) | Look::Behind(_) => Ok(()),
        }
    }

    fn widened(&mut self, _layer: usize, _tokens: &[u64]) -> Result<()> {
        self.lookout.observer.set_widening(true);
        Ok(())
    }

    fn cache(&mut self, backend: &B, layer: usize, side: CacheSide, x: &mut B::Tensor) -> Result<()> {
        match &self.look {
            Look::First => self.lookout.observer.cache(backend, layer, side, x),
            Look::Rounded(_) => Ok(()),
            Look::Behind(numerics) => Simulator::new(numerics).cache(backend, layer, side, x),
        }
    }

    fn repeats(&self, layer: usize) -> bool {
        match self.look {
            Look::First => self.waits(Some(layer)) || self.goes_behind(layer),
            Look::Rounded(_) => self.goes_behind(layer),
            Look::Behind(_) => false,
        }
    }

    fn turn(&mut self, _backend: &B, layer: usize) -> Result<Turn> {
        if matches!(self.look, Look::Behind(_)) {
            self.look = Look::First;
            return Ok(Turn::Next);
        }
        match Watcher::<B>::look_again(self, Some(layer))? {
            true => Ok(Turn::Again),
            false => self.finish(layer),
        }
    }

    fn arrived(&mut self, backend: &B, group: usize, states: &[B::Tensor]) -> Result<()> {
        self.lookout.arrived(backend, group, states)
    }

    fn grouped(&mut self, groups: usize, seen: bool) -> Result<()> {
        self.lookout.grouped(groups, seen)
    }

    fn passed(&mut self, backend: &B, layer: usize, hidden: &[B::Tensor]) -> Result<()> {
        match self.lookout.samples {
            Some(samples) => self.output.pass(backend, layer, (samples, hidden)),
            None => Ok(()),
        }
    }
}
