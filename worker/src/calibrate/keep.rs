//! Statistics as files: what was observed at one site of a layer, in the safetensors format, so that anybody can look at it.
//!
//! Large arrays are tensors, `MODULE.gram` and so on; linears that read one activation have one between them. Small numbers
//! stand in the metadata, floating-point ones by their bits.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use qlaunch_shared::checkpoint::{DType, Header, Layout, PlannedTensor, read_header};
use qlaunch_shared::model::Model;
use qlaunch_shared::store::{Aspect, Observation};
use qlaunch_shared::{Error, Result};
use serde::{Deserialize, Serialize};

use super::cache::CacheStatistics;
use super::statistics::{BlockGrams, Channels, Gram, InputStatistics, LogHistogram, Statistics};
use crate::network::CacheSide;
use crate::ops::Magnitude;

/// Key of the metadata.
const METADATA: &str = "qlaunch";

/// Small numbers of an observation.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Small {
    inputs: Vec<SmallInput>,
    /// Tokens of each expert.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    routed: Option<Vec<u64>>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    cache: Option<SmallCache>,
}

#[derive(Debug, Serialize, Deserialize)]
struct SmallInput {
    module: String,
    /// The linear under whose name the arrays stand.
    arrays: String,
    magnitude: SmallMagnitude,
    tokens: u64,
    /// Channels, block width and tokens of sums.
    sums: [u64; 3],
}

