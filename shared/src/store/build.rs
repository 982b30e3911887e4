//! Keys of everything that a candidate is built from, told before anything is computed.
//!
//! Calibration is keyed by the hidden states that reach a layer: by the model, the tokens and the layers before, and where
//! layers are calibrated behind quantized ones, by the keys of those. A piece of a checkpoint is keyed by its source tensors,
//! its numerics and the statistics that it is made with. So what two candidates have in common has one key.

use std::collections::BTreeMap;

use super::{Origin, Step};
use crate::assign::{Amax, Assignment, LinearNumerics, Needs, Piece, Resolved};
use crate::digest::sha256;
use crate::model::{Model, ModuleRole, Part};
use crate::protocol::{NumericPath, SilentExperts};
use crate::{Error, Result};

/// What all keys of a build stand on.
#[derive(Debug, Clone, Copy)]
pub struct Ground<'a> {
    /// The source model.
    pub model: &'a Model,
    /// SHA-256 of every source tensor, by name.
    pub digests: &'a BTreeMap<String, String>,
    /// Digest of the calibration tokens and of how they are cut into samples; none where nothing is calibrated.
    pub tokens: Option<&'a str>,
    /// What everything is computed on.
    pub numeric_path: NumericPath,
    /// What stands in for the statistics of experts without tokens.
    pub silent_experts: SilentExperts,
}

/// A part of a layer whose inputs are observed together, so that recipes for one part of a model share its statistics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Site {
    /// Projections of attention.
    Attention,
    /// Projections of the MLP or of all experts.
    FeedForward,
    /// The output head.
    Head,
}

/// What is observed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Aspect {
    /// Largest magnitudes of inputs, and tokens of experts.
    Magnitudes,
    /// Magnitudes of channels.
    Channels,
    /// Products of channels.
    Gram,
    /// Products of channels behind the input's quantizer.
    RoundedGram,
    /// Products within blocks of so many columns, of so many tokens of a batch.
    BlockGrams(usize, usize),
    /// Magnitudes of blocks of 16.
    Blocks,
    /// Keys of the cache.
    Keys,
    /// Values of the cache.
    Values,
}

/// What one artifact of statistics holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observation {
    /// Decoder layer; none outside of layers.
    pub layer: Option<usize>,
    /// Where.
    pub site: Site,
    /// What.
    pub aspect: Aspect,
    /// Indices of the linears whose inputs it tells of; none for caches.
    pub modules: Vec<usize>,
}

/// Keys of a piece and of what it is made with.
#[derive(Debug, Clone, PartialEq)]
pub struct PieceKeys {
    /// The piece.
    pub piece: Piece,
    /// Statistics, and what they are made from.
    pub statistics: Vec<(Observation, Origin)>,
    /// Hidden states before the layer.
    pub hidden: Origin,
    /// The piece itself.
    pub origin: Origin,
}

impl Site {
    /// The site of a module.
    pub const fn of(part: Part) -> Self {
        match part {
            Part::Attention => Self::Attention,
            Part::Head => Self::Head,
            _ => Self::FeedForward,
        }
    }

    /// Its name in keys and files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Attention => "attention",
            Self::FeedForward => "feed-forward",
            Self::Head => "head",
        }
    }
}

impl Aspect {
    /// Its name in keys and files.
    pub fn name(self) -> String {
        match self {
            Self::Magnitudes => "magnitudes".to_owned(),
            Self::Channels => "channels".to_owned(),
            Self::Gram => "gram".to_owned(),
            Self::RoundedGram => "rounded gram".to_owned(),
            Self::BlockGrams(width, usize::MAX) => format!("gram of blocks of {width}"),
            Self::BlockGrams(width, tokens) => {
                format!("gram of blocks of {width}, {tokens} tokens of a batch")
            }
            Self::Blocks => "blocks".to_owned(),
            Self::Keys => "keys".to_owned(),
            Self::Values => "values".to_owned(),
        }
    }

    /// Whether the needs of a linear ask for it.
    pub fn is_needed(self, needs: Needs) -> bool {
        match self {
            Self::Magnitudes => needs.magnitude,
            Self::Channels => needs.channels,
            Self::Gram => needs.gram,
            Self::RoundedGram => needs.rounded_gram,
            Self::BlockGrams(width, tokens) => needs.block_grams == Some((width, tokens)),
            Self::Blocks => needs.blocks,
            Self::Keys | Self::Values => false,
        }
    }

