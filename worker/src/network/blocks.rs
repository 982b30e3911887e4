//! Which decoder layers a rank owns: contiguous blocks of about the same work, embedding and output head included.

use std::ops::Range;

use qlaunch_shared::model::{Model, Module, ModuleRole};
use qlaunch_shared::{Error, Result};

/// What a part of a model costs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cost {
    /// Bytes to read, quantize and write.
    pub bytes: u64,
    /// Multiplications for a token.
    pub operations: u64,
}

impl Cost {
    fn add(self, other: Self) -> Self {
        Self { bytes: self.bytes + other.bytes, operations: self.operations + other.operations }
    }
}

/// The blocks of `ranks` ranks over the layers of a model. With `scored`, the output head multiplies for every token: that
/// is so where a model is evaluated.
///
/// # Errors
/// There are more ranks than layers.
pub fn blocks(model: &Model, ranks: usize, scored: bool) -> Result<Vec<Range<usize>>> {
    let layers = model.config.layers;
    if ranks > layers {
        return Err(Error::usage(format!("{ranks} ranks cannot share {layers} decoder layers"))
            .hint(format!("use `--ranks {layers}` or fewer")));
    }
    let mut costs = vec![Cost::default(); layers];
    for (part, cost) in model.modules.iter().map(|part| (part, cost_of(model, part))) {
        let (layer, cost) = match (part.layer, part.role) {
            (Some(layer), _) => (layer, cost),
            // A row is looked up, and nothing multiplied.
            (None, ModuleRole::Embedding { .. }) => (0, Cost { operations: 0, ..cost }),
            (None, _) if scored => (layers - 1, cost),
            (None, _) => (layers - 1, Cost { operations: 0, ..cost }),
        };
        costs[layer] = costs[layer].add(cost);
    }
    Ok(balance(&costs, ranks))
}

/// Multiplications of the experts that a token does not go to are none.
fn cost_of(model: &Model, part: &Module) -> Cost {
    let bytes = model.weight(part).map_or(0, |tensor| tensor.length);
    let elements: usize = part.role.weight_shape().map_or(0, |shape| shape.iter().product());
    let operations = match (part.expert(), &model.config.experts) {
        (Some(_), Some(experts)) => elements * experts.per_token / experts.count.max(1),
        _ if part.is_linear() => elements,
        _ => 0,
    };
    Cost { bytes, operations: operations as u64 }
}

/// Cuts a row of costs into so many blocks, none empty, whose most expensive one is as cheap as can be. Half of a cost are its
/// share of all bytes, half its share of all operations. Of equally good cuts, the first blocks are the largest.
pub fn balance(costs: &[Cost], ranks: usize) -> Vec<Range<usize>> {
    let total = costs.iter().copied().fold(Cost::default(), Cost::add);
    let (all_bytes, all_operations) = (u128::from(total.bytes.max(1)), u128::from(total.operations.max(1)));
    // Shares over one denominator, so that nothing is rounded.
    let weights: Vec<u128> = costs
        .iter()
        .map(|cost| u128::from(cost.bytes) * all_operations + u128::from(cost.operations) * all_bytes)
        .collect();
    let ranks = ranks.clamp(1, costs.len().max(1));
    let mut sums = vec![0u128];
    for weight in &weights {
        sums.push(sums[sums.len() - 1] + weight);
    }
    let items = costs.len();
    // best[r][i]: the cheapest most expensive block of r + 1 blocks over the items from i on.
    let mut best: Vec<Vec<u128>> = vec![(0..=items).map(|begin| sums[items] - sums[begin]).collect()];
    for blocks in 1..ranks {
        let rest = &best[blocks - 1];
        let cheapest = |begin: usize| {
            let ends = begin + 1..=items.saturating_sub(blocks);
            ends.map(|end| (sums[end] - sums[begin]).max(rest[end])).min().unwrap_or(u128::MAX)
        };
        let row = (0..=items).map(cheapest).collect();
        best.push(row);
    }
    let mut begin = 0;
    (0..ranks)
        .map(|rank| {
            let left = ranks - rank - 1;
            let fits = |&end: &usize| {
                let most = best[ranks - 1][0];
                sums[end] - sums[begin] <= most && (left == 0 || best[left - 1][end] <= most)
            };
            let last = items - left;
            let end = match left {
                0 => items,
                _ => (begin + 1..=last).rev().find(fits).unwrap_or(last),
            };
            let block = begin..end;
            begin = end;
            block
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn costs(bytes: &[u64]) -> Vec<Cost> {
        bytes.iter().map(|&bytes| Cost { bytes, operations: bytes }).collect()
    }

    #[test]
    fn equal_layers_are_shared_equally() {
        assert_eq!(balance(&costs(&[1; 8]), 1), std::iter::once(0..8).collect::<Vec<_>>());
        assert_eq!(balance(&costs(&[1; 8]), 2), [0..4, 4..8]);
        assert_eq!(balance(&costs(&[1; 8]), 3), [0..3, 3..6, 6..8]);
        assert_eq!(balance(&costs(&[1; 8]), 4), [0..2, 2..4, 4..6, 6..8]);
    }

    #[test]
    fn a_heavy_head_gets_fewer_layers_beside_it() {
        assert_eq!(balance(&costs(&[1, 1, 1, 1, 1, 4]), 2), [0..5, 5..6]);
        assert_eq!(balance(&costs(&[2, 2, 2, 2, 2, 5]), 2), [0..4, 4..6]);
        assert_eq!(balance(&costs(&[5, 1, 1, 1]), 2), [0..1, 1..4]);
    }

    #[test]
    fn operations_count_as_much_as_bytes() {
        let mut items = costs(&[1; 6]);
        // An embedding: bytes and no operations.
        items[0].bytes = 4;
        assert_eq!(balance(&items, 2), [0..2, 2..6]);
    }

    /// The most expensive block.
    fn worst(bytes: &[u64], blocks: &[Range<usize>]) -> u64 {
        blocks.iter().map(|block| bytes[block.clone()].iter().sum()).max().unwrap_or(0)
    }

    /// The best that any cut reaches, found by trying all.
    fn by_trying(bytes: &[u64], ranks: usize) -> u64 {
        if ranks == 1 {
            return bytes.iter().sum();
        }
        (1..=bytes.len() - (ranks - 1))
            .map(|end| bytes[..end].iter().sum::<u64>().max(by_trying(&bytes[end..], ranks - 1)))
            .min()
            .unwrap()
    }

    proptest! {
        #[test]
        fn no_cut_is_better_and_every_layer_is_in_one_block(
            bytes in proptest::collection::vec(0u64..50, 1..9),
            ranks in 1usize..9,
        ) {
            let ranks = ranks.min(bytes.len());
            let blocks = balance(&costs(&bytes), ranks);
            prop_assert_eq!(blocks.len(), ranks);
            prop_assert!(blocks.iter().all(|block| !block.is_empty()));
            let covered: Vec<usize> = blocks.iter().cloned().flatten().collect();
            prop_assert_eq!(covered, (0..bytes.len()).collect::<Vec<_>>());
            prop_assert_eq!(worst(&bytes, &blocks), by_trying(&bytes, ranks));
        }
    }
}
