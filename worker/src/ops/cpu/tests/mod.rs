//! Tests of the CPU backend through the trait, against scalar references.

mod attention;
mod experts;
mod invariance;
mod losses;
mod products;
mod reference;
mod refusals;
mod rows;
mod sums;
mod torch;
