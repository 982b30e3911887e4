//! What a tap sees of experts, and that a token's way through them depends on no other token.

use std::collections::BTreeMap;
use std::path::Path;

use half::bf16;
use qlaunch_shared::Result;
use qlaunch_shared::model::{Model, Part};
use qlaunch_shared::protocol::NumericPath;

use super::{CacheSide, Inputs, Network, SourceWeights, Tap};
use crate::ops::{Backend, CpuBackend, CpuPath};
use crate::tensor::MappedCheckpoint;
use crate::tensor::host::{HostTensor, StoredElement};
use crate::tokens::Samples;

const SAMPLES: usize = 6;
const LENGTH: usize = 40;
const LAYERS: usize = 4;
const EXPERTS: usize = 8;

/// Counts what goes by.
#[derive(Default)]
struct Ledger {
    /// Tokens that the router gave to each expert, by layer.
    routed: BTreeMap<usize, Vec<u64>>,
    /// The same of the additional look.
    widened: BTreeMap<usize, Vec<u64>>,
    /// Rows that each linear saw.
    rows: BTreeMap<usize, u64>,
    /// The largest magnitude among them.
    amax: BTreeMap<usize, f32>,
}

impl Ledger {
    fn add(counts: &mut BTreeMap<usize, Vec<u64>>, layer: usize, tokens: &[u64]) {
        let sums = counts.entry(layer).or_insert_with(|| vec![0; tokens.len()]);
        sums.iter_mut().zip(tokens).for_each(|(sum, tokens)| *sum += tokens);
    }
}

impl Tap<CpuBackend> for Ledger {
    fn input(
        &mut self,
        backend: &CpuBackend,
        readers: &[usize],
        x: &HostTensor,
    ) -> Result<Inputs<HostTensor>> {
        for &reader in readers {
            *self.rows.entry(reader).or_default() += backend.shape(x)[0] as u64;
            let amax = self.amax.entry(reader).or_default();
            *amax = amax.max(backend.magnitude(x)?.amax);
        }
        Ok(vec![None; readers.len()])
    }

    fn cache(&mut self, _: &CpuBackend, _: usize, _: CacheSide, _: &mut HostTensor) -> Result<()> {
        Ok(())
    }

    fn routed(&mut self, layer: usize, tokens: &[u64]) -> Result<()> {
        Self::add(&mut self.routed, layer, tokens);
        Ok(())
    }

    fn widened(&mut self, layer: usize, tokens: &[u64]) -> Result<()> {
        Self::add(&mut self.widened, layer, tokens);
        Ok(())
    }
}

fn model() -> Model {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/models/tiny-qwen3-moe");
    Model::open(&folder).unwrap()
}

/// Sends a few tokens through the example; gives the bits of the hidden states, and what the tap saw.
fn run(threads: usize, batch_size: usize, ratio: Option<f64>) -> (Vec<bf16>, Ledger) {
    run_on(threads, batch_size, |network| match ratio {
        Some(ratio) => network.widen_experts(ratio),
        None => network,
    })
}

/// The same through a network that was told more.
fn run_on(
    threads: usize,
    batch_size: usize,
    tell: impl FnOnce(Network<'_, CpuBackend>) -> Network<'_, CpuBackend>,
) -> (Vec<bf16>, Ledger) {
    let model = model();
    let files = MappedCheckpoint::open(model.files.clone()).unwrap();
    let weights = SourceWeights::new(&model, &files);
    let backend = CpuBackend::new(threads, NumericPath::detect()).unwrap();
    let ids = (0..(SAMPLES * LENGTH) as u32).map(|n| n.wrapping_mul(2_654_435_761) % 4096).collect();
    let network = tell(Network::new(&backend, &weights));
    let mut ledger = Ledger::default();
    let samples = Samples { ids, length: LENGTH, skipped: 0 };
    let hidden = network.run(&samples, batch_size, &mut ledger, &mut |_| Ok(())).unwrap();
    let elements = hidden.iter().flat_map(|batch| bf16::borrow(batch.view().elements()).unwrap().to_vec());
    (elements.collect(), ledger)
}

#[test]
fn a_token_goes_the_same_way_alone_in_a_batch_and_on_any_threads() {
    let (alone, ledger) = run(1, 1, None);
    for (threads, batch_size) in [(1, SAMPLES), (3, 4), (2, 1)] {
        let (other, seen) = run(threads, batch_size, None);
        assert!(alone == other, "{threads} threads, batches of {batch_size}");
        assert_eq!((seen.routed, seen.rows), (ledger.routed.clone(), ledger.rows.clone()));
    }
}

#[test]
fn the_ledger_counts_what_each_experts_linears_see() {
    let (_, ledger) = run(1, 4, None);
    let model = model();
    assert_eq!(ledger.routed.len(), LAYERS);
    for counts in ledger.routed.values() {
        assert_eq!(counts.iter().sum::<u64>(), (2 * SAMPLES * LENGTH) as u64, "two experts a token");
    }
    assert!(ledger.widened.is_empty());
    for (module, part) in model.modules.iter().enumerate().filter(|(_, part)| part.is_linear()) {
        let expected = match (part.part, part.layer) {
            (Part::Expert(expert), Some(layer)) => ledger.routed[&layer][expert as usize],
            (Part::Head, _) => 0,
            _ => (SAMPLES * LENGTH) as u64,
        };
        assert_eq!(ledger.rows.get(&module).copied().unwrap_or(0), expected, "{}", part.name);
    }
}

#[test]
fn linears_read_the_same_where_nobody_reads_the_end() {
    let (whole, ledger) = run(1, 4, None);
    let (cut, seen) = run_on(1, 4, |network| network.without_end());
    assert_eq!((&seen.routed, &seen.rows, &seen.amax), (&ledger.routed, &ledger.rows, &ledger.amax));
    assert!(whole != cut, "the last experts' outputs were computed all the same");
}

#[test]
fn a_wider_look_shows_more_experts_and_changes_nothing() {
    let (plain, narrow) = run(1, 4, None);
    let (same, wide) = run(1, 4, Some(0.5));
    assert!(plain == same, "what the additional experts make of a token goes nowhere");
    assert_eq!(wide.routed, narrow.routed);
    let model = model();
    for (&layer, counts) in &wide.widened {
        assert_eq!(counts.iter().sum::<u64>(), (4 * SAMPLES * LENGTH) as u64, "four of eight experts");
        // The experts of a token are among those that it is shown to.
        assert!(counts.iter().zip(&wide.routed[&layer]).all(|(wide, own)| wide >= own));
        for (module, part) in model.modules.iter().enumerate().filter(|(_, part)| part.layer == Some(layer)) {
            if let (Part::Expert(expert), true) = (part.part, part.is_linear()) {
                let expected = counts[expert as usize] + wide.routed[&layer][expert as usize];
                assert_eq!(wide.rows.get(&module).copied().unwrap_or(0), expected, "{}", part.name);
            }
        }
    }
    assert_eq!(wide.widened.len(), LAYERS);
    let (_, all) = run(1, 4, Some(1.0));
    let everything = vec![(SAMPLES * LENGTH) as u64; EXPERTS];
    assert!(all.widened.values().all(|counts| *counts == everything));
    assert!(run(1, 4, Some(0.25)).1.widened.is_empty(), "the model uses as many anyway");
}
