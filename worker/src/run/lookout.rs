//! What watches a calibration pass.

use qlaunch_shared::Result;
use qlaunch_shared::assign::Needs;

use super::relay::Relay;
use crate::calibrate::Observer;
use crate::ops::Backend;
use crate::report::{Reporter, cpu_seconds};
use crate::tokens::Samples;

/// What observes a pass, what is calibrated on, and what one of several ranks keeps on the way.
pub(super) struct Lookout<'a> {
    pub(super) observer: Observer,
    /// None before the pass begins.
    pub(super) samples: Option<&'a Samples>,
    /// None for a single process, and where nothing is kept.
    pub(super) relay: Option<Relay<'a>>,
    /// The layer whose output nobody reads, if there is one.
    pub(super) unread: Option<usize>,
    /// CPU time when it was last asked for, in seconds.
    since: f64,
}

impl<'a> Lookout<'a> {
    /// Before a pass.
    pub(super) fn new(observer: Observer) -> Self {
        Self { observer, samples: None, relay: None, unread: None, since: cpu_seconds() }
    }

    /// CPU time since it was last asked for, in seconds, and the tokens that went through a layer in it.
    pub(super) fn spent(&mut self) -> (f64, u64) {
        let now = cpu_seconds();
        let spent = now - std::mem::replace(&mut self.since, now);
        (spent, self.samples.map_or(0, |samples| samples.ids.len() as u64))
    }

    /// Whether the input of a linear is to be observed.
    pub(super) fn sees(&self, module: usize) -> bool {
        self.observer.needs(module) != Needs::default()
    }

    /// Says what is calibrated on, and where one of several ranks keeps what it has of it.
    pub(super) fn begin(&mut self, samples: &'a Samples, relay: Option<Relay<'a>>) {
        self.spent();
        self.observer.set_length(samples.length);
        (self.samples, self.relay) = (Some(samples), relay);
    }

    /// Keeps a group as it comes from the rank before.
    ///
    /// # Errors
    /// The disk is full, or the job is to stop.
    pub(super) fn arrived<B: Backend>(&self, backend: &B, group: usize, states: &[B::Tensor]) -> Result<()> {
        self.relay.as_ref().map_or(Ok(()), |relay| relay.keep_group(backend, group, states))
    }

    /// Keeps what was seen of so many groups, where a rank keeps anything; otherwise it is but a moment to stop.
    ///
    /// # Errors
    /// The disk is full, or the job is to stop.
    pub(super) fn grouped(&self, groups: usize, seen: bool) -> Result<()> {
        match (&self.relay, seen) {
            (Some(relay), true) => relay.keep_seen(groups, &self.observer.freeze()),
            (Some(_), false) => Reporter::layer_kept(),
            (None, _) => Ok(()),
        }
    }
}
