//! What the threads of a mesh share: queues, and the first reason why it failed.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use qlaunch_shared::{Error, ErrorKind, Result};

use crate::comm::Tag;

/// Messages on their way to or from one rank.
#[derive(Debug, Default)]
struct Queue {
    messages: VecDeque<(Tag, Vec<u8>)>,
    bytes: u64,
    /// Nothing comes in any more.
    ended: bool,
    /// A message was taken out and is still being written.
    writing: bool,
}

#[derive(Debug, Default)]
struct Inner {
    failure: Option<Error>,
    closing: bool,
    inbox: Vec<Queue>,
    outbox: Vec<Queue>,
    /// Ranks that said goodbye.
    left: Vec<bool>,
}

/// Queues of all ranks behind one lock: messages are few and large.
#[derive(Debug)]
pub(super) struct State {
    inner: Mutex<Inner>,
    changed: Condvar,
    buffer: u64,
}

impl Queue {
    fn is_full(&self, buffer: u64) -> bool {
        !self.messages.is_empty() && self.bytes >= buffer
    }

    fn push(&mut self, tag: Tag, message: Vec<u8>) {
        self.bytes += message.len() as u64;
        self.messages.push_back((tag, message));
    }

    fn pop(&mut self) -> Option<(Tag, Vec<u8>)> {
        let taken = self.messages.pop_front()?;
        self.bytes -= taken.1.len() as u64;
        Some(taken)
    }
}

impl State {
    pub(super) fn new(size: usize, buffer: u64) -> Self {
        let queues = || (0..size).map(|_| Queue::default()).collect();
        let inner = Inner { inbox: queues(), outbox: queues(), left: vec![false; size], ..Inner::default() };
        Self { inner: Mutex::new(inner), changed: Condvar::new(), buffer }
    }

    /// A thread that panicked holds no half-done change: each is one push or one flag.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, inner: MutexGuard<'a, Inner>) -> MutexGuard<'a, Inner> {
        self.changed.wait(inner).unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes why the mesh failed; false where it had failed, or is being closed, before.
    pub(super) fn fail(&self, why: &Error) -> bool {
        let mut inner = self.lock();
        if inner.failure.is_some() || inner.closing {
            return false;
        }
        inner.failure = Some(why.clone());
        self.changed.notify_all();
        true
    }

    pub(super) fn check(&self) -> Result<()> {
        self.lock().failure.clone().map_or(Ok(()), Err)
    }

    /// Puts a message into the queue to a rank, when there is room.
    pub(super) fn send(&self, to: usize, tag: Tag, message: Vec<u8>) -> Result<()> {
        let mut inner = self.lock();
        loop {
            if let Some(failure) = &inner.failure {
                return Err(failure.clone());
            }
            if !inner.outbox[to].is_full(self.buffer) {
                inner.outbox[to].push(tag, message);
                self.changed.notify_all();
                return Ok(());
            }
            inner = self.wait(inner);
        }
    }

    /// The next message to be written to a rank; `None` when the mesh is closed or failed.
    pub(super) fn outgoing(&self, to: usize) -> Option<(Tag, Vec<u8>)> {
        let mut inner = self.lock();
        inner.outbox[to].writing = false;
        self.changed.notify_all();
        loop {
            if inner.failure.is_some() {
                return None;
            }
            if let Some(message) = inner.outbox[to].pop() {
                inner.outbox[to].writing = true;
                return Some(message);
            }
            if inner.closing {
                return None;
            }
            inner = self.wait(inner);
        }
    }

    /// Takes what came from a rank, when there is room; false when nobody wants it any more.
    pub(super) fn incoming(&self, from: usize, tag: Tag, message: Vec<u8>) -> bool {
        let mut inner = self.lock();
        while inner.failure.is_none() && inner.inbox[from].is_full(self.buffer) {
            inner = self.wait(inner);
        }
        if inner.failure.is_some() {
            return false;
        }
        inner.inbox[from].push(tag, message);
        self.changed.notify_all();
        true
    }

    /// Nothing more comes from a rank.
    pub(super) fn end(&self, from: usize) {
        self.lock().inbox[from].ended = true;
        self.changed.notify_all();
    }

    /// The next message of a rank; `who` is its name for an error.
    pub(super) fn recv(&self, from: usize, who: &dyn std::fmt::Display) -> Result<(Tag, Vec<u8>)> {
        let mut inner = self.lock();
        let mut ended: Option<Instant> = None;
        loop {
            // What came before the end is still there to be read.
            if let Some(message) = inner.inbox[from].pop() {
                self.changed.notify_all();
                return Ok(message);
            }
            if let Some(failure) = &inner.failure {
                return Err(failure.clone());
            }
            // A goodbye may be faster than the messages before it.
            if !inner.inbox[from].ended {
                inner = self.wait(inner);
                continue;
            }
            if inner.left[from] {
                return Err(Error::bug(format!("{who} left while a message of it was waited for")));
            }
            // The other connection of the pair is about to say why.
            let since = *ended.get_or_insert_with(Instant::now);
            if since.elapsed() > Duration::from_secs(2) {
                return Err(Error::new(ErrorKind::Unreachable, format!("{who} hung up")));
            }
            let waited = self.changed.wait_timeout(inner, Duration::from_millis(100));
            inner = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// A rank said goodbye.
    pub(super) fn leave(&self, rank: usize) {
        self.lock().left[rank] = true;
        self.changed.notify_all();
    }

    pub(super) fn has_left(&self, rank: usize) -> bool {
        self.lock().left[rank]
    }

    /// Waits until everything was written, and forbids more.
    pub(super) fn close(&self) -> Result<()> {
        let mut inner = self.lock();
        loop {
            if let Some(failure) = &inner.failure {
                return Err(failure.clone());
            }
            if inner.outbox.iter().all(|queue| queue.messages.is_empty() && !queue.writing) {
                inner.closing = true;
                self.changed.notify_all();
                return Ok(());
            }
            inner = self.wait(inner);
        }
    }

    /// Whether it failed or is closed: threads end then.
    pub(super) fn is_over(&self) -> bool {
        let inner = self.lock();
        inner.closing || inner.failure.is_some()
    }

    /// Waits for the end: why it failed, or `None` where it was closed.
    pub(super) fn wait_for_end(&self) -> Option<Error> {
        let mut inner = self.lock();
        while !inner.closing && inner.failure.is_none() {
            inner = self.wait(inner);
        }
        inner.failure.clone()
    }

    /// Waits at most so long for the end.
    pub(super) fn rest(&self, longest: Duration) {
        let inner = self.lock();
        if !inner.closing && inner.failure.is_none() {
            drop(self.changed.wait_timeout(inner, longest));
        }
    }

    /// Ends all threads of a mesh that is dropped.
    pub(super) fn drop_all(&self) {
        self.lock().closing = true;
        self.changed.notify_all();
    }
}
