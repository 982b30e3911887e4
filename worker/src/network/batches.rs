//! Samples cut into micro-batches, and these into groups, the same on every rank.

use super::stage::Stage;
use crate::tokens::Samples;

/// Micro-batches for each rank: the first ones fill the pipeline and the last ones empty it, and both cost time.
const IN_FLIGHT: usize = 8;

/// Samples, and how they go through the layers.
#[derive(Clone, Copy)]
pub struct Batches<'a> {
    /// All of them.
    pub samples: &'a Samples,
    /// Samples of a micro-batch, which go through a layer together; the last one may have fewer.
    pub batch: usize,
    /// Micro-batches of a group, which go through the layers of one of several ranks together.
    pub group: usize,
}

impl<'a> Batches<'a> {
    /// Cuts samples for the ranks of `stage`, up to `wanted` into a micro-batch: a single process takes that many, several take
    /// few enough that none waits long for the first, nor works alone on the last.
    pub fn of(stage: &Stage<'_>, samples: &'a Samples, wanted: usize) -> Self {
        let (all, wanted) = (samples.count(), wanted.max(1));
        let (batch, group) = match stage.comm.size() {
            1 => (wanted, all.div_ceil(wanted)),
            ranks => {
                let batch = all.div_ceil(IN_FLIGHT * ranks).clamp(1, wanted);
                (batch, all.div_ceil(batch).div_ceil(IN_FLIGHT * ranks))
            }
        };
        Self { samples, batch, group: group.max(1) }
    }

    /// Micro-batches.
    pub fn count(&self) -> usize {
        self.samples.count().div_ceil(self.batch)
    }

    /// Groups of them.
    pub fn groups(&self) -> usize {
        self.count().div_ceil(self.group)
    }

    /// Samples of a whole group.
    pub const fn grouped(&self) -> usize {
        self.batch * self.group
    }

    /// Samples behind the first so many groups.
    pub fn behind(&self, groups: usize) -> usize {
        self.samples.count().saturating_sub(groups.saturating_mul(self.grouped()))
    }

    /// The token ids of each micro-batch.
    pub fn ids(&self) -> impl Iterator<Item = &'a [u32]> {
        self.samples.batches(self.batch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::comm::Single;

    #[test]
    fn one_rank_keeps_its_batches_and_all_of_them_are_a_group() {
        let alone = Stage { comm: &Single, layers: 0..4 };
        let samples = Samples { ids: vec![0; 64 * 3], length: 3, skipped: 0 };
        let batches = Batches::of(&alone, &samples, 8);
        assert_eq!((batches.batch, batches.group), (8, 8));
        assert_eq!((batches.count(), batches.groups(), batches.behind(0), batches.behind(1)), (8, 1, 64, 0));
    }
}
