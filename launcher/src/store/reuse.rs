//! What of a job is in the store already: told before anything runs, from notes that earlier jobs left.

use std::collections::BTreeMap;

use qlaunch_shared::assign::{Grouping, Piece, resolve_with};
use qlaunch_shared::model::Model;
use qlaunch_shared::protocol::JobSpec;
use qlaunch_shared::store::{
    Condition, Ground, Manifest, PieceKeys, SourceDigests, Step, StoreFolder, TokenNote, build_keys,
};
use qlaunch_shared::{Error, Result};
use serde::Serialize;

/// What of a candidate is there, and what has to be made.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Reuse {
    /// Pieces of its checkpoint.
    pub pieces: usize,
    /// Those that are there.
    pub there: usize,
    /// Bytes of those that are not.
    pub new_bytes: u64,
    /// CPU time that what is there took, in seconds.
    pub saved_seconds: f64,
    /// CPU time that the others will take, by what like pieces took; none where nothing like them is there.
    pub new_seconds: Option<f64>,
    /// Statistics that have to be observed for them.
    pub unseen: usize,
    /// CPU time that observing them will take, by what it took on the same layers before; none where nobody knows.
    pub calibrate_seconds: Option<f64>,
    /// Pieces that have to be made, and why.
    pub new: Vec<NewPiece>,
}

/// A piece that has to be made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NewPiece {
    /// Which.
    pub piece: String,
    /// Its bytes.
    pub bytes: u64,
    /// In what it differs from the nearest one that is there; empty where there is none.
    pub differs_in: Vec<String>,
    /// What that one is.
    pub nearest: Option<String>,
}

/// Everything that lies in a store, by manifest.
#[derive(Debug)]
pub struct Inventory {
    store: StoreFolder,
    layers: Vec<Manifest>,
    statistics: BTreeMap<String, Manifest>,
}

