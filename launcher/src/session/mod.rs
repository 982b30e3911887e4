//! One sitting at a run: opens its folder, drives its jobs, collects what came of them.

mod carry;
mod claim;
mod collect;
mod drive;
mod effects;
mod glance;
mod listener;
mod look;
mod open;
mod requests;
mod scripts;
mod single;
mod site;
#[cfg(test)]
mod virtual_time_tests;

pub use carry::{Carried, Opening, Setup, carry_out, now};
pub use collect::{entrants, outcome, write_portfolio};
pub use glance::glance;
pub use listener::{Listener, Notice};
pub use requests::Requests;
pub use scripts::{array_name, array_script_of, script_of};
pub use single::{Single, carry_out_single};
pub use site::{Pace, Site, block_on, host, login_socket};
