//! Router and experts of a random model's layer.

use super::specimen::{Mixture, Specimen, Storage};
use super::weights::Maker;
use crate::checkpoint::NamedTensor;

/// What every hidden state of a model with a silent expert has in its first channel, before anything is added to it.
pub(super) const STEADY: f64 = 8.0;

/// Adds router and experts, which are drawn alike however the file keeps them.
pub(super) fn add_experts(maker: &mut Maker, specimen: &Specimen, mixture: &Mixture, layer: &str) {
    let (hidden, width) = (specimen.hidden, mixture.width);
    let (block, [gate, up, down]) = specimen.expert_names();
    let block = if mixture.storage == Storage::Fused { "mlp" } else { block };
    // Scores with a deviation of 2, so that weights differ and most tokens have a clear choice.
    maker.add_matrix(&format!("{layer}.{block}.gate"), mixture.experts, hidden, 2.0);
    if let (Some(silent), Some(router)) = (mixture.silent, maker.tensors.last_mut()) {
        keep_silent(router, silent, hidden);
    }
    let first = maker.tensors.len();
    for expert in 0..mixture.experts {
        for (name, rows, columns) in [(gate, width, hidden), (up, width, hidden), (down, hidden, width)] {
            maker.add_matrix(&format!("{layer}.{block}.experts.{expert}.{name}"), rows, columns, 1.0);
        }
    }
    if mixture.storage == Storage::Fused {
        let alone = maker.tensors.split_off(first);
        let [gates_and_ups, downs] = fused(&alone, mixture, hidden, &format!("{layer}.{block}.experts"));
        maker.tensors.extend([gates_and_ups, downs]);
    }
}

/// Gives an expert a score far below all others wherever the first channel is positive.
fn keep_silent(router: &mut NamedTensor, silent: usize, hidden: usize) {
    let at = 2 * silent * hidden;
    router.bytes[at..at + 2 * hidden].fill(0);
    router.bytes[at..at + 2].copy_from_slice(&half::bf16::from_f64(-8.0).to_le_bytes());
}

/// `[experts, 2 · width, hidden]`, gates before ups, and `[experts, hidden, width]`.
fn fused(alone: &[NamedTensor], mixture: &Mixture, hidden: usize, name: &str) -> [NamedTensor; 2] {
    let tensor = |name: String, shape: [usize; 2], parts: &[usize]| NamedTensor {
        name,
        dtype: "BF16",
        shape: vec![mixture.experts, shape[0], shape[1]],
        bytes: alone
            .chunks(3)
            .flat_map(|expert| parts.iter().flat_map(|&part| expert[part].bytes.clone()))
            .collect(),
    };
    [
        tensor(format!("{name}.gate_up_proj"), [2 * mixture.width, hidden], &[0, 1]),
        tensor(format!("{name}.down_proj"), [hidden, mixture.width], &[2]),
    ]
}
