//! Libraries that a node may have or lack: found and loaded at run time, never linked.

mod cuda;
mod find;
mod load;

pub use cuda::{Device, Driver};
pub use find::{Places, Wanted};
pub use load::{Loaded, Search, require, search};
