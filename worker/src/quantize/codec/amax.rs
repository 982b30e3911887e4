//! The largest magnitude of a weight, and the proof that all of it is finite.

use qlaunch_shared::{Error, Result};
use rayon::prelude::*;

use super::Source;
use crate::tensor::prefetch::prefetch;
use crate::tensor::simd::{InstructionSet, dispatched};

/// Elements that one task of the thread pool handles: the source of one chunk stays in a core's second-level cache.
pub(super) const CHUNK: usize = 1 << 17;
/// Elements taken together: a whole number of vectors, each with a maximum of its own.
const LANES: usize = 64;
/// How many elements ahead memory is asked for.
const AHEAD: usize = 1024;

/// The largest magnitude of `source`, exact in the element type (modelopt.md §3.1); 0 for no elements.
///
/// Runs on the caller's thread pool. A maximum does not depend on the order it is taken in.
///
/// # Errors
/// An element is NaN or infinite; the error gives the first one's flat index, the caller adds the tensor's name.
pub fn amax<E: Source>(source: &[E]) -> Result<f32> {
    let set = InstructionSet::detect();
    let largest = source.par_chunks(CHUNK).map(|chunk| largest_bits(set, chunk)).max().unwrap_or_default();
    if largest <= E::LARGEST_FINITE {
        return Ok(E::of_magnitude_bits(largest));
    }
    let at =
        source.iter().position(|element| element.magnitude_bits() > E::LARGEST_FINITE).unwrap_or_default();
    Err(Error::input(format!("the weight is not finite: its element {at} is {}", source[at].to_f32()))
        .hint("fetch the checkpoint again, or exclude the module from quantization"))
}

/// A magnitude as ModelOpt exports it: one that is zero counts as the largest code, so that its scale is 1, and none is
/// below the smallest normal number of the type that it is kept in (`export_amax`, modelopt.md §3.1).
pub fn exported(amax: f32, largest: f32, smallest: f32) -> f32 {
    if amax == 0.0 { largest } else { amax.max(smallest) }
}

dispatched! {
    /// The largest magnitude, as bits.
    fn largest_bits<E: Source>(source: &[E]) -> E::Bits {
        let (groups, rest) = source.as_chunks::<LANES>();
        let mut lanes = [E::Bits::default(); LANES];
        for group in groups {
            prefetch(group, AHEAD);
            for (at, largest) in lanes.iter_mut().enumerate() {
                *largest = (*largest).max(group[at].magnitude_bits());
            }
        }
        let rest = rest.iter().map(|element| element.magnitude_bits());
        lanes.into_iter().chain(rest).max().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use half::{bf16, f16};

    use super::*;

    #[test]
    fn the_largest_magnitude_is_found_wherever_it_stands() {
        for length in [1, 2, 31, 33, 1000, CHUNK + 7] {
            for at in [0, length / 2, length - 1] {
                let mut source = vec![bf16::from_f32(0.25); length];
                source[at] = bf16::from_f32(-3.5);
                assert_eq!(amax(&source).unwrap(), 3.5);
                let source: Vec<f16> = source.iter().map(|value| f16::from_f32(value.to_f32())).collect();
                assert_eq!(amax(&source).unwrap(), 3.5);
                let source: Vec<f32> = source.iter().map(|value| value.to_f32()).collect();
                assert_eq!(amax(&source).unwrap(), 3.5);
            }
        }
        assert_eq!(amax::<bf16>(&[]).unwrap(), 0.0);
        assert_eq!(amax(&[bf16::from_f32(-0.0)]).unwrap().to_bits(), 0);
    }

    #[test]
    fn an_element_that_is_not_finite_is_named() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut source = vec![bf16::from_f32(1.0); 100];
            source[42] = bf16::from_f32(bad);
            let error = amax(&source).unwrap_err();
            assert!(error.message.contains("not finite: its element 42"), "{error}");
            assert!(error.hint.is_some());
            let source: Vec<f16> = source.iter().map(|value| f16::from_f32(value.to_f32())).collect();
            assert!(amax(&source).is_err());
            let source: Vec<f32> = source.iter().map(|value| value.to_f32()).collect();
            assert!(amax(&source).is_err());
        }
    }
}
