//! Many patterns against many names at once.
//!
//! The names of a large model differ mostly in layer and expert numbers, and most patterns cannot touch those except
//! with a star. For those patterns all names of one shape (each number between dots made one) fare alike, so a shape is
//! matched once: the hundred thousand names of a mixture of experts have a few dozen shapes.

use std::collections::HashMap;

use super::fnmatch::Pattern;

/// Patterns, compiled, with what is known about shapes of names so far.
#[derive(Debug)]
pub struct Patterns {
    patterns: Vec<Pattern>,
    /// Indexes of the patterns that may touch numbers and so must see each name.
    touchy: Vec<usize>,
    /// Where in `answers` a shape's answer is.
    shapes: HashMap<Vec<u8>, usize>,
    answers: Vec<Answer>,
    /// Room for the shape at hand and for the answer to it.
    shape: Vec<u8>,
    answer: Vec<usize>,
}

/// What is known about all names of a shape.
#[derive(Debug)]
struct Answer {
    /// Patterns that they fit, whatever their numbers.
    alike: Vec<usize>,
    /// Patterns that they may fit if their numbers are right.
    perhaps: Vec<usize>,
}

impl Patterns {
    /// Compiles patterns.
    pub fn new<'a>(patterns: impl IntoIterator<Item = &'a str>) -> Self {
        let patterns: Vec<Pattern> = patterns.into_iter().map(Pattern::new).collect();
        let touchy = (0..patterns.len()).filter(|&index| patterns[index].touches_numbers()).collect();
        Self {
            patterns,
            touchy,
            shapes: HashMap::new(),
            answers: Vec::new(),
            shape: Vec::new(),
            answer: Vec::new(),
        }
    }

    /// Number of the name's shape, and whether all names of the shape fit the same patterns.
    pub fn shape(&mut self, name: &str) -> (usize, bool) {
        self.set_shape(name);
        let place = match self.shapes.get(&self.shape) {
            Some(&place) => place,
            None => self.learn(name),
        };
        (place, self.answers[place].perhaps.is_empty())
    }

    /// Indexes of the patterns that a name fits, ascending.
    pub fn matching(&mut self, name: &str) -> &[usize] {
        let (place, _) = self.shape(name);
        if self.answers[place].perhaps.is_empty() {
            return &self.answers[place].alike;
        }
        let Answer { alike, perhaps } = &self.answers[place];
        let own = perhaps.iter().copied().filter(|&index| self.patterns[index].matches(name));
        self.answer.clear();
        self.answer.extend(alike.iter().copied().chain(own));
        self.answer.sort_unstable();
        &self.answer
    }

    /// Matches a name of a shape that is new, and keeps the answer for all names of that shape.
    fn learn(&mut self, name: &str) -> usize {
        let indifferent = (0..self.patterns.len()).filter(|index| self.touchy.binary_search(index).is_err());
        let alike = indifferent.filter(|&index| self.patterns[index].matches(name)).collect();
        let may_fit = |index: &usize| self.patterns[*index].loosened().matches(name);
        let perhaps = self.touchy.iter().copied().filter(may_fit).collect();
        self.answers.push(Answer { alike, perhaps });
        self.shapes.insert(self.shape.clone(), self.answers.len() - 1);
        self.answers.len() - 1
    }

    /// Makes every number between dots a single digit.
    fn set_shape(&mut self, name: &str) {
        self.shape.clear();
        for part in name.as_bytes().split(|&byte| byte == b'.') {
            if !part.is_empty() && part.iter().all(u8::is_ascii_digit) {
                self.shape.push(b'0');
            } else {
                self.shape.extend_from_slice(part);
            }
            self.shape.push(b'.');
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn agrees_with_one_pattern_at_a_time(
            names in proptest::collection::vec("[ab0-2.]{0,8}", 1..20),
            patterns in proptest::collection::vec("[ab0-2.*?!\\[\\]-]{0,6}", 1..8),
        ) {
            let mut set = Patterns::new(patterns.iter().map(String::as_str));
            for name in &names {
                let one_by_one: Vec<usize> =
                    (0..patterns.len()).filter(|&index| super::super::fnmatch(name, &patterns[index])).collect();
                prop_assert_eq!(set.matching(name), one_by_one);
            }
        }
    }

    #[test]
    fn names_that_differ_in_numbers_share_a_shape() {
        let mut set = Patterns::new(["*mlp*weight_quantizer", "*layers.1.*"]);
        assert_eq!(set.matching("layers.1.mlp.up.weight_quantizer"), [0, 1]);
        assert_eq!(set.matching("layers.12.mlp.up.weight_quantizer"), [0]);
        assert_eq!(set.shapes.len(), 1);
    }

    #[test]
    fn digits_inside_of_words_make_no_pattern_see_each_name() {
        let touchy = |pattern: &str| !Patterns::new([pattern]).touchy.is_empty();
        assert!(!touchy("*linear_attn.conv1d*"));
        assert!(!touchy("*fc1_latent_proj*"));
        assert!(touchy("*layers.1*"));
        assert!(touchy("*.?.mlp*"));
        assert!(touchy("*[!a].mlp*"));
    }
}
