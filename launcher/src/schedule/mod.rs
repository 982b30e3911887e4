//! Sweeps that run again and again: when, by whose clock, and what got worse. Pure: clocks are passed in.

mod begin;
mod civil;
mod due;
mod every;
mod regression;
mod saved;
mod timers;

pub use begin::Begin;
pub use civil::Civil;
pub use due::{Due, due};
pub use every::Every;
pub use regression::regressions;
pub use saved::{Firing, SCHEDULE_VERSION, Schedule};
pub use timers::{Timer, Unit, units};
