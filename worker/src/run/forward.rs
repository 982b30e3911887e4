//! Calibration data on its way through the model, as far as anything of it is to be observed.

use qlaunch_shared::assign::Piece;
use qlaunch_shared::protocol::{Level, Phase, Unit};
use qlaunch_shared::{Error, Result};

use super::begin::{Asked, Begin, begin, range_of};
use super::kept::Kept;
use super::lookout::Lookout;
use super::relay::{Observed, Relay};
use crate::network::{Batches, Network, SourceWeights, Stage, Start, Streaming, Tap, Weights};
use crate::ops::Backend;
use crate::report::Reporter;

/// A tap that knows what it still has to see.
pub(super) trait Watcher<'a, B: Backend>: Tap<B> {
    /// Pieces whose inputs are to be observed; none stands for all.
    fn unseen(&self) -> Option<Vec<Piece>>;

    /// What observes.
    fn lookout(&self) -> &Lookout<'a>;

    /// The same, to be told of the pass.
    fn lookout_mut(&mut self) -> &mut Lookout<'a>;

    /// Where hidden states are kept, if anywhere.
    fn kept(&self) -> Option<&Kept<'a>>;

    /// Statistics that it observes, by their keys.
    fn observed(&self) -> Observed;

    /// How often each batch goes through a layer.
    fn looks(&self, _layer: usize) -> usize {
        1
    }

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
    pub(super) batches: Batches<'a>,
    /// How they go through the layers of several ranks.
    pub(super) streaming: Streaming,
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
    let pass = Forward { streaming: agreed(pass.stage, pass.streaming)?, ..pass };
    let Forward { weights, stage, batches, .. } = pass;
    let model = weights.model();
    let relay = watcher.kept().filter(|_| stage.comm.size() > 1);
    let relay = relay.map(|kept| {
        let states = kept.trail.before(stage.layers.start)?;
        Ok::<_, Error>(Relay::new(kept.store(), states, watcher.observed(), batches))
    });
    watcher.lookout_mut().begin(batches.samples, relay.transpose()?);
    let begin = match (watcher.unseen(), watcher.kept()) {
        (Some(unseen), Some(kept)) => {
            let mut say = |text: String| reporter.note(Level::Warning, text);
            let asked = Asked {
                trail: &kept.trail,
                relay: watcher.lookout().relay.as_ref(),
                head: unseen.contains(&Piece::Last),
                range: range_of(unseen.into_iter(), model.config.layers),
                streaming: pass.streaming,
                batches,
            };
            begin(backend, stage, asked, &mut say)?
        }
        // Without a store there is nothing to begin from; what is only compared ends early.
        (Some(unseen), None) => match range_of(unseen.into_iter(), model.config.layers) {
            Some((_, last)) if stage.comm.size() == 1 => Begin::From(Start::at(0..last + 1)),
            range => match stage.comm.any(range.is_some())? {
                true => Begin::whole(stage),
                false => Begin::Nowhere,
            },
        },
        (None, _) => Begin::whole(stage),
    };
    if let Begin::From(start) = begin {
        go(backend, pass, start, watcher, reporter)?;
    }
    if let Some(relay) = &watcher.lookout().relay {
        // What was seen is among the statistics now, on this rank and on all others.
        stage.comm.barrier()?;
        relay.forget();
    }
    reporter.end();
    Ok(())
}

/// How all ranks send batches: what each of them has left to observe may be large on one and small on another.
fn agreed(stage: &Stage<'_>, own: Streaming) -> Result<Streaming> {
    match own {
        Streaming::LayerByLayer => Ok(own),
        _ if stage.comm.any(own == Streaming::AheadThenLayerByLayer)? => Ok(Streaming::AheadThenLayerByLayer),
        _ => Ok(Streaming::InGroups),
    }
}

/// Sends the data through from where the pass begins.
fn go<'a, B: Backend>(
    backend: &B,
    pass: Forward<'a, '_>,
    start: Start<B::Tensor>,
    watcher: &mut dyn Watcher<'a, B>,
    reporter: &mut Reporter,
) -> Result<()> {
    let Forward { weights, stage, batches, .. } = pass;
    let model = weights.model();
    if let (Some(relay), 1..) = (&watcher.lookout().relay, start.done) {
        let seen = relay.saw(start.done)?;
        watcher.lookout_mut().observer.thaw(&seen)?;
    }
    let layers = start.layers.len();
    let ahead = match pass.streaming {
        Streaming::AheadThenLayerByLayer if !stage.is_last() => start.passed_on,
        _ => usize::MAX,
    };
    let keeps_states = watcher.kept().is_some();
    // The output head reads the final hidden states; few recipes ask for it.
    let head = model.module("lm_head")?;
    let is_to_the_end = start.layers.end == stage.layers.end;
    let mut network = Network::new(backend, weights).on(stage.clone(), pass.streaming);
    if stage.is_last() && !keeps_states && !(is_to_the_end && watcher.lookout().sees(head)) {
        network = network.without_end();
    }
    watcher.lookout_mut().unread = network.unread(&start.layers);
    let looks: usize = start.layers.clone().map(|layer| watcher.looks(layer)).sum();
    let looked = batches.behind(start.done) * looks;
    let total = ((looked + batches.behind(ahead) * stage.layers.len()) * batches.samples.length) as u64;
    reporter.begin(Phase::Calibrate, total, Unit::TokenLayers, Some(layers));
    if keeps_states {
        reporter.keep_layers();
    }
    if let Some(ratio) = pass.experts_ratio {
        network = network.widen_experts(ratio);
    }
    let hidden = network.run_from(start, batches, watcher, &mut |step| {
        reporter.advance(step.tokens as u64, Some(step.layer))
    })?;
    while stage.is_last() && is_to_the_end {
        if watcher.lookout().sees(head) {
            for batch in &network.norm(&hidden)? {
                watcher.input(backend, &[head], batch)?;
            }
        }
        if !watcher.look_again(None)? {
            break;
        }
    }
    Ok(())
}
