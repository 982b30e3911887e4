//! The tap that fills statistics and changes nothing: calibration sees the unquantized model.

use std::collections::BTreeMap;

use qlaunch_shared::Result;
use qlaunch_shared::assign::{ActivationNumerics, Amax, Assignment, CacheNumerics, Needs};
use qlaunch_shared::model::Model;

use super::Statistics;
use super::collect::Collection;
use crate::network::{CacheSide, Demands, Inputs, Tap};
use crate::ops::{Backend, Magnitude, hadamard};

/// What is to be observed.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Wanted {
    /// By module index of a linear.
    pub inputs: BTreeMap<usize, Needs>,
    /// Keys, by decoder layer.
    pub keys: BTreeMap<usize, WantedCache>,
    /// Values, by decoder layer.
    pub values: BTreeMap<usize, WantedCache>,
}

/// What is to be observed of keys or values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WantedCache {
    /// After a Hadamard transform of each head.
    pub rotated: bool,
    /// Channel by channel.
    pub channels: bool,
}

impl Wanted {
    /// What an assignment asks for, and nothing else.
    pub fn of(assignment: &Assignment) -> Self {
        let linears = assignment.linears.iter();
        let needs = linears.map(|linear| (linear.module, Needs::of(&assignment.calibration, linear)));
        let caches = |side: fn(&CacheNumerics) -> &ActivationNumerics| {
            let wanted = move |cache: &CacheNumerics| Some((cache.layer, WantedCache::of(side(cache))?));
            assignment.caches.iter().filter_map(wanted).collect()
        };
        Self {
            inputs: needs.collect(),
            keys: caches(|cache| &cache.key),
            values: caches(|cache| &cache.value),
        }
    }

    fn cache(&self, layer: usize, side: CacheSide) -> Option<WantedCache> {
        match side {
            CacheSide::Key => self.keys.get(&layer),
            CacheSide::Value => self.values.get(&layer),
        }
        .copied()
    }
}

impl WantedCache {
    /// What numerics ask for; none where nothing is calibrated.
    pub fn of(numerics: &ActivationNumerics) -> Option<Self> {
        let channels = numerics.offset.is_some();
        let is_wanted = numerics.amax == Amax::Calibrated || channels;
        is_wanted.then_some(Self { rotated: numerics.rotated, channels })
    }
}

/// Observes what is wanted, and nothing else.
#[derive(Debug)]
pub struct Observer {
    wanted: Wanted,
    /// What was seen so far. Sums of a layer are there after [`Observer::settle`].
    pub statistics: Statistics,
    /// Modules of routed experts: their tokens come as they are routed.
    routed: Vec<bool>,
    /// Values of a head.
    head_dim: usize,
    /// Channels of the widest activation whose products are summed.
    widest_gram: usize,
    /// Tokens of a sample.
    length: usize,
    /// Sums that still grow, by the first linear that reads the activation, and whether experts were looked at that the model
    /// does not use: these looks and the others take turns batch by batch, and sums must not depend on batches.
    pub(super) growing: BTreeMap<(usize, bool), Collection>,
    widening: bool,
}

impl Observer {
    /// An observer that has seen nothing.
    pub fn new(wanted: Wanted, model: &Model) -> Self {
        let summed = wanted.inputs.iter().filter(|(_, needs)| needs.gram || needs.rounded_gram);
        let columns = summed.filter_map(|(module, _)| model.modules[*module].role.weight_shape()?.pop());
        Self {
            widest_gram: columns.max().unwrap_or(0),
            wanted,
            statistics: Statistics::default(),
            routed: model.modules.iter().map(|module| module.expert().is_some()).collect(),
            head_dim: model.config.head_dim,
            length: 1,
            growing: BTreeMap::new(),
            widening: false,
        }
    }

    /// Says how many tokens a sample has: they always come together.
    pub fn set_length(&mut self, length: usize) {
        self.length = length.max(1);
    }

    /// Says whether inputs are about to be seen of experts that the model does not use, where nothing else is to be seen of
    /// them.
    pub fn set_widening(&mut self, widening: bool) {
        self.widening = widening;
    }

    /// Whether it keeps large matrices.
    pub fn keeps_large_sums(&self) -> bool {
        self.wanted.inputs.values().any(|needs| needs.is_large())
    }

    /// What is collected of the input of a linear.
    pub fn needs(&self, module: usize) -> Needs {
        self.wanted.inputs.get(&module).copied().unwrap_or_default()
    }

