//! What is told of a checkpoint beside it: `quality.json` for programs, the model card `README.md` for people.

mod card;
mod figures;
mod licence;
mod report;
mod source;

pub use card::card;
pub use figures::{Experts, ModuleQuality, Remark, SilentExpert};
pub use licence::Licence;
pub use report::{CARD, FILE, Measured, Quality, Recorded, SOURCE_CARD, Tool, VERSION};
pub use source::{Identity, identity, model_name};
