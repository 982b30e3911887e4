//! `qlaunch doctor`: what of this machine works, what does not, and what to do about it.

mod check;
mod command;
mod local;
mod node;

pub use command::{DoctorArgs, run};
