//! "Did you mean": the known word closest to a mistyped one.

/// The candidate within a third of the word's length in edits, if any; ties go to the first.
pub fn closest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let allowed = (word.chars().count() / 3).max(1);
    candidates
        .into_iter()
        .map(|candidate| (distance(word, candidate), candidate))
        .filter(|(edits, candidate)| *edits <= allowed && *edits < candidate.chars().count())
        .min_by_key(|(edits, _)| *edits)
        .map(|(_, candidate)| candidate)
}

/// How many known words a hint lists.
const LISTED: usize = 20;

/// A hint for an unknown word: the closest candidate, or the first of them.
pub fn did_you_mean(word: &str, candidates: &[&str]) -> String {
    match closest(word, candidates.iter().copied()) {
        Some(candidate) => format!("did you mean `{candidate}`?"),
        None if candidates.is_empty() => "remove it".to_owned(),
        None => {
            let listed = candidates.iter().take(LISTED).map(|candidate| format!("`{candidate}`"));
            let listed = listed.collect::<Vec<_>>().join(", ");
            match candidates.len().saturating_sub(LISTED) {
                0 => format!("known here: {listed}"),
                more => format!("known here: {listed} and {more} more"),
            }
        }
    }
}

/// Optimal string alignment distance: insertions, deletions, substitutions and swaps of neighbours.
///
/// Words longer than 256 characters are never typing errors of one another; comparing them would only cost time.
fn distance(left: &str, right: &str) -> usize {
    let left: Vec<char> = left.chars().take(257).collect();
    let right: Vec<char> = right.chars().take(257).collect();
    if left.len() > 256 || right.len() > 256 {
        return usize::MAX;
    }
    let mut before = vec![0; right.len() + 1];
    let mut previous: Vec<usize> = (0..=right.len()).collect();
    for (row, &a) in left.iter().enumerate() {
        let mut current = vec![row + 1];
        for (column, &b) in right.iter().enumerate() {
            let substituted = previous[column] + usize::from(a != b);
            let mut best = substituted.min(previous[column + 1] + 1).min(current[column] + 1);
            let swapped = row > 0 && column > 0 && a == right[column - 1] && left[row - 1] == b;
            if swapped {
                best = best.min(before[column - 1] + 1);
            }
            current.push(best);
        }
        before = std::mem::replace(&mut previous, current);
    }
    previous[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_typing_error_finds_its_word() {
        assert_eq!(closest("quantizer_nmae", ["cfg", "enable", "quantizer_name"]), Some("quantizer_name"));
        assert_eq!(closest("recipee", ["recipe", "model"]), Some("recipe"));
    }

    #[test]
    fn an_unrelated_word_finds_nothing() {
        assert_eq!(closest("calibration", ["cfg", "enable"]), None);
        assert_eq!(closest("ab", ["x", "y"]), None);
        assert_eq!(did_you_mean("zzz", &["cfg", "enable"]), "known here: `cfg`, `enable`");
    }

    #[test]
    fn a_hint_does_not_list_a_thousand_words() {
        let hint = did_you_mean("zzz", &["cfg"; 1000]);
        assert!(hint.ends_with("`cfg` and 980 more"), "{hint}");
    }
}
