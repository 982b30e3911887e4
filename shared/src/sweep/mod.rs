//! The sweep file, the gates of a sweep and the judgement over its candidates.

mod bound;
mod ceiling;
mod fields;
mod file;
mod hints;
mod judge;
mod portfolio;
mod read;
mod reason;

pub use bound::{Bound, Limit, evaluate_rule};
pub use ceiling::ceilings;
pub use file::{Baseline, Candidate, Data, Goal, Objective, Rules, Sweep, VERSION};
pub use hints::next_steps;
pub use judge::{Entrant, Judgement, Ran, judge};
pub use portfolio::{Decision, GateResult, NUMERIC_KEYS, Portfolio, Recommendation, Row};
pub use read::read_sweep;
pub use reason::acceptance_words;
