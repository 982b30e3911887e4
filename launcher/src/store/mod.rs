//! The store seen from the controller: which checkpoints have its artifacts, and what may go.

mod sweeping;
mod users;

pub use sweeping::{Sweeping, leftovers};
pub use users::users;
