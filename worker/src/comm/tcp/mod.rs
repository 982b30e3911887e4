//! Ranks over TCP: rank 0 opens a door, everybody meets there, and then each pair is connected directly.

mod frame;
mod handshake;
mod meeting;
mod mesh;
mod seat;
mod state;
#[cfg(test)]
mod tests;
mod threads;

pub use meeting::Door;
pub use mesh::TcpMesh;
pub use seat::{Limits, Rendezvous, Seat, read_token};
