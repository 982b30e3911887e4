//! What calibration saw of the keys or values of a layer: their largest magnitude, and where channels lie off zero.

use qlaunch_shared::numerics::BiasMethod;
use rayon::prelude::*;

use crate::ops::Magnitude;
use crate::tensor::DType;
use crate::tensor::dtype::round_as;

/// What was seen of keys or values, after the transform that their cache asks for.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CacheStatistics {
    /// Largest magnitude.
    pub magnitude: Magnitude,
    /// Channel by channel; only where an offset is taken off.
    channels: Option<Channels>,
}

/// Values of each channel of all heads, over all tokens.
#[derive(Debug, Clone, Default, PartialEq)]
struct Channels {
    low: Vec<f32>,
    high: Vec<f32>,
    sums: Vec<f64>,
    tokens: u64,
}

/// Lowest and highest values and sums of channels, and tokens.
pub type ChannelValues<V, S> = (V, V, S, u64);

impl CacheStatistics {
    /// What was seen before.
    pub fn of(magnitude: Magnitude, channels: Option<ChannelValues<Vec<f32>, Vec<f64>>>) -> Self {
        let channels = channels.map(|(low, high, sums, tokens)| Channels { low, high, sums, tokens });
        Self { magnitude, channels }
    }

    /// What was seen of channels.
    pub fn channels(&self) -> Option<ChannelValues<&[f32], &[f64]>> {
        let own = self.channels.as_ref()?;
        Some((&own.low, &own.high, &own.sums, own.tokens))
    }

    /// Adds one batch's magnitude.
    pub fn see(&mut self, seen: Magnitude) {
        // A maximum does not depend on the order of batches.
        self.magnitude = self.magnitude.merge(seen);
    }

    /// Adds one batch's values `[tokens, columns]`. Sums run over tokens in order, so that batches change no bit.
    pub fn see_channels(&mut self, values: &[f32], columns: usize) {
        let own = self.channels.get_or_insert_with(|| Channels {
            low: vec![f32::INFINITY; columns],
            high: vec![f32::NEG_INFINITY; columns],
            sums: vec![0.0; columns],
            tokens: 0,
        });
        own.tokens += (values.len() / columns.max(1)) as u64;
        let bounds = own.low.par_iter_mut().zip(own.high.par_iter_mut());
        bounds.zip(own.sums.par_iter_mut()).enumerate().for_each(|(channel, ((low, high), sum))| {
            for value in values.iter().skip(channel).step_by(columns.max(1)) {
                *low = low.min(*value);
                *high = high.max(*value);
                *sum += f64::from(*value);
            }
        });
    }

    /// The offset of each channel, rounded to the model's type as it is stored; `None` where channels were not seen.
    pub fn offset(&self, method: BiasMethod, dtype: DType) -> Option<Vec<f32>> {
        let own = self.channels.as_ref().filter(|own| own.tokens > 0)?;
        let mut offset: Vec<f32> = match method {
            BiasMethod::Mean => own.sums.iter().map(|sum| (sum / own.tokens as f64) as f32).collect(),
            BiasMethod::MaxMin => {
                own.low.iter().zip(&own.high).map(|(low, high)| f32::midpoint(*low, *high)).collect()
            }
        };
        round_as(dtype, &mut offset);
        Some(offset)
    }

    /// The largest distance from an offset, exactly: what is rounded is never further from it.
    pub fn amax_around(&self, offset: &[f32]) -> f32 {
        let Some(own) = &self.channels else { return self.magnitude.amax };
        let bounds = own.low.iter().zip(&own.high).zip(offset);
        bounds.map(|((low, high), offset)| (offset - low).max(high - offset)).fold(0.0, f32::max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two channels around 10 and -3, the second lopsided.
    const VALUES: [f32; 8] = [9.0, -3.0, 11.0, -3.0, 10.0, -3.0, 10.0, -5.0];

    #[test]
    fn offsets_are_means_or_middles_of_channels_and_scales_are_around_them() {
        let mut seen = CacheStatistics::default();
        seen.see_channels(&VALUES, 2);
        let mean = seen.offset(BiasMethod::Mean, DType::F32).unwrap();
        assert_eq!(mean, [10.0, -3.5]);
        assert_eq!(seen.amax_around(&mean), 1.5);
        let middle = seen.offset(BiasMethod::MaxMin, DType::F32).unwrap();
        assert_eq!(middle, [10.0, -4.0]);
        assert_eq!(seen.amax_around(&middle), 1.0);
        assert_eq!(CacheStatistics::default().offset(BiasMethod::Mean, DType::F32), None);
    }

    #[test]
    fn batches_change_no_bit() {
        let values: Vec<f32> = (0..600).map(|i| (i as f32 * 0.377).sin() * 3.0 + 0.1).collect();
        let mut whole = CacheStatistics::default();
        whole.see_channels(&values, 6);
        let mut parts = CacheStatistics::default();
        for batch in values.chunks(6 * 7) {
            parts.see_channels(batch, 6);
        }
        assert_eq!(whole, parts);
    }

    #[test]
    fn an_offset_is_of_the_models_type() {
        let mut seen = CacheStatistics::default();
        seen.see_channels(&[1.001, 1.002], 1);
        let offset = seen.offset(BiasMethod::Mean, DType::BF16).unwrap();
        assert_eq!(offset, [1.0]);
        assert!((seen.amax_around(&offset) - 0.002).abs() < 1e-6, "the scale is that of the stored offset");
    }
}
