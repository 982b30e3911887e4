//! Checkpoints as files: a reader and a writer of safetensors that share no code with the programs under test.

mod reader;
mod writer;

pub use reader::{Tensor, bf16_values, looks_whole, read_file, read_folder};
pub use writer::{NamedTensor, write_safetensors, write_sharded};
