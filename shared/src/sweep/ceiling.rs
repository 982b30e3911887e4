//! What the rules of a sweep say of a perplexity before it is measured: beyond which one nobody needs to know it exactly.

use super::bound::Limit;
use super::file::{Rules, Sweep};
use crate::protocol::{Ceiling, Height};

/// The ceilings of a sweep's candidates: every limit on what they lose, as far beyond as `early_stop` says.
///
/// Limits against another baseline than the first are left out, because its figure is not at hand where candidates are measured.
pub fn ceilings(sweep: &Sweep) -> Vec<Ceiling> {
    let Some(factor) = sweep.early_stop else { return Vec::new() };
    let first = sweep.baselines.first().map(|baseline| baseline.name.as_str());
    let of = |section: &str, rules: &Rules| -> Vec<Ceiling> {
        let limits = rules.iter().flat_map(|(key, bound)| bound.limits.iter().map(move |limit| (key, limit)));
        let ceiling = |(key, limit): (&String, &Limit)| {
            let height = height(key, limit, first)?.times(factor);
            Some(Ceiling { rule: format!("{section}.{key}"), height })
        };
        limits.filter_map(ceiling).collect()
    };
    [of("acceptance", &sweep.acceptance), of("gates", &sweep.gates)].concat()
}

/// What a limit on a figure allows as a perplexity.
fn height(key: &str, limit: &Limit, first: Option<&str>) -> Option<Height> {
    match (key, limit) {
        ("perplexity", Limit::Max(max)) => Some(Height::Perplexity(*max)),
        ("nll", Limit::Max(max)) => Some(Height::Perplexity(max.exp())),
        ("delta", Limit::Max(max)) => first.map(|_| Height::TimesReference(1.0 + max)),
        ("perplexity", Limit::Within { share, of }) if Some(of.as_str()) == first => {
            Some(Height::TimesReference(1.0 + share))
        }
        _ => None,
    }
}

impl Height {
    fn times(self, factor: f64) -> Self {
        match self {
            Self::Perplexity(at) => Self::Perplexity(at * factor),
            Self::TimesReference(times) => Self::TimesReference(times * factor),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sweep::read_sweep;

    fn ceilings_of(rules: &str) -> Vec<(String, Height)> {
        let text = format!(
            "version: 1\nname: a\nmodel: m\nobjective: memory\nevaluate: {{data: d.txt}}\nbaselines: [bf16]\n\
             candidates: [fp8]\n{rules}"
        );
        let sweep = read_sweep(&text, std::path::Path::new("a.yaml")).unwrap();
        ceilings(&sweep).into_iter().map(|ceiling| (ceiling.rule, ceiling.height)).collect()
    }

    #[test]
    fn limits_on_what_is_lost_become_ceilings_and_others_do_not() {
        let rules = "acceptance:\n  perplexity: {max: 100, within: 50%, of: bf16}\n  kl_mean: {max: 0.1}\n\
                     gates:\n  delta: {max: 1}\n  ratio: {max: 0.5}\n";
        let own = |rule: &str, height| (rule.to_owned(), height);
        assert_eq!(
            ceilings_of(rules),
            [
                own("acceptance.perplexity", Height::Perplexity(200.0)),
                own("acceptance.perplexity", Height::TimesReference(3.0)),
                own("gates.delta", Height::TimesReference(4.0)),
            ]
        );
    }

    #[test]
    fn how_far_beyond_is_for_a_person_to_say() {
        let rules = "acceptance:\n  nll: {max: 0}\n";
        let height = |more: &str| ceilings_of(&format!("{rules}early_stop: {more}\n"));
        assert_eq!(height("1.5")[0].1, Height::Perplexity(1.5));
        assert_eq!(height("never"), []);
        let text = format!("{rules}early_stop: 0.5\n");
        let refused = std::panic::catch_unwind(|| ceilings_of(&text));
        assert!(refused.is_err());
    }
}
