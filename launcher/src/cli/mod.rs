//! The command line: one file for each command.

mod arguments;
mod attend;
mod cancel;
mod cluster;
mod cluster_check;
mod cluster_docker;
mod cluster_hosts;
mod cluster_step;
mod doctor;
mod dry_run;
mod eval;
mod fetch;
mod hub;
mod last_run;
mod logs;
mod main;
mod notify;
mod plan;
mod portfolio;
mod quantize;
mod recipe;
mod reproduce;
mod runs;
mod schedule;
mod schedule_run;
mod smoke;
mod status;
mod store;
mod submission;
mod submit;
mod values;
mod verify;
mod watch;

pub use main::main;