impl Inventory {
    /// Looks through a store; one that is not there has nothing.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn of(store: StoreFolder) -> Result<Self> {
        let (mut layers, mut statistics) = (Vec::new(), BTreeMap::new());
        for key in store.keys()? {
            let Condition::Whole(manifest) = store.glance(&key) else { continue };
            match manifest.origin.step {
                Step::Layer => layers.push(*manifest),
                Step::Statistics => drop(statistics.insert(key.to_string(), *manifest)),
                Step::Tokens | Step::Hidden | Step::Reference | Step::Evaluation | Step::Companion => {}
            }
        }
        Ok(Self { store, layers, statistics })
    }

    /// What of a job is there; `None` where nobody can tell before the model and the data have been read once.
    ///
    /// # Errors
    /// The recipe does not fit the model.
    pub fn reuse(&self, spec: &JobSpec, model: &Model) -> Result<Option<Reuse>> {
        let Some(step) = &spec.quantize else { return Ok(None) };
        let digests = SourceDigests::read(&self.store, model)?.by_name();
        if model.files.tensors().any(|tensor| !digests.contains_key(&tensor.name)) {
            return Ok(None);
        }
        let resolved = resolve_with(model, Some(&step.recipe), step.aims(Grouping::ByPiece))?;
        let assignment = resolved.assignment.as_ref();
        let assignment = assignment.ok_or_else(|| Error::bug("there is nothing to quantize"))?;
        let note =
            step.calibration.as_ref().and_then(|source| TokenNote::read(&self.store, source, &model.folder));
        let Some(numeric_path) = spec.resources.numeric_path.or(note.as_ref().map(|note| note.numeric_path))
        else {
            return Ok(None);
        };
        if assignment.needs_calibration() && note.is_none() {
            return Ok(None);
        }
        let count = note.as_ref().map_or(0, |note| note.tokens);
        let tokens = note.map(|note| note.identity).filter(|_| assignment.needs_calibration());
        let ground = Ground {
            model,
            digests: &digests,
            tokens: tokens.as_deref(),
            numeric_path,
            silent_experts: step.silent_experts,
        };
        let mut reuse = Reuse {
            pieces: 0,
            there: 0,
            new_bytes: 0,
            saved_seconds: 0.0,
            new_seconds: None,
            unseen: 0,
            calibrate_seconds: None,
            new: Vec::new(),
        };
        let mut last_unseen = None;
        let all = build_keys(&resolved, &ground)?;
        for (index, keys) in all.iter().enumerate() {
            reuse.pieces += 1;
            let key = keys.origin.key();
            if let Some(manifest) = self.layers.iter().find(|manifest| manifest.key == key) {
                reuse.there += 1;
                reuse.saved_seconds += manifest.cpu_seconds;
                continue;
            }
            let shards = resolved.layout.of_group(keys.piece.group(model.config.layers));
            let bytes = shards.map(|shard| shard.bytes).sum();
            reuse.new_bytes += bytes;
            let is_unseen =
                |origin: &qlaunch_shared::store::Origin| !self.statistics.contains_key(origin.key().as_str());
            let unseen = keys.statistics.iter().filter(|(_, origin)| is_unseen(origin)).count();
            reuse.unseen += unseen;
            last_unseen = if unseen > 0 { Some(index) } else { last_unseen };
            reuse.new.push(self.new_piece(keys, bytes));
        }
        reuse.new_seconds = self.estimate(reuse.new_bytes);
        if let Some(last) = last_unseen {
            reuse.calibrate_seconds = self.calibration(&all[..=last], count);
        }
        Ok(Some(reuse))
    }

    /// Why a piece is not there: in what it differs from the nearest one of the same place in a model.
    fn new_piece(&self, keys: &PieceKeys, bytes: u64) -> NewPiece {
        let place = keys.piece.to_string();
        let alike = self.layers.iter().filter(|other| is_at(other, keys.piece));
        let nearest = alike.min_by_key(|other| keys.origin.differences(&other.origin).len());
        let differences = nearest.map(|other| keys.origin.differences(&other.origin)).unwrap_or_default();
        NewPiece {
            piece: place,
            bytes,
            differs_in: differences.into_iter().map(str::to_owned).collect(),
            nearest: nearest.map(|other| other.about.clone()),
        }
    }

    /// CPU seconds for so many tokens through the layers up to the last of some pieces, by what they took before.
    fn calibration(&self, pieces: &[PieceKeys], tokens: u64) -> Option<f64> {
        let sources =
            pieces.iter().filter_map(|keys| keys.piece.layer().and(keys.origin.inputs.get("source")));
        let sources: Vec<&String> = sources.collect();
        let is_alike = |known: &&Manifest| {
            known.origin.inputs.get("source").is_some_and(|source| sources.contains(&source))
        };
        let known = self.statistics.values().filter(is_alike);
        let known =
            known.filter_map(|known| Some((known.cpu_seconds, known.tokens.filter(|&tokens| tokens > 0)?)));
        let (seconds, sent) = known.fold((0.0, 0), |(seconds, sent), own| (seconds + own.0, sent + own.1));
        (sent > 0 && tokens > 0).then(|| seconds / sent as f64 * tokens as f64 * sources.len() as f64)
    }

    /// CPU seconds for so many bytes, by what the layers that are there took.
    fn estimate(&self, bytes: u64) -> Option<f64> {
        let made: u64 = self.layers.iter().map(Manifest::bytes).sum();
        let seconds: f64 = self.layers.iter().map(|manifest| manifest.cpu_seconds).sum();
        (made > 0).then(|| seconds / made as f64 * bytes as f64)
    }
}

/// Whether an artifact is of this place in a model.
fn is_at(manifest: &Manifest, piece: Piece) -> bool {
    manifest.about.starts_with(&format!("{piece} of "))
}

impl Reuse {
    /// `8 of 10 pieces are there, 1.2 MB are new`, with words for bytes from `spell`.
    pub fn summary(&self, spell: impl Fn(u64) -> String) -> String {
        if self.there == self.pieces {
            return format!("all {} pieces are in the store", self.pieces);
        }
        let mut text = format!(
            "{} of {} pieces are in the store, {} to make",
            self.there,
            self.pieces,
            spell(self.new_bytes)
        );
        let about = |seconds: Option<f64>| match seconds.filter(|seconds| *seconds >= 1.0) {
            Some(seconds) => format!(" (about {seconds:.0} s of CPU time)"),
            None => String::new(),
        };
        text.push_str(&about(self.new_seconds));
        match self.unseen {
            0 => text.push_str(", all statistics are there"),
            _ => text.push_str(&format!(", calibration first{}", about(self.calibrate_seconds))),
        }
        text
    }

    /// A line for each piece that has to be made.
    pub fn explanation(&self) -> Vec<String> {
        let line = |new: &NewPiece| match (&new.nearest, new.differs_in.is_empty()) {
            (Some(nearest), false) => {
                format!("{}: differs from `{nearest}` in {}", new.piece, new.differs_in.join(", "))
            }
            _ => format!("{}: nothing like it is in the store", new.piece),
        };
        self.new.iter().map(line).collect()
    }
}
