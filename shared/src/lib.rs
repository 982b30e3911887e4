//! The words that launcher and worker both speak.
//!
//! No tokio, no clap, no terminal, no clock: everything here is a plain function over plain data, so that `plan` and
//! `audit` run on a laptop in milliseconds, and the worker on a node decides exactly as the launcher did.

pub mod assign;
pub mod audit;
pub mod checkpoint;
pub mod digest;
pub mod error;
pub mod model;
pub mod numerics;
pub mod protocol;
pub mod quality;
pub mod recipe;
pub mod store;
pub mod sweep;
pub mod yaml;

pub use error::{Error, ErrorKind, Result};
