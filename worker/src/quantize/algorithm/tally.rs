//! How often each value stands in weights of 16-bit floats: there are 2¹⁶ at most, and what a scale for all of them loses
//! depends on nothing else. So a search of one scale goes through the weights once and not once for each candidate.

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use qlaunch_shared::numerics::Format;

use crate::quantize::{LinearWork, Magnitudes, simulate_rows};
use crate::tensor::dtype::{DType, Element};
use crate::tensor::host::Elements;

/// The values of some weights, each once.
#[derive(Debug)]
pub(super) struct Tally {
    /// In the order of their bits.
    values: Vec<f32>,
    /// How often each stands there.
    counts: Vec<f64>,
}

impl Tally {
    /// Counts the values of some weights of one type; `None` where that has more than 16 bits.
    pub(super) fn of(linears: &[&mut LinearWork]) -> Option<Self> {
        let dtype = linears.first()?.weight.dtype();
        let value: fn(u16) -> f32 = match dtype {
            DType::BF16 => |bits| Element::to_f32(bf16::from_bits(bits)),
            DType::F16 => |bits| Element::to_f32(f16::from_bits(bits)),
            _ => return None,
        };
        let mut counts = vec![0u64; 1 << u16::BITS];
        for linear in linears {
            let all: &[u16] = match linear.weight.view().elements() {
                Elements::BF16(elements) if dtype == DType::BF16 => elements.reinterpret_cast(),
                Elements::F16(elements) if dtype == DType::F16 => elements.reinterpret_cast(),
                _ => return None,
            };
            all.iter().for_each(|bits| counts[usize::from(*bits)] += 1);
        }
        let found = (0..=u16::MAX).zip(counts).filter(|(_, count)| *count > 0);
        let (values, counts) = found.map(|(bits, count)| (value(bits), count as f64)).unzip();
        Some(Self { values, counts })
    }

    /// The squared error of all weights under the magnitudes of a format with one scale: errors are f32, their sum f64.
    pub(super) fn loss(&self, format: Format, magnitudes: &Magnitudes) -> f64 {
        let mut rounded = self.values.clone();
        simulate_rows(&mut rounded, self.values.len(), format, &magnitudes.fine, magnitudes.tensor);
        let errors = self.values.iter().zip(&rounded).map(|(value, rounded)| value - rounded);
        errors.zip(&self.counts).map(|(error, count)| f64::from(error * error) * count).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::super::specimen::random;
    use super::*;

    #[test]
    fn losses_are_those_of_the_weights_themselves() {
        for dtype in [DType::BF16, DType::F16] {
            for format in [Format::Fp8, Format::Int8] {
                let (mut one, mut other) = (random(format, [70, 96], 1), random(format, [3, 96], 2));
                for linear in [&mut one, &mut other] {
                    linear.weight = linear.weight.view().cast(dtype).unwrap();
                }
                let tally = Tally::of(&[&mut one, &mut other]).unwrap();
                assert!(tally.values.len() < 73 * 96, "some stand there twice");
                assert_eq!(tally.counts.iter().sum::<f64>(), 73.0 * 96.0);
                for amax in [0.3, 1.0, 4.0] {
                    let magnitudes = Magnitudes { fine: vec![amax], tensor: 0.0 };
                    let mut sum = 0.0;
                    for linear in [&one, &other] {
                        let (source, mut rounded) = (linear.weight.to_f32(), linear.weight.to_f32());
                        simulate_rows(&mut rounded, 96, format, &magnitudes.fine, 0.0);
                        let errors = source.iter().zip(rounded).map(|(source, rounded)| source - rounded);
                        sum += errors.map(|error| f64::from(error * error)).sum::<f64>();
                    }
                    let found = tally.loss(format, &magnitudes);
                    assert!((found / sum - 1.0).abs() < 1e-12, "{format} {amax}: {found} {sum}");
                }
            }
        }
    }

    #[test]
    fn wide_weights_are_not_counted() {
        let mut wide = random(Format::Fp8, [4, 32], 1);
        wide.weight = wide.weight.view().cast(DType::F32).unwrap();
        let mut narrow = random(Format::Fp8, [4, 32], 1);
        assert!(Tally::of(&[&mut wide]).is_none());
        assert!(Tally::of(&[&mut narrow, &mut wide]).is_none());
    }
}