    /// What a linear needs.
    fn all(needs: Needs) -> impl Iterator<Item = Self> {
        let block_grams = needs.block_grams.map(|(width, tokens)| Self::BlockGrams(width, tokens));
        [Self::Magnitudes, Self::Channels, Self::Gram, Self::RoundedGram, Self::Blocks]
            .into_iter()
            .filter(move |aspect| aspect.is_needed(needs))
            .chain(block_grams)
    }
}

/// Keys of all pieces of a candidate, in order.
///
/// # Errors
/// A digest is missing.
pub fn build_keys(resolved: &Resolved, ground: &Ground<'_>) -> Result<Vec<PieceKeys>> {
    let assignment = resolved.assignment.as_ref();
    let assignment = assignment.ok_or_else(|| Error::bug("there is nothing to quantize"))?;
    let sources = source_digests(ground.model, ground.digests)?;
    let of_source = |piece: Piece| match piece {
        Piece::Layer(_) => sources.get(&piece).map_or("", String::as_str),
        Piece::First | Piece::Last => sources.get(&Piece::First).map_or("", String::as_str),
    };
    let behind_quantized = assignment.calibration.is_behind_quantized();
    let on = (ground.tokens.unwrap_or("none"), ground.numeric_path);
    let mut states = first_states(ground.model, of_source(Piece::First), on)?;
    let mut all = Vec::new();
    for piece in Piece::all(ground.model.config.layers) {
        let observed = observations(assignment, ground.model, piece);
        let statistics: Vec<(Observation, Origin)> = observed
            .into_iter()
            .map(|observation| {
                let origin = statistics_origin(assignment, &observation, [&states, of_source(piece)])?;
                Ok((observation, origin))
            })
            .collect::<Result<_>>()?;
        let origin = piece_origin((resolved, assignment), piece, &statistics, ground, of_source(piece))?;
        let hidden = Origin::new(Step::Hidden, [("states", states.as_str())]);
        if let Piece::Layer(_) = piece {
            let passed =
                if behind_quantized { origin.key().to_string() } else { of_source(piece).to_owned() };
            states = next_states(&states, &passed);
        }
        all.push(PieceKeys { piece, statistics, hidden, origin });
    }
    Ok(all)
}

/// One digest for all source tensors of each layer, and under `First` one for all others.
pub(super) fn source_digests(
    model: &Model,
    digests: &BTreeMap<String, String>,
) -> Result<BTreeMap<Piece, String>> {
    let mut texts: BTreeMap<Piece, Vec<String>> = BTreeMap::new();
    for tensor in model.files.tensors() {
        let name = tensor.name.as_str();
        let digest = digests.get(name);
        let digest = digest.ok_or_else(|| Error::bug("a source tensor has no digest").key(name))?;
        let text = format!("{name} {} {:?} {digest}\n", tensor.dtype.name(), tensor.shape);
        texts.entry(Piece::of_source(name)).or_default().push(text);
    }
    let digest = |(piece, mut texts): (Piece, Vec<String>)| {
        texts.sort_unstable();
        (piece, sha256(texts.concat()))
    };
    Ok(texts.into_iter().map(digest).collect())
}

/// What the hidden states before the first layer are made from.
pub(super) fn first_states(
    model: &Model,
    outside: &str,
    (tokens, path): (&str, NumericPath),
) -> Result<String> {
    let config = spell(&model.json)?;
    Ok(sha256(format!("{config}\n{outside}\n{tokens}\n{path}")))
}

/// What the hidden states behind a layer are made from.
pub(super) fn next_states(states: &str, passed: &str) -> String {
    sha256(format!("{states} {passed}"))
}

/// What is observed for a piece. Everything of a site is observed together, whatever the recipe wants of it: so that the
/// statistics do not depend on the recipe.
fn observations(assignment: &Assignment, model: &Model, piece: Piece) -> Vec<Observation> {
    let linears: Vec<&LinearNumerics> = linears_of(assignment, model, piece).collect();
    let mut found: BTreeMap<(Site, Aspect), Vec<usize>> = BTreeMap::new();
    for linear in &linears {
        let site = Site::of(model.modules[linear.module].part);
        for aspect in Aspect::all(Needs::of(&assignment.calibration, linear)) {
            let modules = found.entry((site, aspect)).or_default();
            // How an input is rounded is the linear's own.
            if aspect == Aspect::RoundedGram {
                modules.push(linear.module);
            }
        }
    }
    for ((site, aspect), modules) in &mut found {
        if *aspect != Aspect::RoundedGram {
            *modules = linears_at(model, piece, *site);
        }
    }
    let cache = piece.layer().and_then(|layer| assignment.cache(layer));
    let sides = cache.iter().flat_map(|cache| [(Aspect::Keys, cache.key), (Aspect::Values, cache.value)]);
    let seen = sides
        .filter(|(_, numerics)| numerics.amax == Amax::Calibrated || numerics.offset.is_some())
        .map(|(aspect, _)| ((Site::Attention, aspect), Vec::new()));
    found.extend(seen);
    let layer = piece.layer();
    let observation = |((site, aspect), modules)| Observation { layer, site, aspect, modules };
    found.into_iter().map(observation).collect()
}

