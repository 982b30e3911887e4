//! Where finished pieces of a checkpoint go: straight into its files, or into the store to be linked from there.

use std::collections::BTreeSet;
use std::path::Path;

use qlaunch_shared::Result;
use qlaunch_shared::assign::{Assignment, Piece};

use super::kept::Kept;
use crate::calibrate::{Statistics, Wanted};
use crate::comm::{Communicator, Tag};
use crate::export::{Finished, Production, Report};
use crate::network::Stage;
use crate::ops::Backend;
use crate::tensor::Writer;
use crate::tokens::Samples;

/// Where finished pieces go.
pub(super) enum Output<'a> {
    /// Into the checkpoint's own files.
    Folder {
        /// The files.
        writer: Writer,
        /// Pieces that are in them.
        made: BTreeSet<Piece>,
    },
    /// Into the store.
    Store(Kept<'a>),
}

impl<'a> Output<'a> {
    /// Begins a checkpoint's own files on the first rank, which the others join.
    pub(super) fn folder(production: &Production<'_>, out: &Path, stage: &Stage<'_>) -> Result<Self> {
        let layout = &production.sources().resolved.layout;
        if stage.is_first() {
            let writer = Writer::create(out, layout)?;
            stage.comm.barrier()?;
            return Ok(Self::Folder { writer, made: BTreeSet::new() });
        }
        stage.comm.barrier()?;
        let writer = Writer::join(out, layout).map_err(|e| match e.hint {
            Some(_) => e,
            None => e.hint("all ranks need the output folder on a disk that they share"),
        })?;
        Ok(Self::Folder { writer, made: BTreeSet::new() })
    }

    /// Pieces whose inputs are to be observed; none stands for all.
    pub(super) fn unseen(&self) -> Option<Vec<Piece>> {
        self.kept().map(|kept| kept.unseen().collect())
    }

    /// The store, where pieces go there.
    pub(super) const fn kept(&self) -> Option<&Kept<'a>> {
        match self {
            Self::Folder { .. } => None,
            Self::Store(kept) => Some(kept),
        }
    }

    /// What is to be observed.
    pub(super) fn wanted(&self, assignment: &Assignment) -> Wanted {
        match self {
            Self::Folder { .. } => Wanted::of(assignment),
            Self::Store(kept) => kept.wanted(assignment),
        }
    }

    /// Whether a piece is still to be made.
    pub(super) fn is_missing(&self, piece: Piece) -> bool {
        match self {
            Self::Folder { made, .. } => !made.contains(&piece),
            Self::Store(kept) => kept.missing().contains(&piece),
        }
    }

    /// Adds what is known of a piece's inputs already.
    pub(super) fn load(&self, piece: Piece, statistics: &mut Statistics) -> Result<()> {
        match self {
            Self::Store(kept) if kept.is_wanted(piece) => kept.load(piece, statistics),
            _ => Ok(()),
        }
    }

    /// Keeps what was observed of a piece's inputs.
    pub(super) fn save(&mut self, piece: Piece, statistics: &Statistics) -> Result<()> {
        match self {
            Self::Folder { .. } => Ok(()),
            Self::Store(kept) => kept.save(piece, statistics),
        }
    }

    /// Keeps the hidden states behind a layer.
    pub(super) fn pass<B: Backend>(
        &mut self,
        backend: &B,
        layer: usize,
        passed: (&Samples, &[B::Tensor]),
    ) -> Result<()> {
        match self {
            Self::Folder { .. } => Ok(()),
            Self::Store(kept) => kept.pass(backend, layer, passed),
        }
    }

    /// Makes a piece.
    pub(super) fn make(
        &mut self,
        production: &mut Production<'_>,
        piece: Piece,
        statistics: &Statistics,
        progress: &mut dyn FnMut(u64) -> Result<()>,
    ) -> Result<Finished> {
        match self {
            Self::Folder { writer, made } => {
                made.insert(piece);
                production.finish(piece, (statistics, writer.shards()), progress)
            }
            Self::Store(kept) => kept.make(production, piece, statistics, progress),
        }
    }

    /// Makes the whole a checkpoint, once all ranks have made their pieces; whether this is the first rank, which does it.
    pub(super) fn publish(
        self,
        production: &mut Production<'_>,
        out: &Path,
        comm: &dyn Communicator,
    ) -> Result<bool> {
        match self {
            Self::Folder { writer, .. } => {
                if !gather(production, &writer, comm)? {
                    return Ok(false);
                }
                production.publish(writer)?;
                Ok(true)
            }
            Self::Store(kept) => {
                comm.barrier()?;
                kept.forget_states();
                if comm.rank() > 0 {
                    return Ok(false);
                }
                let mut writer = Writer::assemble(out, &production.sources().resolved.layout)?;
                kept.assemble(&mut writer, production)?;
                production.publish(writer)?;
                Ok(true)
            }
        }
    }
}

/// Tells the first rank what this one wrote and learnt; whether this is the first.
fn gather(production: &mut Production<'_>, writer: &Writer, comm: &dyn Communicator) -> Result<bool> {
    if comm.rank() > 0 {
        let report = Report::of(&production.learnt, writer.shards().sync()?);
        comm.send(0, Tag::REPORT, report.encode()?)?;
        return Ok(false);
    }
    for rank in 1..comm.size() {
        let report = Report::decode(&comm.recv(rank, Tag::REPORT)?)?;
        report.written.iter().try_for_each(|name| writer.shards().count(name))?;
        report.add_to(&mut production.learnt);
    }
    Ok(true)
}
