//! The store seen from the controller: which checkpoints have its artifacts, and what may go.

mod reuse;
mod sweeping;
mod users;

pub use reuse::{Inventory, NewPiece, Reuse};
pub use sweeping::{Sweeping, leftovers};
pub use users::users;
