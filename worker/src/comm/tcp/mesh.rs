//! A communicator of processes that are all connected with each other.

use std::net::Shutdown;
use std::sync::Arc;
use std::time::{Duration, Instant};

use qlaunch_shared::{Error, ErrorKind, Result};

use super::frame::Word;
use super::meeting::{Door, Watch, host, join};
use super::seat::{Peer, Seat};
use super::state::State;
use super::threads::{Common, Link, start};
use crate::comm::{Communicator, Tag};

/// Ranks over TCP.
#[derive(Debug)]
pub struct TcpMesh {
    own: Peer,
    common: Arc<Common>,
}

impl TcpMesh {
    /// Meets the others: rank 0 behind its door, the others by calling there. `watch` is asked now and then whether waiting
    /// still makes sense.
    ///
    /// # Errors
    /// Not all came in time, one has another token or version, or `watch` says so.
    pub fn meet(seat: &Seat, door: Option<Door>, watch: &mut Watch<'_>) -> Result<Self> {
        let links = match (seat.rank, door) {
            (0, Some(door)) => host(seat, door, watch)?,
            (0, None) => host(seat, Door::open(&seat.rendezvous)?, watch)?,
            _ => join(seat, watch)?,
        };
        Self::from_links(seat, links)
    }

    fn from_links(seat: &Seat, links: Vec<Option<Link>>) -> Result<Self> {
        let state = State::new(seat.size, seat.limits.buffer);
        let common = Arc::new(Common { state, limits: seat.limits, links });
        start(&common).map_err(|e| Error::input(format!("cannot start the threads of a rank: {e}")))?;
        Ok(Self { own: seat.own(), common })
    }

    /// Has `end` called with the reason if this rank is still at work so long after the ranks failed: a rank that computes for
    /// minutes must not keep a node that the others have left.
    ///
    /// # Errors
    /// The thread that waits cannot be started.
    pub fn guard(&self, grace: Duration, end: impl FnOnce(Error) + Send + 'static) -> Result<()> {
        let common = Arc::clone(&self.common);
        let wait = move || {
            if let Some(why) = common.state.wait_for_end() {
                std::thread::sleep(grace);
                end(why);
            }
        };
        let started = std::thread::Builder::new().name("comm-guard".to_owned()).spawn(wait);
        started.map(drop).map_err(|e| Error::input(format!("cannot start the threads of a rank: {e}")))
    }

    /// Gives one rank a reason to fail, and none to the others.
    #[cfg(test)]
    pub(super) fn tell(&self, rank: usize, why: &Error) {
        self.link(rank).unwrap().say(&Word::Abort(why.clone()));
    }

    fn link(&self, rank: usize) -> Result<&Link> {
        let link = self.common.links.get(rank).and_then(Option::as_ref);
        link.ok_or_else(|| Error::bug(format!("rank {} has no connection to rank {rank}", self.own.rank)))
    }
}

impl Communicator for TcpMesh {
    fn rank(&self) -> usize {
        self.own.rank
    }

    fn size(&self) -> usize {
        self.common.links.len()
    }

    fn send(&self, to: usize, tag: Tag, message: Vec<u8>) -> Result<()> {
        self.link(to)?;
        self.common.state.send(to, tag, message)
    }

    fn recv(&self, from: usize, tag: Tag) -> Result<Vec<u8>> {
        let link = self.link(from)?;
        match self.common.state.recv(from, &link.peer)? {
            (found, message) if found == tag => Ok(message),
            (found, _) => Err(Error::bug(format!(
                "{} sent a message of kind {}, and one of kind {} was waited for",
                link.peer, found.0, tag.0
            ))),
        }
    }

    fn check(&self) -> Result<()> {
        self.common.state.check()
    }

    fn abort(&self, why: &Error) {
        // Once is enough, and the reason of another rank is not this one's.
        if self.check().is_ok() {
            let mut told = why.clone().context(&self.own);
            if told.kind == ErrorKind::Bug && told.hint.is_none() {
                told = told.hint("look into that rank's log");
            }
            self.common.fail(&told);
        }
    }

    fn close(&self) -> Result<()> {
        self.barrier()?;
        self.common.state.close()?;
        self.common.others().for_each(|link| link.say(&Word::Bye));
        // A rank that ends before the others read its goodbye would be taken for dead.
        let patience = Instant::now();
        let gone = |link: &Link| self.common.state.has_left(link.peer.rank);
        while !self.common.others().all(gone) && patience.elapsed() < Duration::from_secs(2) {
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}

impl Drop for TcpMesh {
    fn drop(&mut self) {
        // The thread that heard the reason may not have passed it on yet, and an end without a word would hide it.
        let reason = self.check().err().map(Word::Abort);
        self.common.state.drop_all();
        for link in self.common.others() {
            reason.iter().for_each(|reason| link.say(reason));
            let _ = link.data.shutdown(Shutdown::Both);
            if let Ok(control) = link.control.lock() {
                // What was said is still delivered: only this side's end of it is closed.
                let _ = control.shutdown(Shutdown::Write);
            }
        }
    }
}
