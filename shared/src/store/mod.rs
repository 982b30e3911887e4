//! The store's words: what an artifact is, what it was made from, and where it lies in the folder.
//!
//! An artifact is a folder `objects/ab/ab…/` of files and a `manifest.json`, renamed into place as a whole: it is there
//! with all of its bytes or not at all. Its name is the hash of what it was made from, so that whoever needs it knows its
//! name beforehand and finds it, whoever made it.

mod assembly;
mod build;
mod folder;
mod key;
mod manifest;
mod served;
mod sources;
mod tokens;

pub use assembly::{ASSEMBLY, AssembledCompanion, AssembledPiece, Assembly, Damage};
pub use build::{Aspect, Ground, Observation, PieceKeys, Site, build_keys};
pub use folder::{Condition, StoreFolder};
pub use key::{Key, Origin, Step};
pub use manifest::{Digested, MANIFEST, Manifest, VERSION};
pub use served::Served;
pub use sources::SourceDigests;
pub use tokens::TokenNote;
