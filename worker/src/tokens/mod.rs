//! Tokens to calibrate on and to be predicted: from `.npy`, `.jsonl` and `.txt` files to samples of one length.

mod npy;
mod samples;
mod text;

pub use samples::{Samples, Use, check, is_text, read_samples};
