//! One sitting at a run: opens its folder, drives its jobs, collects what came of them.

mod carry;
mod collect;
mod drive;
mod effects;
mod listener;
mod single;

pub use carry::{Carried, Setup, carry_out, now};
pub use collect::{entrants, outcome, write_portfolio};
pub use listener::{Listener, Notice};
pub use single::{Single, carry_out_single};
