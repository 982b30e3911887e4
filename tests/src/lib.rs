//! Drives the real binaries: how tests find them, the files they are fed, and readers that share no code with them.

pub mod broken;
pub mod checkpoint;
pub mod cluster;
pub mod containers;
pub mod hosts;
pub mod house;
pub mod hub;
pub mod modelopt;
pub mod outliers;
pub mod places;
pub mod programs;
pub mod random_model;
pub mod requirement;
pub mod stored;
pub mod terminal;
pub mod tiny_disk;
pub mod token_ids;
pub mod worker_job;
