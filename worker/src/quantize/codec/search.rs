//! Where a codec's code changes, as the bits of a magnitude.

/// The smallest magnitude below `limit`, as bits, that `reaches` a code; `limit` if none does.
///
/// `reaches` must be false up to some magnitude and true from there on; `guess` only makes the search short, it walks
/// from there one magnitude at a time.
pub(super) fn first_magnitude(guess: u16, limit: u16, reaches: impl Fn(u16) -> bool) -> u16 {
    let mut bits = guess.min(limit);
    while bits > 0 && reaches(bits - 1) {
        bits -= 1;
    }
    while bits < limit && !reaches(bits) {
        bits += 1;
    }
    bits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_guess_leads_to_the_same_step() {
        for step in [0u16, 1, 500, 999, 1000, 5000] {
            for guess in [0, 3, 499, 500, 501, 1000, u16::MAX] {
                assert_eq!(first_magnitude(guess, 1000, |bits| bits >= step), step.min(1000));
            }
        }
    }
}
