//! Pieces of a checkpoint made again, each held against the checkpoint's tensors as soon as it is there.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use qlaunch_shared::assign::{Assignment, Grouping, Piece, Resolved, resolve_with};
use qlaunch_shared::checkpoint::{CheckpointFiles, read_header};
use qlaunch_shared::model::Model;
use qlaunch_shared::protocol::{AttemptFolder, Phase, Reproduce, Reproduced, Unit};
use qlaunch_shared::{Error, Result};

use super::building::Building;
use super::output::Output;
use super::quantization::{CalibrationData, Means, build, own_pieces};
use crate::calibrate::{Statistics, Wanted};
use crate::comm::{Communicator, Tag};
use crate::export::{Finished, Production, Sources};
use crate::network::{SourceWeights, Stage};
use crate::ops::Backend;
use crate::report::Reporter;
use crate::tensor::{MappedCheckpoint, ShardFiles};

/// What is made again, and what came of it.
pub(super) struct Again<'a> {
    model: &'a Model,
    resolved: &'a Resolved,
    /// Tensors of the checkpoint.
    checkpoint: MappedCheckpoint,
    names: BTreeSet<String>,
    /// Where a piece lies until it was compared.
    folder: PathBuf,
    missing: BTreeSet<Piece>,
    found: Vec<Reproduced>,
}

impl Again<'_> {
    /// Pieces that are to be made.
    pub(super) const fn missing(&self) -> &BTreeSet<Piece> {
        &self.missing
    }

    /// What is to be observed for them.
    pub(super) fn wanted(&self, assignment: &Assignment) -> Wanted {
        let mut wanted = Wanted::of(assignment);
        let is_own = |piece: &Piece| self.missing.contains(piece);
        wanted.inputs.retain(|&module, _| is_own(&Piece::of_module(&self.model.modules[module])));
        wanted.keys.retain(|&layer, _| is_own(&Piece::Layer(layer)));
        wanted.values.retain(|&layer, _| is_own(&Piece::Layer(layer)));
        wanted
    }

    /// Makes a piece, and compares it.
    ///
    /// # Errors
    /// As [`Production::finish`], or the checkpoint cannot be read.
    pub(super) fn make(
        &mut self,
        production: &mut Production<'_>,
        piece: Piece,
        statistics: &Statistics,
        progress: &mut dyn FnMut(u64) -> Result<()>,
    ) -> Result<Finished> {
        let shards = self.resolved.layout.of_group(piece.group(self.model.config.layers));
        let shards: Vec<_> = shards.map(|shard| (self.folder.join(&shard.file), shard)).collect();
        let files = ShardFiles::create(shards.iter().map(|(path, shard)| (path.clone(), *shard)))?;
        let finished = production.finish(piece, (statistics, &files), progress)?;
        files.check_whole()?;
        let mut found = Reproduced { piece, tensors: 0, bytes: 0, differing: Vec::new() };
        let headers = shards.iter().map(|(path, _)| read_header(path)).collect::<Result<_>>()?;
        let made = MappedCheckpoint::open(CheckpointFiles::from_headers(&self.folder, headers)?)?;
        let mut planned = BTreeSet::new();
        for tensor in shards.iter().flat_map(|(_, shard)| &shard.tensors) {
            planned.insert(tensor.name.as_str());
            found.tensors += 1;
            found.bytes += tensor.length;
            if !self.is_same(&tensor.name, &made)? {
                found.differing.push(tensor.name.clone());
            }
        }
        for (path, _) in &shards {
            fs::remove_file(path).map_err(|error| Error::io("remove", path, &error))?;
        }
        let is_own = |name: &&String| piece.layer().is_some() && Piece::of_source(name) == piece;
        let beyond = self.names.iter().filter(is_own).filter(|name| !planned.contains(name.as_str()));
        found.differing.extend(beyond.cloned());
        self.found.push(found);
        self.missing.remove(&piece);
        Ok(finished)
    }

    /// Whether the checkpoint has a tensor as it was made just now.
    fn is_same(&self, name: &str, made: &MappedCheckpoint) -> Result<bool> {
        if !self.names.contains(name) {
            return Ok(false);
        }
        let (there, here) = (self.checkpoint.tensor(name)?, made.tensor(name)?);
        let same = there.dtype == here.dtype && there.shape == here.shape && there.bytes == here.bytes;
        self.checkpoint.release(name);
        Ok(same)
    }
}

