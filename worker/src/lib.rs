//! The worker: one binary for every node.
//!
//! Floors, each importing only from those below: cli › run › evaluate, export › quantize, calibrate › network › ops ›
//! tensor, tokens; `report` speaks to the run folder and is known to `run` alone.

pub mod calibrate;
pub mod cli;
pub mod comm;
pub mod evaluate;
pub mod export;
pub mod hub;
pub mod libraries;
pub mod network;
pub mod ops;
pub mod probe;
pub mod quantize;
pub mod report;
pub mod run;
pub mod store;
pub mod tensor;
pub mod tokens;
