//! Rotary position embedding: which frequencies a model turns its heads by.

use super::Family;
use super::config::Fields;
use crate::Result;

/// Rotary position embedding of a model.
#[derive(Debug, Clone, PartialEq)]
pub struct Rope {
    /// Base of the geometric series of wavelengths.
    pub theta: f64,
    /// How it was stretched to a longer context.
    pub scaling: RopeScaling,
}

/// How rotary frequencies were stretched to a longer context.
#[derive(Debug, Clone, PartialEq)]
pub enum RopeScaling {
    /// Not at all.
    None,
    /// All frequencies divided alike (position interpolation, arXiv 2306.15595).
    Linear {
        /// Divisor.
        factor: f64,
    },
    /// Long wavelengths divided, short ones kept, smooth in between (Llama 3.1).
    Llama3 {
        /// Divisor of long wavelengths.
        factor: f64,
        /// Wavelengths above `original / low` are long.
        low: f64,
        /// Wavelengths below `original / high` are short.
        high: f64,
        /// Context before stretching.
        original: f64,
    },
    /// YaRN (arXiv 2309.00071).
    Yarn {
        /// Divisor of long wavelengths.
        factor: f64,
        /// Rotations over the original context above which a dimension is kept.
        beta_fast: f64,
        /// Rotations below which it is divided.
        beta_slow: f64,
        /// Context before stretching.
        original: f64,
        /// Factor on cosines and sines.
        attention: f64,
        /// Whether the ramp's ends are rounded outwards to whole dimensions.
        truncate: bool,
    },
}

impl Rope {
    /// Reads `rope_parameters` (current spelling) or `rope_theta` and `rope_scaling` (older).
    pub(super) fn parse(fields: &Fields<'_>, family: Family, max_positions: usize) -> Result<Self> {
        let current = fields.nested("rope_parameters")?;
        let older = fields.nested("rope_scaling")?;
        let theta = match &current {
            Some(parameters) => parameters.number("rope_theta")?,
            None => None,
        };
        let theta = match theta {
            Some(theta) => theta,
            None => fields.number("rope_theta")?.unwrap_or_else(|| family.default_theta()),
        };
        let share = match &current {
            Some(parameters) => parameters.number("partial_rotary_factor")?,
            None => fields.number("partial_rotary_factor")?,
        };
        if let Some(share) = share.filter(|&share| share != 1.0) {
            let message = format!("rotating a share of a head ({share}) is not supported");
            return Err(fields.error("partial_rotary_factor", message));
        }
        let scaling = match current.or(older) {
            Some(parameters) => scaling(&parameters, max_positions as f64)?,
            None => RopeScaling::None,
        };
        Ok(Self { theta, scaling })
    }

    /// Angular frequency per pair of dimensions, `head_dim / 2` of them, and the factor on cosines and sines.
    pub fn frequencies(&self, head_dim: usize) -> (Vec<f32>, f32) {
        let half = head_dim / 2;
        let plain = (0..half).map(|i| 1.0 / self.theta.powf((2 * i) as f64 / head_dim as f64));
        match self.scaling {
            RopeScaling::None => (plain.map(|f| f as f32).collect(), 1.0),
            RopeScaling::Linear { factor } => (plain.map(|f| (f / factor) as f32).collect(), 1.0),
            RopeScaling::Llama3 { factor, low, high, original } => {
                let stretch = |f: f64| {
                    let wavelength = 2.0 * std::f64::consts::PI / f;
                    if wavelength < original / high {
                        f
                    } else if wavelength > original / low {
                        f / factor
                    } else {
                        let smooth = (original / wavelength - low) / (high - low);
                        (1.0 - smooth) * f / factor + smooth * f
                    }
                };
                (plain.map(|f| stretch(f) as f32).collect(), 1.0)
            }
            RopeScaling::Yarn { factor, beta_fast, beta_slow, original, attention, truncate } => {
                let (low, high) = self.yarn_range(head_dim, original, (beta_fast, beta_slow), truncate);
                let stretched = plain.enumerate().map(|(i, f)| {
                    let ramp = ((i as f64 - low) / (high - low)).clamp(0.0, 1.0);
                    (f / factor * ramp + f * (1.0 - ramp)) as f32
                });
                (stretched.collect(), attention as f32)
            }
        }
    }