/// Makes pieces of a checkpoint again and holds them against it; the first rank has all results, the others their own.
///
/// # Errors
/// The recipe does not fit the model, its data cannot be read, or the checkpoint cannot.
pub(super) fn reproduce<B: Backend>(
    backend: &B,
    (model, comm): (&Model, &dyn Communicator),
    step: &Reproduce,
    (attempt, reporter): (&AttemptFolder, &mut Reporter),
) -> Result<Vec<Reproduced>> {
    let resolved = resolve_with(model, Some(&step.made.recipe), step.made.aims(Grouping::ByPiece))?;
    let assignment = resolved.assignment.as_ref();
    let assignment = assignment.ok_or_else(|| Error::bug("there is nothing to quantize"))?;
    let files = MappedCheckpoint::open(model.files.clone())?;
    let weights = SourceWeights::new(model, &files);
    let stage = Stage::of(comm, model, false)?;
    let sources = Sources { weights: &weights, files: &files, resolved: &resolved };
    let production = Production::new(sources, backend.coder())?;
    let data = CalibrationData::read((model, assignment), &step.made, Means { comm, store: None }, reporter)?;
    let tokens = data.as_ref().map(|data| &data.summary);
    if let (Some(known), Some(read)) = (&step.tokens_sha256, tokens)
        && *known != read.tokens_sha256
    {
        return Err(Error::input("the checkpoint was calibrated on other tokens than these")
            .at(&read.data)
            .hint("give the data that it was made with: `--calib FILE`"));
    }
    let headers = Model::open_any(&step.checkpoint)?.files;
    let folder = attempt.0.join(format!("again-{}", comm.rank()));
    fs::create_dir_all(&folder).map_err(|error| Error::io("make a folder", &folder, &error))?;
    let again = Again {
        model,
        resolved: &resolved,
        names: headers.tensors().map(|tensor| tensor.name.clone()).collect(),
        checkpoint: MappedCheckpoint::open(headers)?,
        missing: wanted(step, assignment, &stage),
        folder: folder.clone(),
        found: Vec::new(),
    };
    let (silent, path) = (step.made.silent_experts, backend.numeric_path());
    let building = Building::new(assignment, model, (production, Output::Again(again)), silent, path);
    let (_, output) = build(backend, building, (&weights, &stage, data.as_ref()), &resolved, reporter)?;
    reporter.begin(Phase::Audit, 1, Unit::Steps, None);
    fs::remove_dir_all(&folder).map_err(|error| Error::io("remove", &folder, &error))?;
    let Output::Again(mut again) = output else { return Err(Error::bug("nothing was made again")) };
    // Layers that were made for what comes behind them are no part of the sample.
    again.found.retain(|found| step.pieces.contains(&found.piece));
    gather(comm, again.found)
}

/// Pieces of this rank that are made: those that are asked for, and where layers are calibrated behind quantized ones, all
/// before the last of these.
fn wanted(step: &Reproduce, assignment: &Assignment, stage: &Stage<'_>) -> BTreeSet<Piece> {
    let own = own_pieces(stage).into_iter();
    let last = match assignment.calibration.is_behind_quantized() {
        true => step.pieces.iter().max(),
        false => None,
    };
    own.filter(|piece| step.pieces.contains(piece) || last.is_some_and(|last| piece < last)).collect()
}

/// Tells the first rank what the others found.
fn gather(comm: &dyn Communicator, mut found: Vec<Reproduced>) -> Result<Vec<Reproduced>> {
    let bug = |error: serde_json::Error| Error::bug(format!("cannot tell what was made again: {error}"));
    if comm.rank() > 0 {
        comm.send(0, Tag::REPORT, serde_json::to_vec(&found).map_err(bug)?)?;
        return Ok(found);
    }
    for rank in 1..comm.size() {
        let other: Vec<Reproduced> = serde_json::from_slice(&comm.recv(rank, Tag::REPORT)?).map_err(bug)?;
        found.extend(other);
    }
    found.sort_by_key(|found| found.piece);
    Ok(found)
}
