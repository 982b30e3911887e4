//! Hidden states on their way to the stage behind: a thread takes them from the device and hands them over while the next ones are
//! computed.

use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::{Scope, ScopedJoinHandle};

use qlaunch_shared::{Error, Result};

use super::stage::Stage;
use crate::ops::Backend;

/// Batches that wait for the one that is being taken, at most.
const WAITING: usize = 1;

/// A way to the stage behind.
pub(super) struct Outbox<'scope, B: Backend> {
    give: SyncSender<(B::Tensor, B::Moment)>,
    thread: ScopedJoinHandle<'scope, Result<()>>,
}

impl<'scope, B: Backend> Outbox<'scope, B> {
    /// Batches that are on their way at most: one is handed over, and one is taken.
    pub(super) const ROOM: usize = WAITING + 2;

    /// Opens the way.
    pub(super) fn open<'e>(scope: &'scope Scope<'scope, 'e>, backend: &'e B, stage: &'e Stage<'e>) -> Self {
        let (give, take) = sync_channel::<(B::Tensor, B::Moment)>(WAITING);
        let pass_on = move |(hidden, since)| stage.pass_on(backend, &hidden, &since);
        Self { give, thread: scope.spawn(move || take.into_iter().try_for_each(pass_on)) }
    }

    /// Sends a batch on, as it will be when all is computed that was asked for so far; false where the way is broken, which
    /// [`Outbox::close`] tells the reason of.
    ///
    /// # Errors
    /// The device fails.
    pub(super) fn send(&self, backend: &B, hidden: B::Tensor) -> Result<bool> {
        let since = backend.computed()?;
        Ok(self.give.send((hidden, since)).is_ok())
    }

    /// Waits until all batches are handed over.
    ///
    /// # Errors
    /// The stage behind is gone, or the device fails.
    pub(super) fn close(self) -> Result<()> {
        drop(self.give);
        let lost = |_| Err(Error::bug("the thread that sends hidden states has ended before its time"));
        self.thread.join().unwrap_or_else(lost)
    }
}
