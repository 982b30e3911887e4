//! A candidate and the store: which of its pieces and statistics are there, and how those that are not get there.

use std::collections::{BTreeMap, BTreeSet};

use qlaunch_shared::assign::{Assignment, Needs, Piece, Resolved};
use qlaunch_shared::checkpoint::Shard;
use qlaunch_shared::digest::sha256;
use qlaunch_shared::model::Model;
use qlaunch_shared::quality::model_name;
use qlaunch_shared::store::{
    ASSEMBLY, Aspect, AssembledCompanion, AssembledPiece, Assembly, Digested, Observation, Origin, PieceKeys,
    Step,
};
use qlaunch_shared::{Error, Result};

use super::begin::{first_of, range_of};
use super::lookout::Lookout;
use super::quantization::own_pieces;
use super::relay::Observed;
use super::trail::Trail;
use crate::calibrate::{Statistics, Wanted, WantedCache, read_observation, write_observation};
use crate::export::{Finished, Production, Report};
use crate::network::Stage;
use crate::report::cpu_seconds;
use crate::store::{Claim, Store};
use crate::tensor::{ShardFiles, Writer};

/// File of an artifact of statistics.
const STATISTICS: &str = "statistics.safetensors";
/// A file beside the weights.
const COMPANION: &str = "content";
/// Size from which on files beside the weights are shared, in bytes: smaller ones take less than the manifest does.
const SHARED: usize = 1 << 14;
/// What became known while a piece was made.
const REPORT: &str = "report.json";

/// The store, seen from one candidate.
pub(super) struct Kept<'a> {
    store: &'a Store,
    model: &'a Model,
    resolved: &'a Resolved,
    keys: Vec<PieceKeys>,
    /// Pieces of this rank.
    all: Vec<Piece>,
    /// Those that are not in the store.
    missing: BTreeSet<Piece>,
    /// Layers of this rank that are there, and have to be quantized again for what comes behind them.
    passed: BTreeSet<Piece>,
    /// Statistics of all these pieces that are not there.
    unseen: BTreeMap<Piece, Vec<usize>>,
    /// Hidden states on the way through the layers.
    pub(super) trail: Trail<'a>,
}

impl<'a> Kept<'a> {
    /// Looks for the pieces of this rank, and for the statistics of those that are not there. What is broken is said.
    ///
    /// # Errors
    /// The store cannot be written.
    pub(super) fn open(
        store: &'a Store,
        (model, resolved): (&'a Model, &'a Resolved),
        keys: Vec<PieceKeys>,
        stage: &Stage<'_>,
        say: &mut dyn FnMut(String),
    ) -> Result<Self> {
        let (missing, passed, unseen) = (BTreeSet::new(), BTreeSet::new(), BTreeMap::new());
        let states = keys.iter().filter_map(|keys| Some((keys.piece.layer()?, keys.hidden.clone())));
        let trail = Trail::new(store, name(model), states.collect());
        let all = Vec::new();
        let mut own = Self { store, model, resolved, keys, all, missing, passed, unseen, trail };
        let pieces = own_pieces(stage);
        for keys in own.keys.iter().filter(|keys| pieces.contains(&keys.piece)) {
            if store.get(&keys.origin, say)?.is_none() {
                own.missing.insert(keys.piece);
                own.unseen.extend(unseen_of(store, keys, say)?);
            }
        }
        own.all = pieces;
        if resolved.assignment.as_ref().is_some_and(|own| own.calibration.is_behind_quantized()) {
            own.pass_again(stage, say)?;
        }
        Ok(own)
    }