    /// Sees an activation as the quantizer of these readers leaves it.
    ///
    /// # Errors
    /// The sums cannot be made.
    pub fn rounded<B: Backend>(&mut self, backend: &B, readers: &[usize], x: &B::Tensor) -> Result<()> {
        let readers: Vec<usize> =
            readers.iter().copied().filter(|&module| self.needs(module).rounded_gram).collect();
        let Some(&first) = readers.first() else { return Ok(()) };
        let together = self.together(first);
        self.growing(first, &readers).see_rounded(backend, together, x)
    }

    /// Moves the sums that grew so far to the statistics: all samples were seen.
    pub fn settle(&mut self) {
        let mut whole: BTreeMap<usize, Collection> = BTreeMap::new();
        for ((first, _), more) in std::mem::take(&mut self.growing) {
            match whole.remove(&first) {
                Some(known) => whole.insert(first, known.merge(more)),
                None => whole.insert(first, more),
            };
        }
        for collection in whole.into_values() {
            let (readers, sums) = collection.finish();
            for module in readers {
                let seen = self.statistics.inputs.entry(module).or_default();
                let needs = self.wanted.inputs.get(&module).copied().unwrap_or_default();
                let given = |wanted: bool| wanted.then_some(());
                seen.channels = given(needs.channels).and(sums.channels.clone()).or(seen.channels.take());
                seen.gram = given(needs.gram).and(sums.gram.clone()).or(seen.gram.take());
                seen.rounded_gram =
                    given(needs.rounded_gram).and(sums.rounded_gram.clone()).or(seen.rounded_gram.take());
                seen.block_grams = given(needs.block_grams.is_some())
                    .and(sums.block_grams.clone())
                    .or(seen.block_grams.take());
                seen.blocks = given(needs.blocks).and(sums.blocks.clone()).or(seen.blocks.take());
            }
        }
    }

    /// Rows of an activation that always come together.
    fn together(&self, module: usize) -> usize {
        if self.routed.get(module).copied().unwrap_or(false) { 1 } else { self.length }
    }

    fn growing(&mut self, first: usize, readers: &[usize]) -> &mut Collection {
        self.growing.entry((first, self.widening)).or_insert_with(|| Collection::new(readers))
    }
}

impl<B: Backend> Tap<B> for Observer {
    fn demands(&self) -> Demands {
        Demands { gram: self.widest_gram, ..Demands::default() }
    }

    fn input(&mut self, backend: &B, readers: &[usize], x: &B::Tensor) -> Result<Inputs<B::Tensor>> {
        let wanting: Vec<usize> =
            readers.iter().copied().filter(|&module| self.needs(module) != Needs::default()).collect();
        if let Some(&first) = wanting.first() {
            self.statistics.numeric_path = Some(backend.numeric_path());
            let needs = wanting.iter().fold(Needs::default(), |all, &module| all.and(self.needs(module)));
            if needs.magnitude {
                let seen = backend.magnitude(x)?;
                let tokens = backend.shape(x)[0] as u64;
                for &module in wanting.iter().filter(|&&module| self.wanted.inputs[&module].magnitude) {
                    self.statistics.see_input(module, seen, tokens);
                }
            }
            let (together, length) = (self.together(first), self.length);
            self.growing(first, &wanting).see(backend, (needs, together, length), x)?;
        }
        Ok(vec![None; readers.len()])
    }

    fn routed(&mut self, layer: usize, tokens: &[u64]) -> Result<()> {
        self.widening = false;
        self.statistics.see_routed(layer, tokens);
        Ok(())
    }

    fn widened(&mut self, _layer: usize, _tokens: &[u64]) -> Result<()> {
        self.widening = true;
        Ok(())
    }

    fn cache(&mut self, backend: &B, layer: usize, side: CacheSide, x: &mut B::Tensor) -> Result<()> {
        let Some(wanted) = self.wanted.cache(layer, side) else { return Ok(()) };
        let seen = backend.magnitude(x)?;
        if !wanted.rotated && !wanted.channels {
            self.statistics.cache(layer, side).see(seen);
            return Ok(());
        }
        let (known, head_dim) = (self.statistics.cache(layer, side), self.head_dim);
        backend.inspect(x, &mut |view| {
            let columns = view.shape().last().copied().unwrap_or(1);
            let mut values = view.to_f32();
            if wanted.rotated {
                hadamard(&mut values, head_dim);
            }
            let amax = values.iter().fold(0f32, |far, value| far.max(value.abs()));
            known.see(Magnitude { amax, ..seen });
            if wanted.channels {
                known.see_channels(&values, columns);
            }
            Ok(())
        })
    }
}
