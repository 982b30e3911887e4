//! Whether a candidate can still become acceptable: asked behind every layer and every window, so that a hopeless one ends early.

use qlaunch_shared::protocol::{Ceiling, Height};
use qlaunch_shared::{Error, ErrorKind, Result};

use crate::ops::Backend;
use crate::tokens::Samples;

/// Room for the rounding of sums, as a share of a loss.
const ROUNDING: f64 = 1e-6;

/// The perplexities beyond which nothing can be hoped for, and the rule that each follows from.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Hope {
    limits: Vec<(f64, String)>,
}

impl Hope {
    /// What ceilings mean beside a reference that came to this perplexity; where it is not known, those that are told in it are
    /// left out.
    pub fn below(ceilings: &[Ceiling], reference: Option<f64>) -> Self {
        let limit = |ceiling: &Ceiling| {
            let at = match ceiling.height {
                Height::Perplexity(at) => at,
                Height::TimesReference(times) => times * reference?,
            };
            Some((at, ceiling.rule.clone()))
        };
        Self { limits: ceilings.iter().filter_map(limit).collect() }
    }

    /// Asks after the sum of losses of so many windows. The rest cannot take anything from it: no token's loss is negative, so
    /// that the mean over all is at least what the rest would leave it at with a loss of zero.
    ///
    /// # Errors
    /// The sum is not finite, or the perplexity will end beyond a limit whatever comes.
    pub fn check(&self, loss: f64, windows: usize, samples: &Samples) -> Result<()> {
        let all = samples.count();
        if !loss.is_finite() {
            return Err(ended(
                "finite",
                format!("the perplexity is not finite from window {windows} of {all} on"),
            ));
        }
        // The last window ends it anyway, and a figure is better than a bound.
        if windows >= all {
            return Ok(());
        }
        let scored = (samples.length - 1) * all;
        let least = (loss * (1.0 - ROUNDING) / scored as f64).exp();
        match self.limits.iter().find(|(at, _)| least > *at) {
            None => Ok(()),
            Some((at, rule)) => Err(ended(
                rule,
                format!(
                    "the perplexity is at least {least:.4} after window {windows} of {all}, and beyond {at:.4} \
                     nothing can be hoped for"
                ),
            )),
        }
    }
}

/// Asks whether hidden states of a batch behind a layer are numbers.
///
/// # Errors
/// Some are not; the first window with one is named.
pub fn check_finite<B: Backend>(
    backend: &B,
    (layer, first_window): (usize, usize),
    length: usize,
    hidden: &B::Tensor,
) -> Result<()> {
    let Err(odd) = backend.magnitude(hidden)?.finite() else { return Ok(()) };
    let mut window = first_window;
    backend.inspect(hidden, &mut |view| {
        let columns = view.shape().last().copied().unwrap_or(1).max(1);
        let at = view.to_f32().iter().position(|value| !value.is_finite()).unwrap_or(0);
        window += at / columns / length.max(1);
        Ok(())
    })?;
    let what = format!("behind layer {} {}, in window {} first", layer + 1, odd.message, window + 1);
    Err(ended("finite", what))
}

/// The end of a job by a gate while it runs.
fn ended(gate: &str, why: String) -> Error {
    Error::new(ErrorKind::Gate, format!("ended early: {why}")).key(gate)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(windows: usize) -> Samples {
        Samples { ids: vec![0; windows * 5], length: 5, skipped: 0 }
    }

    fn hope(height: Height) -> Hope {
        Hope::below(&[Ceiling { rule: "acceptance.perplexity".to_owned(), height }], Some(10.0))
    }

    #[test]
    fn it_is_over_only_when_the_rest_cannot_bring_it_back() {
        // Four scored tokens a window, ten windows: a loss of 40 ln 20 brings the mean to ln 20.
        let (hope, ln) = (hope(Height::TimesReference(2.0)), 20f64.ln());
        assert!(hope.check(39.9 * ln, 9, &samples(10)).is_ok());
        let error = hope.check(40.1 * ln, 9, &samples(10)).unwrap_err();
        assert_eq!(
            (error.kind, error.place.key.as_deref()),
            (ErrorKind::Gate, Some("acceptance.perplexity"))
        );
        assert!(error.message.contains("after window 9 of 10"), "{error}");
        assert!(hope.check(40.1 * ln, 10, &samples(10)).is_ok(), "a figure is better than a bound");
    }

    #[test]
    fn what_is_not_a_number_ends_it_at_once_whatever_the_rules() {
        for loss in [f64::NAN, f64::INFINITY] {
            let error = Hope::default().check(loss, 3, &samples(4)).unwrap_err();
            assert_eq!(error.message, "ended early: the perplexity is not finite from window 3 of 4 on");
        }
    }

    #[test]
    fn a_reference_of_unknown_perplexity_forbids_nothing() {
        let ceilings = [Ceiling { rule: "gates.delta".to_owned(), height: Height::TimesReference(1.0) }];
        assert_eq!(Hope::below(&ceilings, None), Hope::default());
    }
}
