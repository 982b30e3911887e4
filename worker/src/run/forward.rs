//! Calibration data on its way through the model, as far as anything of it is to be observed.

use qlaunch_shared::Result;
use qlaunch_shared::assign::Piece;
use qlaunch_shared::protocol::{Level, Phase, Unit};

use super::begin::{Begin, range_of};
use super::kept::Kept;
use crate::network::{Network, SourceWeights, Stage, Streaming, Tap, Weights};
use crate::ops::Backend;
use crate::report::Reporter;
use crate::tokens::Samples;

/// A tap that knows what it still has to see.
pub(super) trait Watcher<'a, B: Backend>: Tap<B> {
    /// Pieces whose inputs are to be observed; none stands for all.
    fn unseen(&self) -> Option<Vec<Piece>>;

    /// Whether the input of a linear is to be observed.
    fn sees(&self, module: usize) -> bool;

    /// Where hidden states are kept, if anywhere.
    fn kept(&self) -> Option<&Kept<'a>>;

    /// Says what is calibrated on; with `kept`, hidden states are kept behind each layer.
    fn set_samples(&mut self, samples: &'a Samples, kept: bool);

    /// Whether the inputs of a layer, or with `None` of what stands outside of layers, have to be seen once more.
    ///
    /// # Errors
    /// An activation was not finite.
    fn look_again(&mut self, layer: Option<usize>) -> Result<bool>;
}

/// A pass of calibration data.
#[derive(Clone, Copy)]
pub(super) struct Forward<'a, 'w> {
    /// Weights of the source.
    pub(super) weights: &'w SourceWeights<'w>,
    /// This rank's share.
    pub(super) stage: &'w Stage<'w>,
    /// What is calibrated on.
    pub(super) samples: &'a Samples,
    /// Samples that go through a layer together.
    pub(super) batch_size: usize,
    /// How they go through the layers of several ranks.
    pub(super) streaming: Streaming,
    /// How often each batch goes through a layer.
    pub(super) passes: usize,
    /// Share of the experts that every token is to be shown to.
    pub(super) experts_ratio: Option<f64>,
}

/// Sends the data through the layers that are to be observed; where none is, nothing happens.
///
/// # Errors
/// A weight cannot be read, an activation is not finite, the disk is full, or the job is to stop.
pub(super) fn forward<'a, B: Backend>(
    backend: &B,
    pass: Forward<'a, '_>,
    watcher: &mut dyn Watcher<'a, B>,
    reporter: &mut Reporter,
) -> Result<()> {
    let Forward { weights, stage, samples, .. } = pass;
    let model = weights.model();
    let batch = stage.batch(pass.batch_size, samples.count());
    let begin = match watcher.unseen() {
        None => Begin::whole(stage),
        Some(unseen) => {
            let mut say = |text: String| reporter.note(Level::Warning, text);
            let range = range_of(unseen.into_iter(), model.config.layers);
            let found = Begin::find(range, stage, |last| match watcher.kept() {
                Some(kept) => kept.states(backend, (samples, batch), last, &mut say),
                None => Ok(None),
            })?;
            let Some(begin) = found else { return Ok(()) };
            begin
        }
    };
    let is_alone = stage.comm.size() == 1;
    watcher.set_samples(samples, is_alone);
    let layers = begin.layers.len();
    let is_ahead = pass.streaming == Streaming::AheadThenLayerByLayer && !stage.is_last();
    let total = (samples.ids.len() * layers * (pass.passes + usize::from(is_ahead))) as u64;
    reporter.begin(Phase::Calibrate, total, Unit::TokenLayers, Some(layers));
    let keeps_states = is_alone && watcher.kept().is_some();
    if keeps_states {
        reporter.keep_layers();
    }
    // The output head reads the final hidden states; few recipes ask for it.
    let head = model.module("lm_head")?;
    let is_to_the_end = begin.layers.end == stage.layers.end;
    let own = Stage { layers: begin.layers, ..stage.clone() };
    let mut network = Network::new(backend, weights).on(own, pass.streaming);
    if stage.is_last() && !keeps_states && !(is_to_the_end && watcher.sees(head)) {
        network = network.without_end();
    }
    if let Some(ratio) = pass.experts_ratio {
        network = network.widen_experts(ratio);
    }
    let hidden = network.run_from(begin.states, samples, pass.batch_size, watcher, &mut |step| {
        reporter.advance(step.tokens as u64, Some(step.layer))
    })?;
    while stage.is_last() && is_to_the_end {
        if watcher.sees(head) {
            for batch in &network.norm(&hidden)? {
                watcher.input(backend, &[head], batch)?;
            }
        }
        if !watcher.look_again(None)? {
            break;
        }
    }
    reporter.end();
    Ok(())
}
