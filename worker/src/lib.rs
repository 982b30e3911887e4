//! The worker: one binary for every node.
