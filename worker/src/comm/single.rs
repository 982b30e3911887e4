//! One rank alone: nobody to talk to, and nothing that can fail.

use qlaunch_shared::{Error, Result};

use super::{Communicator, Tag};

/// The communicator of a job that is one process.
#[derive(Debug, Clone, Copy, Default)]
pub struct Single;

fn alone() -> Error {
    Error::bug("a single process has nobody to talk to")
}

impl Communicator for Single {
    fn rank(&self) -> usize {
        0
    }

    fn size(&self) -> usize {
        1
    }

    fn send(&self, _to: usize, _tag: Tag, _message: Vec<u8>) -> Result<()> {
        Err(alone())
    }

    fn recv(&self, _from: usize, _tag: Tag) -> Result<Vec<u8>> {
        Err(alone())
    }

    fn check(&self) -> Result<()> {
        Ok(())
    }

    fn abort(&self, _why: &Error) {}

    fn close(&self) -> Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::comm::Reduction;

    #[test]
    fn collectives_of_one_rank_give_back_what_they_were_given() {
        let mut values = [1.5, -2.0];
        Single.all_reduce(&mut values, Reduction::Sum).unwrap();
        assert_eq!(values, [1.5, -2.0]);
        assert_eq!(Single.all_gather(vec![7]).unwrap(), [[7]]);
        assert_eq!(Single.broadcast(0, vec![8]).unwrap(), [8]);
        Single.barrier().unwrap();
        assert!(Single.send(0, Tag::HIDDEN, Vec::new()).is_err());
    }
}
