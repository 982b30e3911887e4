//! What rounding does to keys and values on their way into the cache, and factors on the channels of an activation.

use qlaunch_shared::Result;
use qlaunch_shared::numerics::Format;

use super::codec::Source;
use super::simulate_activation;
use crate::ops::hadamard;
use crate::tensor::dtype::widen;

/// How keys or values are rounded.
#[derive(Debug, Clone, PartialEq)]
pub struct CacheRounding {
    /// What they are rounded to.
    pub format: Format,
    /// The largest magnitude that the stored scale stands for.
    pub amax: f32,
    /// What is taken off before and added back, one value per channel of all heads.
    pub offset: Option<Vec<f32>>,
    /// Whether a Hadamard transform mixes each head before; queries get the same, so that scores stay.
    pub rotated: bool,
}

/// Rounds keys or values `[tokens, kv_heads · head_dim]` in place as a cache keeps them; blocks do not cross heads.
///
/// A rotated head is turned back, which stands for the turned queries: scores are the same up to rounding.
///
/// # Errors
/// The format is one of weights alone.
pub fn simulate_cache<E: Source>(values: &mut [E], head_dim: usize, rounding: &CacheRounding) -> Result<()> {
    if rounding.offset.is_none() && !rounding.rotated {
        return simulate_activation(values, head_dim, rounding.format, rounding.amax);
    }
    let mut wide = vec![0f32; values.len()];
    widen(values, &mut wide);
    if rounding.rotated {
        hadamard(&mut wide, head_dim);
    }
    if let Some(offset) = &rounding.offset {
        each_channel(&mut wide, offset, |value, offset| value - offset);
    }
    simulate_activation(&mut wide, head_dim, rounding.format, rounding.amax)?;
    if let Some(offset) = &rounding.offset {
        each_channel(&mut wide, offset, |value, offset| value + offset);
    }
    if rounding.rotated {
        hadamard(&mut wide, head_dim);
    }
    crate::tensor::dtype::round(&wide, values);
    Ok(())
}

/// Multiplies every row of an activation with a factor per channel, each product rounded to the element type.
pub fn scale_channels<E: Source>(values: &mut [E], factors: &[f32]) {
    for row in values.chunks_mut(factors.len().max(1)) {
        for (value, factor) in row.iter_mut().zip(factors) {
            *value = E::from_f32(value.to_f32() * factor);
        }
    }
}

fn each_channel(values: &mut [f32], channels: &[f32], change: impl Fn(f32, f32) -> f32) {
    for row in values.chunks_mut(channels.len().max(1)) {
        for (value, channel) in row.iter_mut().zip(channels) {
            *value = change(*value, *channel);
        }
    }
}

#[cfg(test)]
mod tests {
    use half::bf16;

    use super::*;

    fn heads() -> Vec<bf16> {
        // Channel 5 of each head stands out, and channel 9 is far from zero.
        let value = |i: usize| {
            let outlier = if i % 32 == 5 { 20.0 } else { 1.0 };
            let away = if i % 32 == 9 { 30.0 } else { 0.0 };
            (i as f32 * 0.61).sin() * outlier + away
        };
        (0..8 * 64).map(|i| bf16::from_f32(value(i))).collect()
    }

    fn error(rounding: &CacheRounding) -> f32 {
        let before = heads();
        let mut after = before.clone();
        simulate_cache(&mut after, 32, rounding).unwrap();
        before.iter().zip(&after).map(|(a, b)| (a.to_f32() - b.to_f32()).powi(2)).sum()
    }

    #[test]
    fn blocks_do_not_cross_heads() {
        let plain = CacheRounding { format: Format::NVFP4, amax: 32.0, offset: None, rotated: false };
        let mut together: Vec<bf16> = heads();
        let mut alone = together.clone();
        // Heads of 24 values: a block of 16 and one of 8.
        simulate_cache(&mut together[..480], 24, &plain).unwrap();
        for head in alone[..480].chunks_mut(24) {
            simulate_cache(head, 24, &plain).unwrap();
        }
        assert_eq!(together, alone);
    }

    #[test]
    fn offsets_and_rotations_make_errors_smaller_where_they_should() {
        let plain = CacheRounding { format: Format::NVFP4, amax: 32.0, offset: None, rotated: false };
        let mut means = vec![0f32; 64];
        for row in heads().chunks(64) {
            for (mean, value) in means.iter_mut().zip(row) {
                *mean += value.to_f32() / 8.0;
            }
        }
        let offset = CacheRounding { offset: Some(means), ..plain };
        assert!(error(&offset) < 0.8 * error(&plain), "{} {}", error(&offset), error(&plain));
        // A rotation under a format that loses nothing here gives the values back.
        let exact = CacheRounding { format: Format::Mxint8, amax: 1.0, offset: None, rotated: true };
        assert!(error(&exact) < 1e-2 * error(&plain));
    }

    #[test]
    fn factors_are_multiplied_in_the_activations_own_type() {
        let mut values = vec![bf16::from_f32(1.007_812_5), bf16::from_f32(-3.0)];
        scale_channels(&mut values, &[1.007_812_5, 0.5]);
        assert_eq!(values, [bf16::from_f32(1.007_812_5 * 1.007_812_5), bf16::from_f32(-1.5)]);
    }
}
