//! A model with strong outliers in some channels of its activations, which computes what the model it is made of computes.

use std::path::Path;

use half::bf16;

use crate::checkpoint::{NamedTensor, bf16_values, read_file, write_safetensors};
use crate::places::tiny_llama;

/// Hidden channels that stand out.
pub const CHANNELS: [usize; 4] = [7, 50, 133, 200];
/// By how much: a power of two, so that nothing is rounded.
pub const FACTOR: f32 = 32.0;

/// Writes the dense example model with channels of every layer's norms multiplied, and the columns that read them divided.
/// `tests/modelopt/outliers.py` writes the same weights.
pub fn write(folder: &Path) {
    std::fs::create_dir_all(folder).expect("a folder that can be made");
    for file in std::fs::read_dir(tiny_llama()).expect("the example model") {
        let path = file.expect("a file").path();
        std::fs::copy(&path, folder.join(path.file_name().expect("a name"))).expect("a file to copy");
    }
    let tensors: Vec<NamedTensor> = read_file(&tiny_llama().join("model.safetensors"))
        .into_iter()
        .map(|(name, tensor)| {
            let factor = match role(&name) {
                Role::Norm => FACTOR,
                Role::Reader => 1.0 / FACTOR,
                Role::Other => 1.0,
            };
            let mut values = bf16_values(&tensor);
            let columns = *tensor.shape.last().expect("a side");
            for row in values.chunks_mut(columns).filter(|_| factor != 1.0) {
                CHANNELS.iter().for_each(|&channel| row[channel] *= factor);
            }
            let bytes = values.iter().flat_map(|value| bf16::from_f32(*value).to_le_bytes()).collect();
            NamedTensor { name, dtype: "BF16", shape: tensor.shape, bytes }
        })
        .collect();
    write_safetensors(&folder.join("model.safetensors"), &tensors);
}

/// What a tensor has to do with the channels.
enum Role {
    Norm,
    Reader,
    Other,
}

fn role(name: &str) -> Role {
    let norms = ["input_layernorm", "post_attention_layernorm"];
    let readers = ["q_proj", "k_proj", "v_proj", "gate_proj", "up_proj"];
    let has = |parts: &[&str]| parts.iter().any(|part| name.contains(&format!(".{part}.")));
    match (has(&norms), has(&readers)) {
        (true, _) => Role::Norm,
        (_, true) => Role::Reader,
        _ => Role::Other,
    }
}
