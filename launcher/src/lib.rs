//! The launcher: from a sweep file to a judged portfolio.
//!
//! Floors, each of which knows only the ones below it: cli › ui › session › engine › backend › ship, follow ›
//! transport, journal, store › plan › config. Decisions are pure functions in `engine`; only the edges do input and output.

pub mod backend;
pub mod cli;
pub mod config;
pub mod engine;
pub mod follow;
pub mod journal;
pub mod plan;
pub mod session;
pub mod ship;
pub mod store;
pub mod transport;
pub mod ui;
