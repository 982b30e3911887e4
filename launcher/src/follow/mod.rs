//! Files that grow while they are read.

mod events;

pub use events::{Follower, Said};
