//! A communicator that sends messages from GPU to GPU, on top of one that ranks have met over.
//!
//! Lengths, collectives, goodbyes and reasons go over the lower one: sums are then added in the order of ranks, so that all
//! have the same bits, and a rank that dies is noticed while NCCL would wait for it for ever.

use std::collections::VecDeque;
use std::ptr::null_mut;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use qlaunch_shared::{Error, ErrorKind, Result};

use super::api::{Api, BYTES, Config, Handle, ID, IN_PROGRESS, SUCCESS, UniqueId};
use super::staging::{Buffer, Staging};
use crate::comm::{Communicator, Tag};
use crate::libraries::Loaded;

/// How long NCCL may take.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// Until all ranks have joined.
    pub init: Duration,
    /// For saying goodbye.
    pub finalize: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { init: Duration::from_secs(120), finalize: Duration::from_secs(20) }
    }
}

/// Messages that are on their way to other ranks at most.
const IN_FLIGHT: usize = 4;
/// Between two looks at what goes on.
const PAUSE: Duration = Duration::from_micros(100);

/// Ranks over NCCL.
pub struct Nccl<C> {
    control: C,
    api: Api,
    staging: Staging,
    patience: Patience,
    inner: Mutex<Inner>,
}

struct Inner {
    handle: Handle,
    sent: VecDeque<Buffer>,
}

// SAFETY: NCCL allows calls from any thread, one at a time, which the lock around it sees to.
unsafe impl Send for Inner {}

impl<C: Communicator> Nccl<C> {
    /// Joins all ranks of `control`, each with a GPU of its own.
    ///
    /// # Errors
    /// A rank lacks a library or is gone, two ranks share a GPU, or not all have joined in time.
    pub fn join(
        control: C,
        (nccl, cuda): (&Loaded, &Loaded),
        device: i32,
        patience: Patience,
    ) -> Result<Self> {
        let (api, staging) = (Api::of(nccl)?, Staging::open(cuda, device)?);
        let mut id = UniqueId([0; ID]);
        if control.rank() == 0 {
            let status = (api.unique_id)(&raw mut id);
            if status != SUCCESS {
                return Err(api.failure("making an id for NCCL", status));
            }
        }
        let told = control.broadcast(0, id.0.to_vec())?;
        id.0 = told.try_into().map_err(|_| Error::bug("the id for NCCL is torn"))?;
        let (size, rank) = (control.size() as i32, control.rank() as i32);
        let inner = Mutex::new(Inner { handle: null_mut(), sent: VecDeque::new() });
        let this = Self { control, api, staging, patience, inner };
        {
            let mut inner = this.lock();
            let mut config = Config::without_blocking();
            let status = (this.api.init)(&raw mut inner.handle, size, id, rank, &raw mut config);
            this.settle(&inner, "joining NCCL", status, Some(patience.init))?;
        }
        this.control.barrier()?;
        Ok(this)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until a call that does not block is through.
    fn settle(&self, inner: &Inner, action: &str, first: i32, longest: Option<Duration>) -> Result<()> {
        let begun = Instant::now();
        let mut status = first;
        while status == IN_PROGRESS {
            self.control.check()?;
            if longest.is_some_and(|longest| begun.elapsed() > longest) {
                let seconds = begun.elapsed().as_secs_f64();
                let late = format!("{action} took more than {seconds:.1} s");
                return Err(Error::new(ErrorKind::Unreachable, late).hint(
                    "set `NCCL_SOCKET_IFNAME` to the network between the nodes; `NCCL_DEBUG=INFO` says more",
                ));
            }
            std::thread::sleep(PAUSE);
            let asked = (self.api.async_error)(inner.handle, &raw mut status);
            if asked != SUCCESS {
                return Err(self.api.failure(action, asked));
            }
        }
        if status == SUCCESS { Ok(()) } else { Err(self.api.failure(action, status)) }
    }

    /// Waits for a transfer. What goes wrong behind NCCL's back shows as an asynchronous error.
    fn wait(&self, inner: &Inner, buffer: &Buffer) -> Result<()> {
        while !buffer.is_done()? {
            self.look(inner)?;
            std::thread::sleep(PAUSE);
        }
        Ok(())
    }

    fn look(&self, inner: &Inner) -> Result<()> {
        self.control.check()?;
        if inner.handle.is_null() {
            return Err(Error::bug("NCCL was left before"));
        }
        let mut status = SUCCESS;
        let asked = (self.api.async_error)(inner.handle, &raw mut status);
        match (asked, status) {
            (SUCCESS, SUCCESS | IN_PROGRESS) => Ok(()),
            (SUCCESS, status) => Err(self.api.failure("a transfer between GPUs", status)),
            (asked, _) => Err(self.api.failure("a transfer between GPUs", asked)),
        }
    }
}

impl<C: Communicator> Communicator for Nccl<C> {
    fn rank(&self) -> usize {
        self.control.rank()
    }

