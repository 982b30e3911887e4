//! Where finished pieces of a checkpoint go: straight into its files, or into the store to be linked from there.

use std::collections::BTreeSet;
use std::path::Path;

use qlaunch_shared::assign::{Assignment, Piece};
use qlaunch_shared::digest::sha256;
use qlaunch_shared::store::{ASSEMBLY, Assembly, Digested};
use qlaunch_shared::{Error, Result};

use super::again::Again;
use super::kept::Kept;
use super::lookout::Lookout;
use crate::calibrate::{Statistics, Wanted};
use crate::comm::{Communicator, Tag};
use crate::export::{Finished, Production, Report};
use crate::network::Stage;
use crate::ops::Backend;
use crate::store::Claim;
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
    /// Nowhere: held against a checkpoint's.
    Again(Again<'a>),
}

impl<'a> Output<'a> {
    /// Begins a checkpoint's own files on the first rank, which the others join; with a digest of each tensor or without.
    pub(super) fn folder(
        production: &Production<'_>,
        out: &Path,
        stage: &Stage<'_>,
        has_digests: bool,
    ) -> Result<Self> {
        let layout = &production.sources().resolved.layout;
        let created = if stage.is_first() { Some(Writer::create(out, layout)?) } else { None };
        stage.comm.barrier()?;
        let mut writer = match created {
            Some(writer) => writer,
            None => Writer::join(out, layout).map_err(|e| match e.hint {
                Some(_) => e,
                None => e.hint("all ranks need the output folder on a disk that they share"),
            })?,
        };
        if has_digests {
            writer.take_digests();
        }
        Ok(Self::Folder { writer, made: BTreeSet::new() })
    }

    /// Pieces whose inputs are to be observed; none stands for all.
    pub(super) fn unseen(&self) -> Option<Vec<Piece>> {
        match self {
            Self::Folder { .. } => None,
            Self::Store(kept) => Some(kept.unseen().collect()),
            Self::Again(again) => Some(again.missing().iter().copied().collect()),
        }
    }

    /// The store, where pieces go there.
    pub(super) const fn kept(&self) -> Option<&Kept<'a>> {
        match self {
            Self::Folder { .. } | Self::Again(_) => None,
            Self::Store(kept) => Some(kept),
        }
    }

    /// What is to be observed.
    pub(super) fn wanted(&self, assignment: &Assignment) -> Wanted {
        match self {
            Self::Folder { .. } => Wanted::of(assignment),
            Self::Store(kept) => kept.wanted(assignment),
            Self::Again(again) => again.wanted(assignment),
        }
    }

    /// Whether a piece is still to be made.
    pub(super) fn is_missing(&self, piece: Piece) -> bool {
        match self {
            Self::Folder { made, .. } => !made.contains(&piece),
            Self::Store(kept) => kept.missing().contains(&piece),
            Self::Again(again) => again.missing().contains(&piece),
        }
    }

    /// Whether a piece's statistics are at hand: it is to be made, or to be passed on the way to others.
    pub(super) fn is_prepared(&self, piece: Piece) -> bool {
        match self {
            Self::Folder { .. } => true,
            Self::Store(kept) => kept.is_wanted(piece),
            Self::Again(again) => again.missing().contains(&piece),
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
    pub(super) fn save(&mut self, piece: Piece, lookout: &mut Lookout<'_>) -> Result<()> {
        match self {
            Self::Folder { .. } | Self::Again(_) => Ok(()),
            Self::Store(kept) => kept.save(piece, lookout),
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
            Self::Folder { .. } | Self::Again(_) => Ok(()),
            Self::Store(kept) => kept.trail.pass(backend, layer, passed),
        }
    }

    /// Claims the making of a piece; `None` where nothing is to be done any more, and nobody else is in the way where pieces
    /// go into a checkpoint's own files.
    pub(super) fn claim(
        &mut self,
        piece: Piece,
        say: &mut dyn FnMut(String),
    ) -> Result<Option<Option<Claim>>> {
        match self {
            Self::Folder { .. } | Self::Again(_) => Ok(Some(None)),
            Self::Store(kept) => Ok(kept.claim(piece, say)?.map(Some)),
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
            Self::Again(again) => again.make(production, piece, statistics, progress),
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
            Self::Folder { mut writer, .. } => {
                if !gather(production, &writer, comm)? {
                    return Ok(false);
                }
                for (name, content) in production.companions()? {
                    writer.add_file(&name, &content)?;
                }
                let digests = writer.shards().digests();
                if !digests.is_empty() {
                    let layout = &production.sources().resolved.layout;
                    let headers = layout.shards.iter().map(|shard| Digested {
                        name: shard.file.clone(),
                        bytes: shard.header.len() as u64,
                        sha256: sha256(&shard.header),
                    });
                    let assembly = Assembly::of_tensors(headers.collect(), digests);
                    writer.add_file(ASSEMBLY, assembly.encode()?.as_bytes())?;
                }
                writer.publish()?;
                Ok(true)
            }
            Self::Store(kept) => {
                comm.barrier()?;
                kept.trail.forget();
                if comm.rank() > 0 {
                    return Ok(false);
                }
                let mut writer = Writer::assemble(out, &production.sources().resolved.layout)?;
                kept.assemble(&mut writer, production)?;
                writer.publish()?;
                Ok(true)
            }
            Self::Again(_) => Err(Error::bug("what is only compared is no checkpoint")),
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
        let mut report = Report::decode(&comm.recv(rank, Tag::REPORT)?)?;
        let mut written = std::mem::take(&mut report.written).into_iter();
        written.try_for_each(|(name, digest)| writer.shards().count(&name, digest))?;
        report.add_to(&mut production.learnt);
    }
    Ok(true)
}
