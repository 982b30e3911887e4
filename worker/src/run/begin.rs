//! Where a calibration begins and how far it goes: no further than something is to be observed, and not before what another
//! attempt has left.

use qlaunch_shared::assign::Piece;
use qlaunch_shared::{Error, ErrorKind, Result};

use super::relay::Relay;
use super::trail::Trail;
use crate::comm::Communicator;
use crate::network::{Batches, Stage, Start, Streaming};
use crate::ops::Backend;

/// What is asked of the store before a pass.
#[derive(Clone, Copy)]
pub(super) struct Asked<'q, 'a> {
    /// Where hidden states behind layers are kept.
    pub(super) trail: &'q Trail<'a>,
    /// What this rank keeps; none for a single process.
    pub(super) relay: Option<&'q Relay<'a>>,
    /// The first and the last layer of this rank that are to be observed, if any.
    pub(super) range: Option<(usize, usize)>,
    /// Whether the output head is.
    pub(super) head: bool,
    /// How batches go through the layers.
    pub(super) streaming: Streaming,
    /// What goes through.
    pub(super) batches: Batches<'q>,
}

/// What this rank does of a pass.
pub(super) enum Begin<T> {
    /// Nothing: no rank has anything to observe, or those behind go on without it.
    Nowhere,
    /// Goes through layers, from what there is.
    From(Start<T>),
}

impl<T> Begin<T> {
    /// All of a stage.
    pub(super) fn whole(stage: &Stage<'_>) -> Self {
        Self::From(Start::at(stage.layers.clone()))
    }
}

/// Finds where to begin. All ranks agree on it; several send batches through all layers behind.
///
/// # Errors
/// States cannot be read, or a rank is gone.
pub(super) fn begin<B: Backend>(
    backend: &B,
    stage: &Stage<'_>,
    asked: Asked<'_, '_>,
    say: &mut dyn FnMut(String),
) -> Result<Begin<B::Tensor>> {
    let Some(relay) = asked.relay else { return alone(backend, stage, asked, say) };
    if !stage.comm.any(asked.range.is_some())? {
        return Ok(Begin::Nowhere);
    }
    match asked.streaming {
        Streaming::LayerByLayer => layer_by_layer(backend, stage, asked, say),
        // The output head reads what all groups leave.
        Streaming::InGroups => in_groups(stage, relay, stage.comm.any(asked.head)?),
        Streaming::AheadThenLayerByLayer => ahead(backend, stage, (asked, relay), say),
    }
}

/// A single process begins with the last states before anything that is to be observed.
fn alone<B: Backend>(
    backend: &B,
    stage: &Stage<'_>,
    asked: Asked<'_, '_>,
    say: &mut dyn FnMut(String),
) -> Result<Begin<B::Tensor>> {
    let Some((first, last)) = asked.range else { return Ok(Begin::Nowhere) };
    let found = asked.trail.last(backend, asked.batches, first, say)?;
    let (begin, states) = found.map_or((stage.layers.start, None), |(layer, states)| (layer, Some(states)));
    Ok(Begin::From(Start { states, ..Start::at(begin..last + 1) }))
}

/// The rank that owns the layer behind the last states begins, and those before it have nothing to do.
fn layer_by_layer<B: Backend>(
    backend: &B,
    stage: &Stage<'_>,
    asked: Asked<'_, '_>,
    say: &mut dyn FnMut(String),
) -> Result<Begin<B::Tensor>> {
    let begin = first_of(stage.comm, asked.trail, asked.range)?;
    let layers = begin.max(stage.layers.start)..stage.layers.end;
    if layers.is_empty() {
        return Ok(Begin::Nowhere);
    }
    if !stage.layers.contains(&begin) || begin == 0 {
        return Ok(Begin::From(Start::at(layers)));
    }
    let states = match asked.trail.last(backend, asked.batches, begin, say)? {
        Some((layer, states)) if layer == begin => states,
        _ => {
            return Err(Error::new(ErrorKind::Resumable, "hidden states that were there are gone")
                .hint("start the job again"));
        }
    };
    Ok(Begin::From(Start { states: Some(states), ..Start::at(layers) }))
}

/// The layer that several ranks begin with where what comes behind a layer depends on it; the first rank looks.
///
/// # Errors
/// A rank is gone.
pub(super) fn first_of(
    comm: &dyn Communicator,
    trail: &Trail<'_>,
    range: Option<(usize, usize)>,
) -> Result<usize> {
    let own = range.map_or(u64::MAX, |(first, _)| first as u64);
    let all = comm.all_gather(own.to_le_bytes().to_vec())?;
    let first = all.iter().filter_map(|first| first.first_chunk()).map(|first| u64::from_le_bytes(*first));
    let first = first.min().unwrap_or(0).min(u64::from(u32::MAX)) as usize;
    let found = (1..=first.min(trail.layers())).rev().find(|&layer| trail.has(layer)).unwrap_or(0);
    let told = comm.broadcast(0, (found as u64).to_le_bytes().to_vec())?;
    let told = told.first_chunk().ok_or_else(|| Error::bug("another rank's answer is torn"))?;
    Ok(u64::from_le_bytes(*told) as usize)
}

/// All ranks go on behind the last group that each of them knows its part of.
fn in_groups<T>(stage: &Stage<'_>, relay: &Relay<'_>, head: bool) -> Result<Begin<T>> {
    let known = if head { Vec::new() } else { relay.known() };
    let known = known.into_iter().filter(|&groups| relay.covers(groups));
    let told = stage.comm.all_gather(known.flat_map(|groups| (groups as u64).to_le_bytes()).collect())?;
    let has = |rank: &Vec<u8>, groups: u64| {
        rank.as_chunks::<8>().0.iter().any(|known| u64::from_le_bytes(*known) == groups)
    };
    let done =
        (1..=relay.batches.groups()).rev().find(|&groups| told.iter().all(|rank| has(rank, groups as u64)));
    Ok(Begin::From(Start { done: done.unwrap_or(0), ..Start::at(stage.layers.clone()) }))
}

/// Batches that have come to a rank are not sent again, and each rank begins with the last states of its own layers.
fn ahead<B: Backend>(
    backend: &B,
    stage: &Stage<'_>,
    (asked, relay): (Asked<'_, '_>, &Relay<'_>),
    say: &mut dyn FnMut(String),
) -> Result<Begin<B::Tensor>> {
    let arrived = if stage.is_first() { 0 } else { relay.kept_groups() };
    let told = stage.comm.all_gather((arrived as u64).to_le_bytes().to_vec())?;
    let behind = told.get(stage.comm.rank() + 1).and_then(|told| told.first_chunk());
    let passed_on = behind.map_or(0, |told| u64::from_le_bytes(*told) as usize);
    let found = match asked.range {
        Some((first, _)) => asked.trail.last(backend, asked.batches, first, say)?,
        None => None,
    };
    let found = found.filter(|(layer, _)| *layer >= stage.layers.start);
    let layers = match (asked.range, &found) {
        (None, _) => stage.layers.end..stage.layers.end,
        (Some((_, last)), Some((layer, _))) => *layer..last + 1,
        (Some((_, last)), None) => stage.layers.start..last + 1,
    };
    let arrived = relay.read_groups(backend, arrived)?;
    let states = found.map(|(_, states)| states);
    Ok(Begin::From(Start { layers, states, done: 0, arrived, passed_on }))
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
