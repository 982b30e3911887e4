//! `exp` and `erf` in `f32`, written so that loops over them are vectorised and give the same bits on every CPU.

/// `1.5 · 2²³`: adding and subtracting it rounds to the nearest integer, ties to even.
const ROUNDER: f32 = 12_582_912.0;
/// The upper bits of `ln 2`: its products with integers up to 2⁸ are exact.
const LN2_HIGH: f32 = 0.693_145_75;
/// `ln 2 − LN2_HIGH`.
const LN2_LOW: f32 = 1.428_606_8e-6;

/// `eˣ`, within 2 units in the last place; overflows to infinity, underflows through subnormals to zero.
///
/// `x = n ln 2 + r` with `|r| ≤ ln 2 / 2`, and `eʳ` by its Taylor polynomial of degree 7, whose error is below 2⁻²⁷.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    let clamped = x.clamp(-104.0, 89.0);
    let shifted = clamped * std::f32::consts::LOG2_E + ROUNDER;
    let n = shifted - ROUNDER;
    let r = (clamped - n * LN2_HIGH) - n * LN2_LOW;
    let tail = 1.0 / 24.0 + r * (1.0 / 120.0 + r * (1.0 / 720.0 + r * (1.0 / 5040.0)));
    let e = 1.0 + (r + r * r * (0.5 + r * (1.0 / 6.0 + r * tail)));
    // 2ⁿ in two factors, since one does not reach from the subnormals to infinity.
    let n = shifted.to_bits() as i32 - ROUNDER.to_bits() as i32;
    let half = n >> 1;
    e * power_of_two(half) * power_of_two(n - half)
}

/// `2ⁿ` for `-127 < n < 128`.
#[inline(always)]
fn power_of_two(n: i32) -> f32 {
    f32::from_bits((n.wrapping_add(127) << 23) as u32)
}

/// `erf x`, within 2⁻²⁴ of the true value.
///
/// The Taylor series around zero in `f64`, which beyond 4 is 1 to every bit of an `f32`.
pub(crate) fn erf(x: f32) -> f32 {
    const TERMS: u32 = 64;
    let x = f64::from(x).clamp(-4.0, 4.0);
    let mut power = x;
    let mut sum = x;
    for n in 1..TERMS {
        power *= -x * x / f64::from(n);
        sum += power / f64::from(2 * n + 1);
    }
    (sum * std::f64::consts::FRAC_2_SQRT_PI) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_within_two_units_in_the_last_place() {
        let mut worst = 0.0f64;
        for bits in (0..u32::MAX).step_by(997) {
            let x = f32::from_bits(bits);
            let exact = f64::from(x).exp();
            if !(f64::from(f32::MIN_POSITIVE)..f64::from(f32::MAX)).contains(&exact) {
                continue;
            }
            let unit =
                f64::from(f32::from_bits((exact as f32).to_bits() & 0x7f80_0000)) * f64::from(f32::EPSILON);
            worst = worst.max((f64::from(exp(x)) - exact).abs() / unit);
        }
        assert!(worst < 2.0, "{worst} units");
    }

    #[test]
    fn exp_keeps_the_corner_cases() {
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(-0.0), 1.0);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp(f32::INFINITY), f32::INFINITY);
        assert_eq!(exp(88.8), f32::INFINITY);
        assert!(exp(88.7).is_finite());
        assert!(exp(-100.0) > 0.0);
        assert!(exp(f32::NAN).is_nan());
    }

    #[test]
    fn erf_meets_known_values() {
        // Abramowitz and Stegun, table 7.1.
        let known =
            [(0.0, 0.0), (0.5, 0.520_499_9), (1.0, 0.842_700_8), (2.0, 0.995_322_3), (3.0, 0.999_977_9)];
        for (x, value) in known {
            assert!((erf(x) - value).abs() < 1.2e-7, "{x}");
            assert_eq!(erf(-x), -erf(x));
        }
        assert_eq!(erf(9.0), 1.0);
        assert!(erf(f32::NAN).is_nan());
    }
}
