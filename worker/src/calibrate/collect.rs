//! Sums over the tokens of one activation, for all linears that read it.

use std::sync::Arc;

use qlaunch_shared::Result;
use qlaunch_shared::assign::{Needs, TOGETHER};

use super::statistics::{BlockGrams, Channels, Gram, LogHistogram};
use crate::ops::Backend;
use crate::ops::cpu::mirror;
use crate::tensor::dtype::Element;
use crate::tensor::host::for_each_dtype;

/// Values of a block whose magnitude is counted.
const BLOCK: usize = 16;

/// Sums that still grow.
#[derive(Debug)]
pub(super) struct Collection {
    pub(super) readers: Vec<usize>,
    pub(super) tokens: u64,
    pub(super) channels: Option<Growing>,
    gram: Option<Gram>,
    rounded_gram: Option<Gram>,
    block_grams: Option<BlockGrams>,
    pub(super) blocks: Option<LogHistogram>,
}

/// Sums over all tokens.
#[derive(Debug, Default)]
pub(super) struct Sums {
    pub(super) channels: Option<Arc<Channels>>,
    pub(super) gram: Option<Arc<Gram>>,
    pub(super) rounded_gram: Option<Arc<Gram>>,
    pub(super) block_grams: Option<Arc<BlockGrams>>,
    pub(super) blocks: Option<LogHistogram>,
}

impl Collection {
    /// Nothing seen yet of what these linears read.
    pub(super) fn new(readers: &[usize]) -> Self {
        Self {
            readers: readers.to_vec(),
            tokens: 0,
            channels: None,
            gram: None,
            rounded_gram: None,
            block_grams: None,
            blocks: None,
        }
    }

    /// Sees some tokens; `together` of them always come together, and a sample has `length`.
    pub(super) fn see<B: Backend>(
        &mut self,
        backend: &B,
        (needs, together, length): (Needs, usize, usize),
        x: &B::Tensor,
    ) -> Result<()> {
        let &[tokens, columns] = backend.shape(x) else { return Ok(()) };
        if needs.channels {
            let whole = TOGETHER * length;
            self.channels.get_or_insert_with(|| Growing::new(columns)).see(backend, whole, x)?;
        }
        if needs.gram {
            add(backend, together, x, &mut self.gram)?;
        }
        if let Some((width, of_batch)) = needs.block_grams {
            let grams = self.block_grams.get_or_insert_with(|| BlockGrams::new(columns, width));
            let stride = (TOGETHER * length / of_batch.max(1)).max(1) as u64;
            see_some(backend, x, (self.tokens, stride), grams)?;
        }
        if needs.blocks {
            count(backend, x, self.blocks.get_or_insert_with(LogHistogram::empty))?;
        }
        self.tokens += tokens as u64;
        Ok(())
    }

    /// Sees some tokens behind the quantizer.
    pub(super) fn see_rounded<B: Backend>(
        &mut self,
        backend: &B,
        together: usize,
        x: &B::Tensor,
    ) -> Result<()> {
        add(backend, together, x, &mut self.rounded_gram)
    }

    /// What both saw.
    pub(super) fn merge(self, other: Self) -> Self {
        Self {
            tokens: self.tokens + other.tokens,
            channels: both(self.channels, other.channels, Growing::merge),
            gram: both(self.gram, other.gram, Gram::merge),
            rounded_gram: both(self.rounded_gram, other.rounded_gram, Gram::merge),
            block_grams: both(self.block_grams, other.block_grams, |mut left, right| {
                left.add(&right);
                left
            }),
            blocks: both(self.blocks, other.blocks, |mut left, right| {
                left.counts.iter_mut().zip(right.counts).for_each(|(left, right)| *left += right);
                left
            }),
            readers: self.readers,
        }
    }

    /// The readers and what they share.
    pub(super) fn finish(self) -> (Vec<usize>, Sums) {
        let whole = |gram: Option<Gram>| {
            gram.map(|mut gram| {
                mirror(&mut gram.sums, gram.columns);
                Arc::new(gram)
            })
        };
        let sums = Sums {
            channels: self.channels.map(|channels| Arc::new(channels.finish())),
            gram: whole(self.gram),
            rounded_gram: whole(self.rounded_gram),
            block_grams: self.block_grams.map(Arc::new),
            blocks: self.blocks,
        };
        (self.readers, sums)
    }
}

