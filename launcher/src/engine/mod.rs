//! What to do next, decided by pure functions over a state that is a fold of the journal.

mod apply;
mod decide;
mod state;

pub use apply::{apply, fold};
pub use decide::{Action, Policy, decide, is_over};
pub use state::{Job, Stage, State};