    /// Finds the layers that batches go through once more, quantized, on their way to one that is to be observed.
    fn pass_again(&mut self, stage: &Stage<'_>, say: &mut dyn FnMut(String)) -> Result<()> {
        let range = range_of(self.unseen(), self.model.config.layers);
        let layers = match (stage.comm.size(), range) {
            (1, None) => return Ok(()),
            (1, Some((first, last))) => {
                (0..=first).rev().find(|&layer| self.trail.has(layer)).unwrap_or(0)..last
            }
            // Several ranks send batches through all layers behind the first, if any.
            _ => {
                if !stage.comm.any(range.is_some())? {
                    return Ok(());
                }
                first_of(stage.comm, &self.trail, range)?.max(stage.layers.start)..stage.layers.end
            }
        };
        for piece in layers.map(Piece::Layer).filter(|piece| !self.missing.contains(piece)) {
            let unseen = unseen_of(self.store, self.known(piece)?, say)?;
            self.unseen.extend(unseen);
            self.passed.insert(piece);
        }
        Ok(())
    }

    /// Pieces that are to be made.
    pub(super) const fn missing(&self) -> &BTreeSet<Piece> {
        &self.missing
    }

    /// Pieces that are to be made, and whose inputs are to be observed first.
    pub(super) fn unseen(&self) -> impl Iterator<Item = Piece> {
        self.unseen.keys().copied().filter(|piece| self.missing.contains(piece))
    }

    /// Whether statistics of a piece are of use.
    pub(super) fn is_wanted(&self, piece: Piece) -> bool {
        self.missing.contains(&piece) || self.passed.contains(&piece)
    }

    /// Statistics that are to be observed.
    pub(super) fn unseen_statistics(&self) -> impl Iterator<Item = (Piece, &Observation, &Origin)> {
        let unseen = self.unseen.iter().filter_map(|(piece, unseen)| Some((self.keys_of(*piece)?, unseen)));
        unseen.flat_map(|(keys, unseen)| {
            let found = unseen.iter().filter_map(|&index| keys.statistics.get(index));
            found.map(|(observation, origin)| (keys.piece, observation, origin))
        })
    }

