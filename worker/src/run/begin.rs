//! Where a calibration begins and how far it goes: no further than something is to be observed.

use std::ops::Range;

use qlaunch_shared::Result;
use qlaunch_shared::assign::Piece;

use crate::network::Stage;

/// Layers that batches are sent through, and the hidden states before the first of them, where they are known.
pub(super) struct Begin<T> {
    /// Layers of this rank.
    pub(super) layers: Range<usize>,
    /// Batches before the first layer; embedded or received where there are none.
    pub(super) states: Option<Vec<T>>,
}

impl<T> Begin<T> {
    /// All layers of this rank.
    pub(super) fn whole(stage: &Stage<'_>) -> Self {
        Self { layers: stage.layers.clone(), states: None }
    }

    /// The layers from the last known states before `range`, the first and the last layer of this rank that are to be
    /// observed, to its end; none where no rank has anything to observe. Several ranks send batches through all layers.
    ///
    /// # Errors
    /// States cannot be read, or a rank is gone.
    pub(super) fn find(
        range: Option<(usize, usize)>,
        stage: &Stage<'_>,
        states: impl FnOnce(usize) -> Result<Option<(usize, Vec<T>)>>,
    ) -> Result<Option<Self>> {
        if stage.comm.size() > 1 {
            let wanted = stage.comm.all_gather(vec![u8::from(range.is_some())])?;
            return Ok(wanted.iter().any(|own| own == &[1]).then(|| Self::whole(stage)));
        }
        let Some((first, last)) = range else { return Ok(None) };
        let (begin, states) = match states(first)? {
            Some((layer, states)) => (layer, Some(states)),
            None => (0, None),
        };
        Ok(Some(Self { layers: begin..last + 1, states }))
    }
}

/// The first and the last layer whose inputs are to be observed, where any are.
pub(super) fn range_of(unseen: impl Iterator<Item = Piece>, layers: usize) -> Option<(usize, usize)> {
    let layer = |piece: Piece| match piece {
        Piece::First => 0,
        Piece::Layer(layer) => layer,
        // Its input is what the last layer leaves.
        Piece::Last => layers.saturating_sub(1),
    };
    unseen.map(layer).fold(None, |range, layer| match range {
        None => Some((layer, layer)),
        Some((first, last)) => Some((first.min(layer), last.max(layer))),
    })
}