#[derive(Debug, Serialize, Deserialize)]
struct SmallMagnitude {
    bits: u32,
    nans: u64,
    infinities: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct SmallCache {
    magnitude: SmallMagnitude,
    tokens: u64,
}

impl From<Magnitude> for SmallMagnitude {
    fn from(own: Magnitude) -> Self {
        Self { bits: own.amax.to_bits(), nans: own.nans, infinities: own.infinities }
    }
}

impl From<SmallMagnitude> for Magnitude {
    fn from(own: SmallMagnitude) -> Self {
        Self { amax: f32::from_bits(own.bits), nans: own.nans, infinities: own.infinities }
    }
}

/// Numbers of an array in memory.
#[derive(Clone, Copy)]
enum Array<'a> {
    F32(&'a [f32]),
    F64(&'a [f64]),
    U64(&'a [u64]),
}

impl Array<'_> {
    const fn shape(self) -> (DType, usize) {
        match self {
            Self::F32(values) => (DType::F32, values.len()),
            Self::F64(values) => (DType::F64, values.len()),
            Self::U64(values) => (DType::U64, values.len()),
        }
    }

    fn write(self, write: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
        // A matrix of products may be large, and is not copied as a whole.
        const TOGETHER: usize = 1 << 16;
        match self {
            Self::F32(values) => values.chunks(TOGETHER).try_for_each(|some| {
                write(&some.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<_>>())
            }),
            Self::F64(values) => values.chunks(TOGETHER).try_for_each(|some| {
                write(&some.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<_>>())
            }),
            Self::U64(values) => values.chunks(TOGETHER).try_for_each(|some| {
                write(&some.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<_>>())
            }),
        }
    }
}

/// Writes what was observed as one file.
///
/// # Errors
/// `write` fails.
pub fn write_observation(
    statistics: &Statistics,
    observation: &Observation,
    model: &Model,
    write: &mut dyn FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    let mut arrays: BTreeMap<String, Array<'_>> = BTreeMap::new();
    let mut small = Small::default();
    let mut known: Vec<(&str, &InputStatistics)> = Vec::new();
    for &module in &observation.modules {
        let Some(seen) = statistics.inputs.get(&module) else { continue };
        let name = model.modules[module].name.as_str();
        let same = known.iter().find(|(_, other)| is_same(observation.aspect, seen, other));
        let owner = same.map_or(name, |(owner, _)| owner);
        let (found, sums) = arrays_of(observation.aspect, seen);
        if same.is_none() {
            known.push((name, seen));
            arrays.extend(found.into_iter().map(|(part, array)| (format!("{name}.{part}"), array)));
        }
        let magnitude =
            if observation.aspect == Aspect::Magnitudes { seen.magnitude } else { Magnitude::default() };
        small.inputs.push(SmallInput {
            module: name.to_owned(),
            arrays: owner.to_owned(),
            magnitude: magnitude.into(),
            tokens: seen.tokens,
            sums,
        });
    }
    if let Some(layer) = observation.layer {
        if observation.aspect == Aspect::Magnitudes {
            small.routed = statistics.routed.get(&layer).cloned();
        }
        let side = match observation.aspect {
            Aspect::Keys => statistics.keys.get(&layer),
            Aspect::Values => statistics.values.get(&layer),
            _ => None,
        };
        if let Some(seen) = side {
            let tokens = seen.channels().map_or(0, |(_, _, _, tokens)| tokens);
            small.cache = Some(SmallCache { magnitude: seen.magnitude.into(), tokens });
            if let Some((low, high, sums, _)) = seen.channels() {
                arrays.insert("low".to_owned(), Array::F32(low));
                arrays.insert("high".to_owned(), Array::F32(high));
                arrays.insert("sums".to_owned(), Array::F64(sums));
            }
        }
    }
    let planned: Vec<PlannedTensor> = arrays
        .iter()
        .map(|(name, array)| {
            let (dtype, length) = array.shape();
            PlannedTensor { name: name.clone(), dtype, shape: vec![length] }
        })
        .collect();
    let text = serde_json::to_string(&small)
        .map_err(|error| Error::bug(format!("cannot spell statistics: {error}")))?;
    let layout = Layout::plan(&planned, u64::MAX, &BTreeMap::from([(METADATA.to_owned(), text)]))?;
    for shard in &layout.shards {
        write(&shard.header)?;
        for tensor in &shard.tensors {
            arrays[&tensor.name].write(write)?;
        }
    }
    Ok(())
}

/// Whether two linears have the arrays of an aspect between them.
fn is_same(aspect: Aspect, left: &InputStatistics, right: &InputStatistics) -> bool {
    fn same<T>(left: Option<&Arc<T>>, right: Option<&Arc<T>>) -> bool {
        matches!((left, right), (Some(left), Some(right)) if Arc::ptr_eq(left, right))
    }
    match aspect {
        Aspect::Channels => same(left.channels.as_ref(), right.channels.as_ref()),
        Aspect::Gram => same(left.gram.as_ref(), right.gram.as_ref()),
        Aspect::RoundedGram => same(left.rounded_gram.as_ref(), right.rounded_gram.as_ref()),
        Aspect::BlockGrams(..) => same(left.block_grams.as_ref(), right.block_grams.as_ref()),
        Aspect::Blocks => left.blocks == right.blocks,
        Aspect::Magnitudes | Aspect::Keys | Aspect::Values => false,
    }
}

/// The arrays of an aspect by name, and the small numbers beside them.
fn arrays_of(aspect: Aspect, seen: &InputStatistics) -> (Vec<(&'static str, Array<'_>)>, [u64; 3]) {
    let gram = |gram: &'_ Gram| [gram.columns as u64, 0, gram.tokens];
    match aspect {
        Aspect::Channels => seen.channels.as_deref().map_or((Vec::new(), [0; 3]), |own| {
            (
                vec![("amax", Array::F32(&own.amax)), ("mean", Array::F32(&own.mean))],
                [own.amax.len() as u64, 0, 0],
            )
        }),
        Aspect::Gram | Aspect::RoundedGram => {
            let own = if aspect == Aspect::Gram { &seen.gram } else { &seen.rounded_gram };
            own.as_deref()
                .map_or((Vec::new(), [0; 3]), |own| (vec![("gram", Array::F32(&own.sums))], gram(own)))
        }
        Aspect::BlockGrams(..) => seen.block_grams.as_deref().map_or((Vec::new(), [0; 3]), |own| {
            let sums = [own.columns as u64, own.width as u64, own.tokens];
            (vec![("block_gram", Array::F32(&own.sums))], sums)
        }),
        Aspect::Blocks => seen
            .blocks
            .as_ref()
            .map_or((Vec::new(), [0; 3]), |own| (vec![("blocks", Array::U64(&own.counts))], [0; 3])),
        Aspect::Magnitudes | Aspect::Keys | Aspect::Values => (Vec::new(), [0; 3]),
    }
}

/// Adds what a file of [`write_observation`] holds.
///
/// # Errors
/// The file cannot be read, or holds something else.
pub fn read_observation(
    path: &Path,
    observation: &Observation,
    model: &Model,
    statistics: &mut Statistics,
) -> Result<()> {
    let file = Arrays::open(path)?;
    let small: Small = file
        .header
        .metadata
        .get(METADATA)
        .and_then(|text| serde_json::from_str(text).ok())
        .ok_or_else(|| broken(path, METADATA))?;
    let mut shared: BTreeMap<String, InputStatistics> = BTreeMap::new();
    for input in small.inputs {
        let module = model.module(&input.module)?;
        if !shared.contains_key(&input.arrays) {
            shared.insert(input.arrays.clone(), file.input(observation.aspect, &input)?);
        }
        let found = &shared[&input.arrays];
        let own = statistics.inputs.entry(module).or_default();
        match observation.aspect {
            Aspect::Magnitudes => (own.magnitude, own.tokens) = (input.magnitude.into(), input.tokens),
            Aspect::Channels => own.channels.clone_from(&found.channels),
            Aspect::Gram => own.gram.clone_from(&found.gram),
            Aspect::RoundedGram => own.rounded_gram.clone_from(&found.rounded_gram),
            Aspect::BlockGrams(..) => own.block_grams.clone_from(&found.block_grams),
            Aspect::Blocks => own.blocks.clone_from(&found.blocks),
            Aspect::Keys | Aspect::Values => {}
        }
    }
    let Some(layer) = observation.layer else { return Ok(()) };
    if let Some(routed) = small.routed {
        statistics.routed.insert(layer, routed);
    }
    if let Some(cache) = small.cache {
        let channels = match file.has("low") {
            true => Some((file.f32("low")?, file.f32("high")?, file.f64("sums")?, cache.tokens)),
            false => None,
        };
        let side = if observation.aspect == Aspect::Keys { CacheSide::Key } else { CacheSide::Value };
        *statistics.cache(layer, side) = CacheStatistics::of(cache.magnitude.into(), channels);
    }
    Ok(())
}

/// The arrays of a file.
struct Arrays<'a> {
    path: &'a Path,
    header: Header,
    bytes: Vec<u8>,
}

impl<'a> Arrays<'a> {
    fn open(path: &'a Path) -> Result<Self> {
        let header = read_header(path)?;
        let bytes = std::fs::read(path).map_err(|error| Error::io("read the store", path, &error))?;
        Ok(Self { path, header, bytes })
    }

