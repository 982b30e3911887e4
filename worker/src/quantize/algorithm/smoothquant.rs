//! SmoothQuant: outliers of activations go to the weights, by each channel's largest magnitudes (modelopt.md §4.6).

use qlaunch_shared::Result;
use qlaunch_shared::assign::Smoothing;
use qlaunch_shared::assign::algorithm::SmoothQuant;

use super::dispatch::missing;
use crate::calibrate::Statistics;
use crate::quantize::{LinearWork, smooth};
use crate::tensor::dtype::round_as;

/// Magnitudes of activations that count as none.
const NOTHING: f32 = 1.0 / (1u64 << 31) as f32;

/// Smooths every linear that is planned to be.
///
/// # Errors
/// A linear's input was not seen, or is not finite.
pub(super) fn smoothquant(
    linears: &mut [LinearWork],
    options: &SmoothQuant,
    statistics: &Statistics,
) -> Result<()> {
    for linear in linears.iter_mut().filter(|linear| linear.numerics.smoothing != Smoothing::None) {
        let seen = statistics.inputs.get(&linear.numerics.module).ok_or_else(|| missing(linear))?;
        seen.magnitude.finite().map_err(|e| e.key(linear.numerics.name.as_str()))?;
        let channels = seen.channels.clone().ok_or_else(|| missing(linear))?;
        let weight = column_amax(&linear.weight.to_f32(), linear.shape()[1]);
        let factors = factors(&channels.amax, &weight, options.alpha as f32, |value| {
            let mut value = [value];
            round_as(linear.weight.dtype(), &mut value);
            value[0]
        });
        smooth(linear, factors, &channels)?;
    }
    Ok(())
}

/// The largest magnitude of each column of a weight.
pub(super) fn column_amax(weight: &[f32], columns: usize) -> Vec<f32> {
    let mut largest = vec![0f32; columns];
    for row in weight.chunks(columns.max(1)) {
        largest.iter_mut().zip(row).for_each(|(largest, value)| *largest = largest.max(value.abs()));
    }
    largest
}

/// `weight^(1 − α) / input^α` by channel; the power of the weight is rounded to its type.
fn factors(input: &[f32], weight: &[f32], alpha: f32, rounded: impl Fn(f32) -> f32) -> Vec<f32> {
    let pairs = weight.iter().zip(input);
    let mut factors: Vec<f32> =
        pairs.map(|(weight, input)| rounded(weight.powf(1.0 - alpha)) / input.powf(alpha)).collect();
    // As in ModelOpt, channels without input stand out only where some factor is next to nothing.
    if factors.iter().any(|factor| *factor <= NOTHING) {
        for (factor, _) in factors.iter_mut().zip(input).filter(|(_, input)| **input <= NOTHING) {
            *factor = 1.0;
        }
    }
    factors.iter().map(|factor| if factor.is_nan() { 1.0 } else { factor.clamp(1e-4, 1e4) }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn factors_are_those_of_the_definition() {
        let same = |value: f32| value;
        assert_eq!(factors(&[4.0, 0.5], &[0.25, 1.0], 0.5, same), [0.25, 2f32.sqrt()]);
        assert_eq!(
            factors(&[4.0, 0.5], &[0.25, 1.0], 1.0, same),
            [0.25, 2.0],
            "the weight plays no part at 1"
        );
        assert_eq!(factors(&[0.0, 1.0], &[1.0, 0.0], 0.5, same), [1.0, 1e-4], "no input, then no weight");
        assert_eq!(factors(&[0.0, 1.0], &[1.0, 1.0], 1.0, same), [1e4, 1.0], "no factor is next to nothing");
        assert_eq!(factors(&[0.0], &[0.0], 0.5, same), [1.0], "nothing of nothing");
    }
}
