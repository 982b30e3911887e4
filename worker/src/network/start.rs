//! How a pass goes through the layers of a stage, and where it begins.

use std::ops::Range;

use super::stage::Stage;

/// How far a pass has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Decoder layer at work, from 1.
    pub layer: usize,
    /// Tokens that this step sent through the layer.
    pub tokens: usize,
}

/// How batches go through the layers of one of several ranks; a single process takes layer by layer whatever is asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Streaming {
    /// All batches go through a layer before any goes through the next: what the tap makes of a layer changes what comes
    /// behind it. Each rank waits for the one before.
    #[default]
    LayerByLayer,
    /// Batches go through in groups, and all turns are taken at the end: what the tap keeps of a layer is small, and no turn
    /// asks for another pass.
    InGroups,
    /// Batches go through in groups first, unseen, for the ranks behind; then layer by layer: what the tap keeps of a layer
    /// is large, or asks for another pass, and what comes behind does not depend on it.
    AheadThenLayerByLayer,
}

impl Streaming {
    /// The layers of a pass as so many groups of batches go through them.
    pub(super) fn order<T>(self, stage: &Stage<'_>, start: &Start<T>, groups: usize) -> Vec<usize> {
        let whole = |groups: usize| (0..groups).flat_map(|_| stage.layers.clone());
        match self {
            Self::LayerByLayer => start.layers.clone().collect(),
            Self::InGroups => whole(groups.saturating_sub(start.done)).collect(),
            Self::AheadThenLayerByLayer => {
                let unsent = if stage.is_last() { 0 } else { groups.saturating_sub(start.passed_on) };
                whole(unsent).chain(start.layers.clone()).collect()
            }
        }
    }
}

/// Where a pass begins: what an attempt before this one has left of it.
pub struct Start<T> {
    /// Layers that are gone through, of those of the stage.
    pub layers: Range<usize>,
    /// Hidden states before the first of these, all batches; embedded or received where there are none.
    pub states: Option<Vec<T>>,
    /// The first so many groups are done on all ranks ([`Streaming::InGroups`]).
    pub done: usize,
    /// The first groups as they came from the rank before ([`Streaming::AheadThenLayerByLayer`]).
    pub arrived: Vec<Vec<T>>,
    /// So many groups have come to the rank behind.
    pub passed_on: usize,
}

impl<T> Start<T> {
    /// At the first of these layers, with nothing done.
    pub const fn at(layers: Range<usize>) -> Self {
        Self { layers, states: None, done: 0, arrived: Vec::new(), passed_on: 0 }
    }
}
