//! What every communicator can do. All ranks run the same program: each calls the same collectives in the same order.

use std::sync::Arc;

use qlaunch_shared::{Error, Result};

/// What a message is about. A receiver names the tag that it waits for; another one is a bug of ours, not a race.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tag(pub u32);

impl Tag {
    /// Messages of collectives.
    pub const COLLECTIVE: Self = Self(1);
    /// Hidden states on their way to the next rank.
    pub const HIDDEN: Self = Self(2);
    /// What a rank found out about its share.
    pub const REPORT: Self = Self(3);
}

/// How values of several ranks become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reduction {
    /// Their sum, added in the order of ranks.
    Sum,
    /// The largest.
    Max,
}

/// The ranks of a job, as one of them sees the others.
///
/// A rank that fails, dies or falls silent ends every call on every other rank with the reason: no call waits for a rank
/// that is gone. A call waits without a limit for one that is alive and busy.
pub trait Communicator: Send + Sync {
    /// Which rank this is, from 0.
    fn rank(&self) -> usize;

    /// How many there are.
    fn size(&self) -> usize;

    /// Hands a message over to be sent; waits only while too much is on its way to that rank.
    ///
    /// # Errors
    /// A rank is gone.
    fn send(&self, to: usize, tag: Tag, message: Vec<u8>) -> Result<()>;

    /// Takes the next message of a rank.
    ///
    /// # Errors
    /// A rank is gone, or the message is about something else.
    fn recv(&self, from: usize, tag: Tag) -> Result<Vec<u8>>;

    /// Whether all ranks are still there; costs nothing.
    ///
    /// # Errors
    /// A rank is gone.
    fn check(&self) -> Result<()>;

    /// Tells all ranks why this one gives up; their calls fail with it.
    fn abort(&self, why: &Error);

    /// Says goodbye when all ranks are done; a rank that leaves without it is taken for dead.
    ///
    /// # Errors
    /// A rank is gone.
    fn close(&self) -> Result<()>;

    /// What every rank gave, in the order of ranks.
    ///
    /// # Errors
    /// A rank is gone.
    fn all_gather(&self, own: Vec<u8>) -> Result<Vec<Vec<u8>>> {
        let (rank, size) = (self.rank(), self.size());
        for to in (0..size).filter(|&to| to != rank) {
            self.send(to, Tag::COLLECTIVE, own.clone())?;
        }
        (0..size)
            .map(|from| match from == rank {
                true => Ok(own.clone()),
                false => self.recv(from, Tag::COLLECTIVE),
            })
            .collect()
    }

    /// Whether it is so on any rank.
    ///
    /// # Errors
    /// A rank is gone.
    fn any(&self, own: bool) -> Result<bool> {
        Ok(self.all_gather(vec![u8::from(own)])?.iter().any(|rank| rank == &[1]))
    }

    /// What the rank `root` gave; the message of the others is not looked at.
    ///
    /// # Errors
    /// A rank is gone.
    fn broadcast(&self, root: usize, message: Vec<u8>) -> Result<Vec<u8>> {
        if self.rank() != root {
            return self.recv(root, Tag::COLLECTIVE);
        }
        for to in (0..self.size()).filter(|&to| to != root) {
            self.send(to, Tag::COLLECTIVE, message.clone())?;
        }
        Ok(message)
    }

    /// Makes one of the values of all ranks, place by place, with the same bits on all of them.
    ///
    /// # Errors
    /// A rank is gone, or has another number of values.
    fn all_reduce(&self, values: &mut [f64], how: Reduction) -> Result<()> {
        let own: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let all = self.all_gather(own)?;
        for (rank, bytes) in all.iter().enumerate() {
            let (chunks, rest) = bytes.as_chunks::<8>();
            if chunks.len() != values.len() || !rest.is_empty() {
                return Err(Error::bug(format!("rank {rank} has another number of values to reduce")));
            }
            for (value, chunk) in values.iter_mut().zip(chunks) {
                let other = f64::from_le_bytes(*chunk);
                *value = match how {
                    _ if rank == 0 => other,
                    Reduction::Sum => *value + other,
                    Reduction::Max => value.max(other),
                };
            }
        }
        Ok(())
    }

    /// Waits until every rank is here.
    ///
    /// # Errors
    /// A rank is gone.
    fn barrier(&self) -> Result<()> {
        self.all_gather(Vec::new()).map(drop)
    }
}

impl<C: Communicator + ?Sized> Communicator for Arc<C> {
    fn rank(&self) -> usize {
        self.as_ref().rank()
    }

    fn size(&self) -> usize {
        self.as_ref().size()
    }

    fn send(&self, to: usize, tag: Tag, message: Vec<u8>) -> Result<()> {
        self.as_ref().send(to, tag, message)
    }

    fn recv(&self, from: usize, tag: Tag) -> Result<Vec<u8>> {
        self.as_ref().recv(from, tag)
    }

    fn check(&self) -> Result<()> {
        self.as_ref().check()
    }

    fn abort(&self, why: &Error) {
        self.as_ref().abort(why);
    }

    fn close(&self) -> Result<()> {
        self.as_ref().close()
    }
}