    fn size(&self) -> usize {
        self.control.size()
    }

    fn send(&self, to: usize, tag: Tag, message: Vec<u8>) -> Result<()> {
        if tag != Tag::HIDDEN {
            return self.control.send(to, tag, message);
        }
        self.control.send(to, tag, (message.len() as u64).to_le_bytes().to_vec())?;
        let mut inner = self.lock();
        self.staging.enter()?;
        while inner.sent.len() >= IN_FLIGHT {
            if let Some(oldest) = inner.sent.pop_front() {
                self.wait(&inner, &oldest)?;
            }
        }
        let buffer = self.staging.buffer(message.len())?;
        buffer.fill(&message)?;
        let from = buffer.address as *const _;
        let status =
            (self.api.send)(from, message.len(), BYTES, to as i32, inner.handle, self.staging.stream);
        self.settle(&inner, "sending to another GPU", status, None)?;
        self.staging.mark(&buffer)?;
        inner.sent.push_back(buffer);
        Ok(())
    }

    fn recv(&self, from: usize, tag: Tag) -> Result<Vec<u8>> {
        let message = self.control.recv(from, tag)?;
        if tag != Tag::HIDDEN {
            return Ok(message);
        }
        let length = message.try_into().map_err(|_| Error::bug("the length of a message is torn"))?;
        let length = u64::from_le_bytes(length) as usize;
        let inner = self.lock();
        self.staging.enter()?;
        let buffer = self.staging.buffer(length)?;
        let to = buffer.address as *mut _;
        let status = (self.api.recv)(to, length, BYTES, from as i32, inner.handle, self.staging.stream);
        self.settle(&inner, "receiving from another GPU", status, None)?;
        self.staging.mark(&buffer)?;
        self.wait(&inner, &buffer)?;
        buffer.read()
    }

    fn check(&self) -> Result<()> {
        self.control.check()
    }

    fn abort(&self, why: &Error) {
        self.control.abort(why);
    }

    fn close(&self) -> Result<()> {
        {
            let mut inner = self.lock();
            self.staging.enter()?;
            while let Some(oldest) = inner.sent.pop_front() {
                self.wait(&inner, &oldest)?;
            }
            let status = (self.api.finalize)(inner.handle);
            self.settle(&inner, "leaving NCCL", status, Some(self.patience.finalize))?;
            let handle = std::mem::replace(&mut inner.handle, null_mut());
            let status = (self.api.destroy)(handle);
            if status != SUCCESS {
                return Err(self.api.failure("leaving NCCL", status));
            }
        }
        self.control.close()
    }
}

impl<C> Drop for Nccl<C> {
    /// Leaves without the others where there was no goodbye: nothing of this may wait for them.
    fn drop(&mut self) {
        let inner = self.inner.get_mut().unwrap_or_else(PoisonError::into_inner);
        if !inner.handle.is_null() {
            (self.api.abort)(inner.handle);
            inner.handle = null_mut();
        }
    }
}
