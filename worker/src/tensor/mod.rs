//! Tensors: element types, host memory, large pages, vector instructions, mapped files and the streaming writer.

mod direct;
pub mod dtype;
mod held;
pub mod host;
mod mapped;
pub(crate) mod pages;
pub(crate) mod prefetch;
mod shards;
pub(crate) mod simd;
mod writer;

pub use dtype::DType;
pub use held::Held;
pub(crate) use held::{leave_bytes, room_for_bytes};
pub use mapped::{Mapped, MappedCheckpoint};
pub use shards::ShardFiles;
pub use writer::{Writer, discard};
