//! Rules on the figures of a portfolio row: at most, at least, or within a share of a baseline.

use serde::{Deserialize, Serialize};

use super::portfolio::Row;
use crate::protocol::VerdictKind;

/// What one figure must keep. Every limit that is given must hold.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Bound {
    /// The limits, in the order `max`, `min`, `within`.
    pub limits: Vec<Limit>,
}

/// One limit on a figure.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Limit {
    /// At most this.
    Max(f64),
    /// At least this.
    Min(f64),
    /// At most this share above the baseline's figure: `1%` is 0.01.
    Within {
        /// The share.
        share: f64,
        /// Name of the baseline.
        of: String,
    },
}

/// What a rule said of a row, and why, in one short phrase.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleVerdict {
    /// What it said.
    pub verdict: VerdictKind,
    /// The phrase: `Δ over 1%`, `ratio 0.81 over 0.7`.
    pub reason: String,
}

/// How far a figure is beyond the limit, as a share of the limit; not positive where the limit holds.
pub fn excess(limit: &Limit, value: f64, baseline: Option<f64>) -> Option<f64> {
    let beyond = match limit {
        Limit::Max(max) => value - max,
        Limit::Min(min) => min - value,
        Limit::Within { share, .. } => value / baseline? - 1.0 - share,
    };
    (!beyond.is_nan()).then_some(beyond)
}

/// Asks one rule of one row. A figure that is missing or not a number never passes.
pub fn evaluate_rule(key: &str, bound: &Bound, row: &Row, baselines: &[Row]) -> RuleVerdict {
    let Some(value) = row.figure(key) else {
        return verdict(VerdictKind::Indeterminate, format!("{key} was not measured"));
    };
    if !value.is_finite() {
        return verdict(VerdictKind::Fail, format!("{key} is not finite"));
    }
    for limit in &bound.limits {
        let baseline = match limit {
            Limit::Within { of, .. } => match baseline_figure(key, of, baselines) {
                Some(figure) => Some(figure),
                None => {
                    let reason = format!("baseline {of} has no {key}");
                    return verdict(VerdictKind::Indeterminate, reason);
                }
            },
            _ => None,
        };
        match excess(limit, value, baseline) {
            Some(beyond) if beyond <= 0.0 => {}
            _ => return verdict(VerdictKind::Fail, broken(key, limit, value)),
        }
    }
    verdict(VerdictKind::Pass, format!("{key} {}", brief(value)))
}

/// A baseline's figure, if it was measured and can be divided by.
pub fn baseline_figure(key: &str, name: &str, baselines: &[Row]) -> Option<f64> {
    let row = baselines.iter().find(|row| row.candidate == name)?;
    row.figure(key).filter(|figure| figure.is_finite() && *figure > 0.0)
}

fn verdict(verdict: VerdictKind, reason: String) -> RuleVerdict {
    RuleVerdict { verdict, reason }
}

/// Says which limit is broken. Perplexity against a baseline is the table's Δ column, so it is called that.
fn broken(key: &str, limit: &Limit, value: f64) -> String {
    match limit {
        Limit::Max(max) => format!("{key} {} over {}", brief(value), brief(*max)),
        Limit::Min(min) => format!("{key} {} under {}", brief(value), brief(*min)),
        Limit::Within { share, .. } if key == "perplexity" => format!("Δ over {}", percent(*share)),
        Limit::Within { share, of } => format!("{key} over {of} by more than {}", percent(*share)),
    }
}

/// A share as a person writes it: `1%`, `0.5%`.
pub fn percent(share: f64) -> String {
    format!("{}%", brief(share * 100.0))
}

/// A figure with four significant digits at most, and no trailing zeros.
pub fn brief(value: f64) -> String {
    if value == 0.0 || !value.is_finite() {
        return format!("{value}");
    }
    #[expect(clippy::cast_possible_truncation, reason = "the exponent of a finite f64 fits easily")]
    let exponent = value.abs().log10().floor() as i32;
    let decimals = usize::try_from((3 - exponent).clamp(0, 12)).unwrap_or(0);
    let text = format!("{value:.decimals$}");
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_brief() {
        let shown: Vec<String> =
            [1.0, 0.5, 10.30001, 139.074, 0.002_13, 12_345_678.0, 0.0, f64::NAN].map(brief).into();
        assert_eq!(shown, ["1", "0.5", "10.3", "139.1", "0.00213", "12345678", "0", "NaN"]);
        assert_eq!(percent(0.01), "1%");
        assert_eq!(percent(0.005), "0.5%");
    }

    #[test]
    fn a_limit_of_its_own_value_holds() {
        assert_eq!(excess(&Limit::Max(2.0), 2.0, None), Some(0.0));
        assert_eq!(excess(&Limit::Min(2.0), 1.5, None), Some(0.5));
        let within = Limit::Within { share: 0.01, of: "bf16".to_owned() };
        assert!(excess(&within, 100.5, Some(100.0)).unwrap() < 0.0);
        assert_eq!(excess(&within, 100.5, None), None);
        assert_eq!(excess(&within, f64::NAN, Some(100.0)), None);
    }
}
