//! The store as the worker uses it: artifacts are written whole, read verified, and made by one worker at a time.

mod digests;
mod draft;
mod lease;
mod open;
#[cfg(test)]
mod tests;

pub use digests::digests;
pub use draft::Draft;
pub use lease::{Claim, Lease, LeaseTimes};
pub use open::{Artifact, Store};
