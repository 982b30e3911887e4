//! Weights of a random model, scaled so that a wrong rotation, norm or bias moves the perplexity by per cents.

use super::experts::{STEADY, add_experts};
use super::numbers::Numbers;
use super::specimen::{Specimen, VOCABULARY};
use crate::checkpoint::NamedTensor;

/// How the values of a tensor are spread.
#[derive(Debug, Clone, Copy)]
struct Spread {
    mean: f64,
    deviation: f64,
}

/// Every tensor in the order of the hub's checkpoints.
pub fn tensors(specimen: &Specimen) -> Vec<NamedTensor> {
    let mut maker = Maker { numbers: Numbers::new(specimen.seed), tensors: Vec::new() };
    let hidden = specimen.hidden;
    // Logits with a deviation of 2: sharp enough that mistakes show, flat enough that bf16 noise averages out.
    let logit = Spread { mean: 0.0, deviation: 2.0 / (hidden as f64).sqrt() };
    maker.add("model.embed_tokens.weight", &[VOCABULARY, hidden], logit);
    if specimen.mixture.is_some_and(|mixture| mixture.silent.is_some()) {
        for row in maker.tensors[0].bytes.chunks_mut(2 * hidden) {
            row[..2].copy_from_slice(&half::bf16::from_f64(STEADY).to_le_bytes());
        }
    }
    for layer in 0..specimen.layers {
        add_layer(&mut maker, specimen, layer);
    }
    maker.add("model.norm.weight", &[hidden], NORM);
    if !specimen.tied {
        maker.add("lm_head.weight", &[VOCABULARY, hidden], logit);
    }
    maker.tensors
}

const NORM: Spread = Spread { mean: 1.0, deviation: 0.2 };
const BIAS: Spread = Spread { mean: 0.0, deviation: 0.5 };

fn add_layer(maker: &mut Maker, specimen: &Specimen, number: usize) {
    let layer = format!("model.layers.{number}");
    let queries = specimen.heads * specimen.head_dim;
    let keys = specimen.kv_heads * specimen.head_dim;
    let (hidden, mlp) = (specimen.hidden, specimen.mlp);
    maker.add(&format!("{layer}.input_layernorm.weight"), &[hidden], NORM);
    // Queries are doubled so that attention is peaked and rotations matter.
    for (name, rows, gain) in [("q_proj", queries, 2.0), ("k_proj", keys, 1.0), ("v_proj", keys, 1.0)] {
        maker.add_matrix(&format!("{layer}.self_attn.{name}"), rows, hidden, gain);
        if specimen.has_biases() {
            maker.add(&format!("{layer}.self_attn.{name}.bias"), &[rows], BIAS);
        }
    }
    if specimen.has_head_norms() {
        maker.add(&format!("{layer}.self_attn.q_norm.weight"), &[specimen.head_dim], NORM);
        maker.add(&format!("{layer}.self_attn.k_norm.weight"), &[specimen.head_dim], NORM);
    }
    maker.add_matrix(&format!("{layer}.self_attn.o_proj"), hidden, queries, 1.0);
    maker.add(&format!("{layer}.post_attention_layernorm.weight"), &[hidden], NORM);
    if let Some(mixture) = specimen.experts_of(number) {
        add_experts(maker, specimen, &mixture, &layer);
        return;
    }
    maker.add_matrix(&format!("{layer}.mlp.gate_proj"), mlp, hidden, 1.0);
    maker.add_matrix(&format!("{layer}.mlp.up_proj"), mlp, hidden, 1.0);
    maker.add_matrix(&format!("{layer}.mlp.down_proj"), hidden, mlp, 1.0);
}

/// Draws tensors one after another from one stream.
pub(super) struct Maker {
    numbers: Numbers,
    pub(super) tensors: Vec<NamedTensor>,
}

impl Maker {
    fn add(&mut self, name: &str, shape: &[usize], spread: Spread) {
        let elements: usize = shape.iter().product();
        let mut bytes = Vec::with_capacity(2 * elements);
        for _ in 0..elements {
            let value = spread.mean + spread.deviation * self.numbers.bell();
            bytes.extend(half::bf16::from_f64(value).to_le_bytes());
        }
        self.tensors.push(NamedTensor { name: name.to_owned(), dtype: "BF16", shape: shape.to_vec(), bytes });
    }

    /// A linear weight that keeps the variance of its input, times `gain`.
    pub(super) fn add_matrix(&mut self, module: &str, rows: usize, columns: usize, gain: f64) {
        let spread = Spread { mean: 0.0, deviation: gain / (columns as f64).sqrt() };
        self.add(&format!("{module}.weight"), &[rows, columns], spread);
    }
}