/// Magnitudes of channels over the tokens so far.
#[derive(Debug)]
pub(super) struct Growing {
    pub(super) amax: Vec<f32>,
    /// Sums over the batch of [`TOGETHER`] samples that is not whole yet.
    pub(super) sums: Vec<f64>,
    /// Its tokens.
    pub(super) tokens: usize,
    /// Sums of the means of whole ones.
    pub(super) means: Vec<f64>,
    /// How many these are.
    pub(super) batches: usize,
}

impl Growing {
    pub(super) fn new(columns: usize) -> Self {
        let (sums, means) = (vec![0.0; columns], vec![0.0; columns]);
        Self { amax: vec![0.0; columns], sums, tokens: 0, means, batches: 0 }
    }

    /// Sees some tokens; every `whole` of them make a batch, wherever they come from.
    fn see<B: Backend>(&mut self, backend: &B, whole: usize, x: &B::Tensor) -> Result<()> {
        let tokens = backend.shape(x)[0];
        let mut done = 0;
        while done < tokens {
            let more = (whole - self.tokens).min(tokens - done);
            if more == tokens {
                backend.channels(x, &mut self.amax, &mut self.sums)?;
            } else {
                let ids: Vec<u32> = (done as u32..(done + more) as u32).collect();
                backend.channels(&backend.gather(x, &ids)?, &mut self.amax, &mut self.sums)?;
            }
            (done, self.tokens) = (done + more, self.tokens + more);
            if self.tokens == whole {
                self.close();
            }
        }
        Ok(())
    }

    /// Turns the sums of a batch into its mean.
    fn close(&mut self) {
        if self.tokens == 0 {
            return;
        }
        let tokens = self.tokens as f64;
        for (mean, sum) in self.means.iter_mut().zip(&mut self.sums) {
            *mean += std::mem::take(sum) / tokens;
        }
        (self.tokens, self.batches) = (0, self.batches + 1);
    }

    fn merge(mut self, mut other: Self) -> Self {
        self.close();
        other.close();
        self.amax.iter_mut().zip(other.amax).for_each(|(left, right)| *left = left.max(right));
        self.means.iter_mut().zip(other.means).for_each(|(left, right)| *left += right);
        self.batches += other.batches;
        self
    }

    fn finish(mut self) -> Channels {
        self.close();
        let count = self.batches.max(1) as f64;
        Channels { amax: self.amax, mean: self.means.iter().map(|sum| (sum / count) as f32).collect() }
    }
}

fn both<T>(left: Option<T>, right: Option<T>, merge: impl FnOnce(T, T) -> T) -> Option<T> {
    match (left, right) {
        (Some(left), Some(right)) => Some(merge(left, right)),
        (left, right) => left.or(right),
    }
}

fn add<B: Backend>(backend: &B, together: usize, x: &B::Tensor, gram: &mut Option<Gram>) -> Result<()> {
    let &[tokens, columns] = backend.shape(x) else { return Ok(()) };
    let gram = gram.get_or_insert_with(|| Gram { columns, sums: vec![0.0; columns * columns], tokens: 0 });
    gram.tokens += tokens as u64;
    backend.gram(x, together, &mut gram.sums)
}

/// Adds every token whose number, counted from the first of all, is a multiple of the stride.
fn see_some<B: Backend>(
    backend: &B,
    x: &B::Tensor,
    (before, stride): (u64, u64),
    grams: &mut BlockGrams,
) -> Result<()> {
    let columns = grams.columns;
    backend.inspect(x, &mut |view| {
        for_each_dtype!(Elements, view.elements(), elements => {
            let skipped = (before.next_multiple_of(stride) - before) as usize;
            for row in elements.chunks(columns).skip(skipped).step_by(stride as usize) {
                grams.see(&row.iter().map(|value| value.to_f32()).collect::<Vec<f32>>());
            }
        });
        Ok(())
    })
}

fn count<B: Backend>(backend: &B, x: &B::Tensor, histogram: &mut LogHistogram) -> Result<()> {
    backend.inspect(x, &mut |view| {
        let columns = view.shape().last().copied().unwrap_or(1).max(1);
        for_each_dtype!(Elements, view.elements(), elements => {
            for block in elements.chunks(columns).flat_map(|row| row.chunks(BLOCK)) {
                histogram.see(block.iter().fold(0f32, |far, value| far.max(value.to_f32().abs())));
            }
        });
        Ok(())
    })
}