/// The quantized linears of a piece.
fn linears_of<'a>(
    assignment: &'a Assignment,
    model: &'a Model,
    piece: Piece,
) -> impl Iterator<Item = &'a LinearNumerics> + Clone {
    assignment.linears.iter().filter(move |linear| Piece::of_module(&model.modules[linear.module]) == piece)
}

/// All linears at a site.
fn linears_at(model: &Model, piece: Piece, site: Site) -> Vec<usize> {
    let is_there = |(_, part): &(usize, &crate::model::Module)| {
        matches!(part.role, ModuleRole::Linear { .. })
            && part.layer == piece.layer()
            && Site::of(part.part) == site
    };
    model.modules.iter().enumerate().filter(is_there).map(|(module, _)| module).collect()
}

fn statistics_origin(
    assignment: &Assignment,
    observation: &Observation,
    [states, source]: [&str; 2],
) -> Result<Origin> {
    let ratio = assignment.calibration.experts_ratio();
    let numerics = match observation.aspect {
        Aspect::RoundedGram => {
            let inputs = observation.modules.iter().filter_map(|&module| {
                let linear = assignment.linear(module)?;
                Some((&linear.name, &linear.input))
            });
            spell(&inputs.collect::<Vec<_>>())?
        }
        Aspect::Keys | Aspect::Values => {
            let cache = observation.layer.and_then(|layer| assignment.cache(layer));
            let side = cache.map(|cache| match observation.aspect {
                Aspect::Keys => cache.key,
                _ => cache.value,
            });
            // What is kept depends on no more than this of them.
            spell(&side.map(|side| (side.rotated, side.offset.is_some())))?
        }
        _ => String::new(),
    };
    let mut inputs = vec![
        ("states", states.to_owned()),
        ("source", source.to_owned()),
        ("site", observation.site.name().to_owned()),
        ("aspect", observation.aspect.name()),
    ];
    if !numerics.is_empty() {
        inputs.push(("numerics", sha256(numerics)));
    }
    if let Some(ratio) = ratio.filter(|_| observation.site == Site::FeedForward) {
        inputs.push(("experts", ratio.to_string()));
    }
    Ok(Origin::new(Step::Statistics, inputs))
}

fn piece_origin(
    (resolved, assignment): (&Resolved, &Assignment),
    piece: Piece,
    statistics: &[(Observation, Origin)],
    ground: &Ground<'_>,
    source: &str,
) -> Result<Origin> {
    let files = resolved.layout.of_group(piece.group(ground.model.config.layers));
    let files: Vec<u8> = files.flat_map(|shard| shard.header.iter().copied()).collect();
    let mut inputs = vec![("source", source.to_owned()), ("files", sha256(files))];
    let linears: Vec<&LinearNumerics> = linears_of(assignment, ground.model, piece).collect();
    let cache = piece.layer().and_then(|layer| assignment.cache(layer));
    // What is only copied is the same for every recipe and on every machine.
    if !linears.is_empty() || cache.is_some() {
        inputs.push(("numerics", sha256(spell(&(&linears, cache))?)));
        inputs.push(("algorithm", spell(&assignment.calibration)?));
        inputs.push(("numeric path", ground.numeric_path.to_string()));
        let keys: Vec<String> = statistics.iter().map(|(_, origin)| origin.key().to_string()).collect();
        inputs.push(("statistics", sha256(keys.concat())));
    }
    if linears.iter().any(|linear| ground.model.modules[linear.module].expert().is_some()) {
        inputs.push(("silent experts", ground.silent_experts.name().to_owned()));
    }
    Ok(Origin::new(Step::Layer, inputs))
}

fn spell(value: &impl serde::Serialize) -> Result<String> {
    serde_json::to_string(value).map_err(|error| Error::bug(format!("cannot spell a key: {error}")))
}