    /// First and last pair of dimensions of YaRN's ramp.
    fn yarn_range(&self, head_dim: usize, original: f64, betas: (f64, f64), truncate: bool) -> (f64, f64) {
        let dimension = |rotations: f64| {
            head_dim as f64 * (original / (rotations * 2.0 * std::f64::consts::PI)).ln()
                / (2.0 * self.theta.ln())
        };
        let (mut low, mut high) = (dimension(betas.0), dimension(betas.1));
        if truncate {
            (low, high) = (low.floor(), high.ceil());
        }
        let (low, high) = (low.max(0.0), high.min(head_dim as f64 - 1.0));
        // A ramp without width would divide by zero.
        (low, if low == high { high + 0.001 } else { high })
    }
}

fn scaling(fields: &Fields<'_>, max_positions: f64) -> Result<RopeScaling> {
    let kind = match fields.text("rope_type")? {
        Some(kind) => kind,
        None => fields.text("type")?.unwrap_or("default"),
    };
    let required = |key: &str| {
        fields
            .number(key)?
            .filter(|&x| x > 0.0)
            .ok_or_else(|| fields.error(key, format!("rope scaling `{kind}` needs a positive `{key}`")))
    };
    match kind {
        "default" => Ok(RopeScaling::None),
        "linear" => Ok(RopeScaling::Linear { factor: required("factor")? }),
        "llama3" => Ok(RopeScaling::Llama3 {
            factor: required("factor")?,
            low: required("low_freq_factor")?,
            high: required("high_freq_factor")?,
            original: required("original_max_position_embeddings")?,
        }),
        "yarn" => yarn(fields, max_positions),
        other => Err(fields
            .error("rope_type", format!("rope scaling `{other}` is not supported"))
            .hint("default, linear, llama3 and yarn are")),
    }
}

/// Defaults as transformers' `_compute_yarn_parameters` has them.
fn yarn(fields: &Fields<'_>, max_positions: f64) -> Result<RopeScaling> {
    let original = fields.number("original_max_position_embeddings")?.unwrap_or(max_positions);
    let factor = fields.number("factor")?.unwrap_or(max_positions / original);
    let magnitude =
        |scale: f64, weight: f64| if scale <= 1.0 { 1.0 } else { 0.1 * weight * scale.ln() + 1.0 };
    let attention = match (
        fields.number("attention_factor")?,
        fields.number("mscale")?,
        fields.number("mscale_all_dim")?,
    ) {
        (Some(given), _, _) => given,
        (None, Some(one), Some(all)) if one != 0.0 && all != 0.0 => {
            magnitude(factor, one) / magnitude(factor, all)
        }
        _ => magnitude(factor, 1.0),
    };
    Ok(RopeScaling::Yarn {
        factor,
        beta_fast: fields.number("beta_fast")?.unwrap_or(32.0),
        beta_slow: fields.number("beta_slow")?.unwrap_or(1.0),
        original,
        attention,
        truncate: fields.flag("truncate")?.unwrap_or(true),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_frequencies_form_a_geometric_series() {
        let rope = Rope { theta: 10_000.0, scaling: RopeScaling::None };
        let (frequencies, attention) = rope.frequencies(8);
        assert_eq!(frequencies, [1.0, 0.1, 0.01, 0.001]);
        assert_eq!(attention, 1.0);
    }

    #[test]
    fn llama3_keeps_short_wavelengths_and_divides_long_ones() {
        let scaling = RopeScaling::Llama3 { factor: 8.0, low: 1.0, high: 4.0, original: 8192.0 };
        let plain = Rope { theta: 500_000.0, scaling: RopeScaling::None }.frequencies(128).0;
        let stretched = Rope { theta: 500_000.0, scaling }.frequencies(128).0;
        assert_eq!(stretched[0], plain[0]);
        assert_eq!(stretched[63], plain[63] / 8.0);
        assert!((0..64).all(|i| stretched[i] <= plain[i] && stretched[i] >= plain[i] / 8.0));
        assert!((0..64).any(|i| stretched[i] < plain[i] && stretched[i] > plain[i] / 8.0));
    }

    #[test]
    fn yarn_runs_from_kept_to_divided() {
        let scaling = RopeScaling::Yarn {
            factor: 4.0,
            beta_fast: 32.0,
            beta_slow: 1.0,
            original: 32_768.0,
            attention: 1.138,
            truncate: true,
        };
        let plain = Rope { theta: 1_000_000.0, scaling: RopeScaling::None }.frequencies(128).0;
        let (stretched, attention) = Rope { theta: 1_000_000.0, scaling }.frequencies(128);
        assert_eq!(stretched[0], plain[0]);
        assert_eq!(stretched[63], plain[63] / 4.0);
        assert_eq!(attention, 1.138);
    }
}
