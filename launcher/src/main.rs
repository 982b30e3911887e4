//! The launcher's entry point.

fn main() {}