    /// The store.
    pub(super) const fn store(&self) -> &'a Store {
        self.store
    }

    /// Keys of what is observed for pieces of this rank.
    pub(super) fn observed(&self) -> Observed {
        let own = self.keys.iter().filter(|keys| self.all.contains(&keys.piece));
        let all = own.flat_map(|keys| keys.statistics.iter().map(|(_, origin)| origin.key())).collect();
        let unseen = self.unseen_statistics().map(|(_, _, origin)| origin.key()).collect();
        Observed { all, unseen }
    }

    /// What is to be observed.
    pub(super) fn wanted(&self, assignment: &Assignment) -> Wanted {
        wanted(self.unseen_statistics().map(|(_, observation, _)| observation), assignment)
    }

    fn keys_of(&self, piece: Piece) -> Option<&PieceKeys> {
        self.keys.iter().find(|keys| keys.piece == piece)
    }

    fn known(&self, piece: Piece) -> Result<&PieceKeys> {
        self.keys_of(piece).ok_or_else(|| Error::bug(format!("{piece} has no key")))
    }

    /// Puts what was observed of a piece into the store.
    ///
    /// # Errors
    /// The disk is full.
    pub(super) fn save(&mut self, piece: Piece, lookout: &mut Lookout<'_>) -> Result<()> {
        let Some(unseen) = self.unseen.remove(&piece) else { return Ok(()) };
        let keys = self.known(piece)?;
        let unseen = unseen.into_iter().filter_map(|index| keys.statistics.get(index));
        save_observations(self.store, unseen.map(|(seen, origin)| (seen, origin)), self.model, lookout)
    }

    /// Adds what the store has of a piece that is to be made.
    ///
    /// # Errors
    /// It was there before, and is gone or broken now.
    pub(super) fn load(&self, piece: Piece, statistics: &mut Statistics) -> Result<()> {
        let none = Vec::new();
        let unseen = self.unseen.get(&piece).unwrap_or(&none);
        let keys = self.known(piece)?;
        let there = keys.statistics.iter().enumerate().filter(|(index, _)| !unseen.contains(index));
        for (_, (observation, origin)) in there {
            let mut why = String::from("it is gone");
            let found = self.store.get(origin, &mut |said| why = said)?;
            let found = found.ok_or_else(|| {
                Error::new(
                    qlaunch_shared::ErrorKind::Resumable,
                    format!("statistics of {piece} were lost: {why}"),
                )
                .at(&self.store.folder().0)
                .hint("start the job again")
            })?;
            read_observation(&found.path(STATISTICS), observation, self.model, statistics)?;
        }
        Ok(())
    }

    /// Claims the making of a piece, so that two candidates which have it in common do not both make it; `None` where it
    /// has come into the store meanwhile.
    ///
    /// # Errors
    /// The store cannot be written.
    pub(super) fn claim(&mut self, piece: Piece, say: &mut dyn FnMut(String)) -> Result<Option<Claim>> {
        let origin = self.known(piece)?.origin.clone();
        let claim = self.store.claim(&origin.key())?;
        // Whoever had it before has put the piece there before giving it back.
        if self.store.get(&origin, say)?.is_some() {
            self.missing.remove(&piece);
            return Ok(None);
        }
        Ok(Some(claim))
    }

    /// Makes a piece and puts it into the store, if it is not there.
    ///
    /// # Errors
    /// As [`Production::finish`].
    pub(super) fn make(
        &mut self,
        production: &mut Production<'_>,
        piece: Piece,
        statistics: &Statistics,
        progress: &mut dyn FnMut(u64) -> Result<()>,
    ) -> Result<Finished> {
        let began = cpu_seconds();
        let keys = self.known(piece)?;
        let about = format!("{} of {}, {}", piece, name(self.model), self.resolved.plan.recipe);
        let mut draft = self.store.draft(keys.origin.clone(), &about)?;
        let shards = self.shards(piece);
        let files = ShardFiles::create(shards.iter().map(|(name, shard)| (draft.path(name), *shard)))?;
        let before = std::mem::take(&mut production.learnt);
        let finished = production.finish(piece, (statistics, &files), progress);
        let learnt = std::mem::replace(&mut production.learnt, before);
        let finished = finished?;
        files.check_whole()?;
        files.sync()?;
        for (name, _) in &shards {
            draft.adopt(name)?;
        }
        draft.add(REPORT, &Report::of(&learnt, Vec::new()).encode()?)?;
        if self.missing.remove(&piece) {
            draft.commit(cpu_seconds() - began)?;
        }
        Ok(finished)
    }

    /// The files of a piece as the store names them, and as they are planned.
    fn shards(&self, piece: Piece) -> Vec<(String, &'a Shard)> {
        let shards = self.resolved.layout.of_group(piece.group(self.model.config.layers));
        shards.enumerate().map(|(index, shard)| (format!("{index}.safetensors"), shard)).collect()
    }

    /// Links all pieces into a checkpoint, notes there what it was put together from, and adds what became known while they
    /// were made.
    ///
    /// # Errors
    /// A piece is gone, or the disk is full.
    pub(super) fn assemble(&self, writer: &mut Writer, production: &mut Production<'_>) -> Result<()> {
        let folder = self.store.folder();
        let mut pieces = Vec::with_capacity(self.keys.len());
        for keys in &self.keys {
            let key = keys.origin.key();
            let manifest = self.store.wait_for(&keys.origin)?;
            let mut files = Vec::new();
            for (name, shard) in self.shards(keys.piece) {
                writer.link(&shard.file, &folder.file(&key, &name))?;
                let stored = manifest.file(&name).cloned();
                files.extend(stored.map(|stored| Digested { name: shard.file.clone(), ..stored }));
            }
            let path = folder.file(&key, REPORT);
            let report = std::fs::read(&path).map_err(|error| Error::io("read the store", &path, &error))?;
            Report::decode(&report)?.add_to(&mut production.learnt);
            pieces.push(AssembledPiece { piece: keys.piece, key, files });
        }
        let mut shared = Vec::new();
        for (name, content) in production.companions()? {
            match content.len() {
                ..SHARED => writer.add_file(&name, &content)?,
                _ => shared.push(self.share(writer, name, &content)?),
            }
        }
        writer.add_file(ASSEMBLY, Assembly::new(pieces, shared).encode()?.as_bytes())
    }
}

