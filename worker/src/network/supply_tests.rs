//! A layer that comes beside a GPU's computing is waited for before it is used: on the emulated GPU it is noise until then.

use std::path::Path;
use std::sync::atomic::AtomicBool;

use qlaunch_shared::model::Model;

use super::layer::FeedForward;
use super::supply::Supply;
use super::weights::{SourceWeights, Weights};
use crate::ops::cuda::emulated::places;
use crate::ops::{Backend, CudaBackend};
use crate::tensor::MappedCheckpoint;

#[test]
fn the_last_weight_of_a_layer_is_there_when_the_layer_is_given_out() {
    let gpu = CudaBackend::open(0, 1, &places()).unwrap();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/models/tiny-llama");
    let model = Model::open(&folder).unwrap();
    let files = MappedCheckpoint::open(model.files.clone()).unwrap();
    let weights = SourceWeights::new(&model, &files);
    // Streams are idle or not as it happens, so that one layer would show little.
    for layer in (0..model.config.layers).cycle().take(2 * model.config.layers) {
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let mut supply = Supply::new(scope, (&gpu, &weights), vec![layer], &over);
            let given = supply.next(layer).unwrap();
            let FeedForward::Dense(mlp) = &given.feed_forward else { panic!("tiny-llama has no experts") };
            let expected = weights.weight(mlp.down.module).unwrap();
            assert_eq!(gpu.download(&mlp.down.weight).unwrap(), expected, "layer {layer}");
        });
    }
}