    fn has(&self, name: &str) -> bool {
        self.header.tensors.iter().any(|tensor| tensor.name == name)
    }

    fn bytes<const WIDTH: usize>(&self, name: &str) -> Result<&[[u8; WIDTH]]> {
        let tensor = self.header.tensors.iter().find(|tensor| tensor.name == name);
        let tensor = tensor.ok_or_else(|| broken(self.path, name))?;
        let bytes = self.bytes.get(tensor.offset as usize..(tensor.offset + tensor.length) as usize);
        Ok(bytes.ok_or_else(|| broken(self.path, name))?.as_chunks::<WIDTH>().0)
    }

    fn f32(&self, name: &str) -> Result<Vec<f32>> {
        Ok(self.bytes::<4>(name)?.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
    }

    fn f64(&self, name: &str) -> Result<Vec<f64>> {
        Ok(self.bytes::<8>(name)?.iter().map(|bytes| f64::from_le_bytes(*bytes)).collect())
    }

    fn u64(&self, name: &str) -> Result<Vec<u64>> {
        Ok(self.bytes::<8>(name)?.iter().map(|bytes| u64::from_le_bytes(*bytes)).collect())
    }

    /// What an aspect has of an input; nothing where an input was seen that had no tokens.
    fn input(&self, aspect: Aspect, input: &SmallInput) -> Result<InputStatistics> {
        let mut found = InputStatistics::default();
        let name = |part: &str| format!("{}.{part}", input.arrays);
        let [columns, width, tokens] = input.sums;
        let part = match aspect {
            Aspect::Channels => "amax",
            Aspect::Gram | Aspect::RoundedGram => "gram",
            Aspect::BlockGrams(..) => "block_gram",
            Aspect::Blocks => "blocks",
            Aspect::Magnitudes | Aspect::Keys | Aspect::Values => return Ok(found),
        };
        if !self.has(&name(part)) {
            return Ok(found);
        }
        match aspect {
            Aspect::Channels => {
                let own = Channels { amax: self.f32(&name("amax"))?, mean: self.f32(&name("mean"))? };
                found.channels = Some(Arc::new(own));
            }
            Aspect::Gram | Aspect::RoundedGram => {
                let sums = self.f32(&name(part))?;
                let own = Some(Arc::new(Gram { columns: columns as usize, sums, tokens }));
                if aspect == Aspect::Gram { found.gram = own } else { found.rounded_gram = own }
            }
            Aspect::BlockGrams(..) => {
                let (columns, width) = (columns as usize, width as usize);
                let sums = self.f32(&name(part))?;
                found.block_grams = Some(Arc::new(BlockGrams { columns, width, sums, tokens }));
            }
            Aspect::Blocks => found.blocks = Some(LogHistogram { counts: self.u64(&name(part))? }),
            Aspect::Magnitudes | Aspect::Keys | Aspect::Values => {}
        }
        Ok(found)
    }
}

fn broken(path: &Path, what: &str) -> Error {
    Error::input("the kept statistics are not understood")
        .at(path)
        .key(what)
        .hint("`qlaunch store verify` finds what is broken")
}
