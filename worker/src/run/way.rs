//! What is kept of the way of tokens through a model that is measured, for an attempt to go on from that was stopped: the
//! hidden states behind the last layer that a single process has done, or those that groups of batches left behind the last
//! of several ranks.

use qlaunch_shared::{Error, Result};

use super::relay::Relay;
use super::trail::Trail;
use crate::network::{Batches, Stage, Start};
use crate::ops::Backend;
use crate::report::Reporter;
use crate::tokens::Samples;

/// What is kept on the way.
pub(super) enum Way<'a> {
    /// Nothing.
    Untold,
    /// By a single process: what is behind each layer.
    Alone(Trail<'a>),
    /// By several ranks: what is behind the last layer, group by group.
    Among(Relay<'a>),
}

/// Where a run begins.
pub(super) struct Begun<T> {
    pub(super) start: Start<T>,
    /// What the last rank has of the groups that are done, one tensor a batch.
    pub(super) done: Vec<T>,
    /// Samples that still go through this rank's layers.
    pub(super) samples: usize,
}

impl Way<'_> {
    /// Finds where to begin. All ranks agree on it.
    ///
    /// # Errors
    /// What was kept cannot be read, or a rank is gone.
    pub(super) fn begin<B: Backend>(
        &self,
        backend: &B,
        (stage, batches): (&Stage<'_>, Batches<'_>),
        say: &mut dyn FnMut(String),
    ) -> Result<Begun<B::Tensor>> {
        let comm = stage.comm;
        let mut begun = Begun {
            start: Start::at(stage.layers.clone()),
            done: Vec::new(),
            samples: batches.samples.count(),
        };
        match self {
            Self::Untold => {}
            Self::Alone(trail) => {
                let found = trail.last(backend, batches, stage.layers.end, say)?;
                if let Some((layer, states)) = found {
                    begun.start = Start { states: Some(states), ..Start::at(layer..stage.layers.end) };
                }
            }
            Self::Among(relay) => {
                let own = if stage.is_last() { relay.kept_groups() as u64 } else { 0 };
                let told = comm.broadcast(comm.size() - 1, own.to_le_bytes().to_vec())?;
                let told = told.first_chunk().ok_or_else(|| Error::bug("another rank's answer is torn"))?;
                let groups = u64::from_le_bytes(*told) as usize;
                if stage.is_last() {
                    begun.done = relay.read_groups(backend, groups)?.concat();
                }
                begun.start.done = groups;
                begun.samples = batches.behind(groups);
            }
        }
        Ok(begun)
    }

    /// Whether anything is kept, so that the run may be stopped in between.
    pub(super) const fn is_kept(&self) -> bool {
        !matches!(self, Self::Untold)
    }

    /// Keeps the hidden states behind a layer.
    ///
    /// # Errors
    /// The disk is full, or the job is to stop.
    pub(super) fn passed<B: Backend>(
        &mut self,
        backend: &B,
        layer: usize,
        passed: (&Samples, &[B::Tensor]),
    ) -> Result<()> {
        match self {
            Self::Alone(trail) => trail.pass(backend, layer, passed),
            Self::Untold | Self::Among(_) => Ok(()),
        }
    }

    /// Keeps a group behind the last layer.
    ///
    /// # Errors
    /// The disk is full, or the job is to stop.
    pub(super) fn left<B: Backend>(&self, backend: &B, group: usize, states: &[B::Tensor]) -> Result<()> {
        match self {
            Self::Among(relay) => relay.keep_group(backend, group, states),
            Self::Untold | Self::Alone(_) => Ok(()),
        }
    }

    /// A moment to stop, behind a group.
    ///
    /// # Errors
    /// The job is to stop.
    pub(super) fn grouped(&self) -> Result<()> {
        match self {
            Self::Among(_) => Reporter::layer_kept(),
            Self::Untold | Self::Alone(_) => Ok(()),
        }
    }

    /// Takes all of it away.
    pub(super) fn forget(&self) {
        match self {
            Self::Untold => {}
            Self::Alone(trail) => trail.forget(),
            Self::Among(relay) => relay.forget(),
        }
    }
}