impl Kept<'_> {
    /// Links a file beside the weights that other checkpoints of the model have too.
    fn share(&self, writer: &mut Writer, name: String, content: &[u8]) -> Result<AssembledCompanion> {
        let sha256 = sha256(content);
        let origin = Origin::new(Step::Companion, [("content", sha256.as_str())]);
        let key = origin.key();
        if self.store.get(&origin, &mut |text| tracing::warn!("{text}"))?.is_none() {
            let mut draft = self.store.draft(origin, &format!("{name} of {}", self::name(self.model)))?;
            draft.add(COMPANION, content)?;
            draft.commit(0.0)?;
        }
        writer.link(&name, &self.store.folder().file(&key, COMPANION))?;
        let file = Digested { name, bytes: content.len() as u64, sha256 };
        Ok(AssembledCompanion { key, file })
    }
}

/// The statistics of a piece that are not there.
fn unseen_of(
    store: &Store,
    keys: &PieceKeys,
    say: &mut dyn FnMut(String),
) -> Result<Option<(Piece, Vec<usize>)>> {
    let mut unseen = Vec::new();
    for (index, (_, origin)) in keys.statistics.iter().enumerate() {
        if store.get(origin, say)?.is_none() {
            unseen.push(index);
        }
    }
    Ok((!unseen.is_empty()).then_some((keys.piece, unseen)))
}

/// What observations have the observer look at; `assignment` tells how caches are looked at.
pub(super) fn wanted<'o>(
    observations: impl Iterator<Item = &'o Observation>,
    assignment: &Assignment,
) -> Wanted {
    let mut wanted = Wanted::default();
    for observation in observations {
        for &module in &observation.modules {
            let needs = wanted.inputs.entry(module).or_insert_with(Needs::default);
            match observation.aspect {
                Aspect::Magnitudes => needs.magnitude = true,
                Aspect::Channels => needs.channels = true,
                Aspect::Gram => needs.gram = true,
                Aspect::RoundedGram => needs.rounded_gram = true,
                Aspect::BlockGrams(width, tokens) => needs.block_grams = Some((width, tokens)),
                Aspect::Blocks => needs.blocks = true,
                Aspect::Keys | Aspect::Values => {}
            }
        }
        let cache = observation.layer.and_then(|layer| assignment.cache(layer));
        if let Some(cache) = cache {
            let (side, numerics) = match observation.aspect {
                Aspect::Keys => (&mut wanted.keys, cache.key),
                Aspect::Values => (&mut wanted.values, cache.value),
                _ => continue,
            };
            side.extend(WantedCache::of(&numerics).map(|wanted| (cache.layer, wanted)));
        }
    }
    wanted
}

/// Puts what was observed of a layer into the store; the first artifact says what the layer cost.
pub(super) fn save_observations<'o>(
    store: &Store,
    observations: impl Iterator<Item = (&'o Observation, &'o Origin)>,
    model: &Model,
    lookout: &mut Lookout<'_>,
) -> Result<()> {
    let mut cost = Some(lookout.spent());
    for (observation, origin) in observations {
        let place = observation.layer.map_or("output head".to_owned(), |layer| format!("layer {layer}"));
        let about = format!(
            "{} of the {} of {place} of {}",
            observation.aspect.name(),
            observation.site.name(),
            name(model)
        );
        let mut draft = store.draft(origin.clone(), &about)?;
        let mut file = draft.file(STATISTICS)?;
        let statistics = &lookout.observer.statistics;
        write_observation(statistics, observation, model, &mut |bytes| file.write(bytes))?;
        file.finish()?;
        let (cpu_seconds, tokens) = cost.take().map_or((0.0, None), |(spent, tokens)| (spent, Some(tokens)));
        tokens.into_iter().for_each(|tokens| draft.came_of(tokens));
        draft.commit(cpu_seconds)?;
    }
    Ok(())
}

/// The model's name for people.
pub(super) fn name(model: &Model) -> String {
    model_name(&model.folder)
}
