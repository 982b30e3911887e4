//! The store as the worker uses it: artifacts are written whole, read verified, and made by one worker at a time.

mod draft;
mod lease;
mod open;
#[cfg(test)]
mod tests;

pub use draft::{Draft, unique};
pub use lease::{Claim, Lease, LeaseTimes};
pub use open::{Artifact, Store};
