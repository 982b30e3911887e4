//! Which engines load a checkpoint, and which rule of theirs refuses it: one file per engine, read from its sources.
//!
//! The rules need configs and headers only, so that a plan is judged by them before anything runs.

mod declared;
mod exclusions;
mod gate;
mod layers;
mod llama_cpp;
mod offered;
mod parameters;
mod sglang;
mod tensorrt_llm;
mod transformers;
mod verdict;
mod vllm;

pub(super) use gate::check;
pub use offered::Offered;
pub use verdict::{Answer, Engine, EngineVerdict, engines};
