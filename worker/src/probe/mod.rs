//! What this node has: devices, driver, libraries, memory, instruction sets.

mod choose;
mod host;
mod report;

pub use choose::{Offer, choose};
pub use report::{Probe, probe};
