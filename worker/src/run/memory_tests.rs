//! What a pass is planned to need of a GPU's memory is enough, and not much more than what it takes: the emulated GPU counts.

use std::path::Path;

use qlaunch_shared::assign::Needs;
use qlaunch_shared::model::Model;

use crate::calibrate::{Observer, Wanted};
use crate::libraries::{Wanted as Library, require};
use crate::network::{Batches, Network, SourceWeights, Stage, Start};
use crate::ops::CudaBackend;
use crate::ops::cuda::emulated::places;
use crate::tensor::MappedCheckpoint;
use crate::tokens::Samples;

/// Tokens of a sample.
const LENGTH: usize = 64;
/// Layers that are gone through, as many as are there at once: an emulated GPU is slow.
const LAYERS: usize = 2;

/// Bytes that a calibration takes at most, and those that it is planned with; none on a real GPU, which does not count.
fn taken_and_planned(model: &str, needs: Needs, (samples, batch): (usize, usize)) -> Option<(u64, u64)> {
    let places = places();
    let gpu = CudaBackend::open(0, 1, &places).unwrap();
    let driver = require(&Library::CUDA, &places).unwrap();
    // SAFETY: it is a function of the emulated driver, without parameters.
    let peak = unsafe { driver.function::<extern "C" fn() -> usize>("emulated_peak") }.ok()?;
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/models").join(model);
    let model = Model::open(&folder).unwrap();
    let files = MappedCheckpoint::open(model.files.clone()).unwrap();
    let weights = SourceWeights::new(&model, &files);
    let linears = model.modules.iter().enumerate().filter(|(_, module)| module.is_linear());
    let inputs = linears.map(|(module, _)| (module, needs)).collect();
    let mut observer = Observer::new(Wanted { inputs, ..Wanted::default() }, &model);
    observer.set_length(LENGTH);
    let ids = (0..samples * LENGTH).map(|at| (at * 7919 % model.config.vocabulary) as u32).collect();
    let samples = Samples { ids, length: LENGTH, skipped: 0 };
    let network = Network::new(&gpu, &weights);
    let batches = Batches::of(&Stage::whole(&model), &samples, batch);
    let planned = network.plan(batches, &observer);
    // What is there before is no part of it.
    peak();
    let before = peak();
    let start = Start::at(0..LAYERS);
    network.run_from(start, batches, &mut observer, &mut |_| Ok(())).unwrap();
    Some(((peak() - before) as u64, planned))
}

fn planned_well(model: &str, needs: Needs, load: (usize, usize)) {
    let Some((taken, planned)) = taken_and_planned(model, needs, load) else { return };
    let told = format!("{model}, {needs:?}: {taken} bytes are taken, {planned} are planned");
    assert!(taken <= planned, "{told}");
    assert!(planned <= taken * 3 / 2, "{told}");
}

const MAGNITUDES: Needs = Needs {
    magnitude: true,
    channels: false,
    gram: false,
    rounded_gram: false,
    block_grams: None,
    blocks: false,
};

#[test]
fn largest_magnitudes_are_planned_for() {
    planned_well("tiny-llama", MAGNITUDES, (8, 4));
}

#[test]
fn products_of_channels_are_planned_for() {
    planned_well("tiny-llama", Needs { channels: true, gram: true, ..MAGNITUDES }, (4, 4));
}

#[test]
fn experts_are_planned_for() {
    planned_well("tiny-qwen3-moe", Needs { channels: true, gram: true, ..MAGNITUDES }, (4, 4));
}
