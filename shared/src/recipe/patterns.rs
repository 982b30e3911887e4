//! Many patterns against many names at once.
//!
//! The names of a large model differ mostly in layer and expert numbers, and most patterns cannot touch those except
//! with a star. For those patterns all names of one shape (each number between dots made one) fare alike, so a shape is
//! matched once: the hundred thousand names of a mixture of experts have a few dozen shapes. Of the others most name one
//! number, as `*layers.0.mlp*` does, and ask a name of a known shape for nothing but that number.

use std::collections::HashMap;
use std::ops::Range;

use super::fnmatch::Pattern;

/// Patterns, compiled, with what is known about shapes of names so far.
#[derive(Debug)]
pub struct Patterns {
    patterns: Vec<Pattern>,
    /// The patterns that may touch numbers.
    touchy: Vec<Touchy>,
    /// Where in `answers` a shape's answer is.
    shapes: HashMap<Vec<u8>, usize, foldhash::fast::RandomState>,
    answers: Vec<Answer>,
    /// Room for the shape at hand, the numbers in its name, and the answer to it.
    shape: Vec<u8>,
    numbers: Vec<Range<usize>>,
    fits: Vec<usize>,
}

/// What the patterns have to say about one name.
#[derive(Debug)]
pub struct Look<'a> {
    /// Number of the name's shape.
    pub shape: usize,
    /// Whether all names of the shape fit the same patterns.
    pub is_alike: bool,
    /// Indexes of the patterns that the name fits, ascending.
    pub fits: &'a [usize],
}

/// A pattern that may touch numbers.
#[derive(Debug)]
struct Touchy {
    index: usize,
    /// Where it names one whole number and nothing else that may be a digit: that number, and the pattern with
    /// [`MARK`] in its place.
    number: Option<(String, Pattern)>,
}

/// What is known about all names of a shape.
#[derive(Debug)]
struct Answer {
    /// Patterns that they fit, whatever their numbers.
    alike: Vec<usize>,
    /// Patterns that they fit if their numbers are right.
    perhaps: Vec<Perhaps>,
}

/// A pattern that names of a shape may fit.
#[derive(Debug)]
struct Perhaps {
    /// Index into the touchy patterns.
    touchy: usize,
    /// Which of a name's numbers must be the pattern's own, any of them; `None` where the pattern itself must be asked.
    places: Option<Vec<usize>>,
}

/// Stands for a number that a pattern names.
const MARK: char = '\u{1}';

impl Patterns {
    /// Compiles patterns.
    pub fn new<'a>(patterns: impl IntoIterator<Item = &'a str>) -> Self {
        let patterns: Vec<Pattern> = patterns.into_iter().map(Pattern::new).collect();
        let touchy = patterns.iter().enumerate().filter(|(_, pattern)| pattern.touches_numbers());
        let touchy = touchy.map(|(index, pattern)| Touchy { index, number: pattern.only_number(MARK) });
        Self {
            touchy: touchy.collect(),
            patterns,
            shapes: HashMap::default(),
            answers: Vec::new(),
            shape: Vec::new(),
            numbers: Vec::new(),
            fits: Vec::new(),
        }
    }

    /// Looks a name up.
    pub fn look(&mut self, name: &str) -> Look<'_> {
        self.set_shape(name);
        let shape = match self.shapes.get(&self.shape) {
            Some(&shape) => shape,
            None => self.learn(name),
        };
        let Answer { alike, perhaps } = &self.answers[shape];
        if perhaps.is_empty() {
            return Look { shape, is_alike: true, fits: alike };
        }
        let own = perhaps.iter().filter_map(|perhaps| {
            let Touchy { index, number } = &self.touchy[perhaps.touchy];
            let fits = match (&perhaps.places, number) {
                (Some(places), Some((number, _))) => {
                    places.iter().any(|&place| name[self.numbers[place].clone()] == **number)
                }
                _ => self.patterns[*index].matches(name),
            };
            fits.then_some(*index)
        });
        self.fits.clear();
        self.fits.extend(alike.iter().copied().chain(own));
        self.fits.sort_unstable();
        Look { shape, is_alike: false, fits: &self.fits }
    }

    /// Matches a name of a shape that is new, and keeps the answer for all names of that shape.
    fn learn(&mut self, name: &str) -> usize {
        let is_touchy =
            |index: &usize| self.touchy.binary_search_by_key(index, |touchy| touchy.index).is_ok();
        let indifferent = (0..self.patterns.len()).filter(|index| !is_touchy(index));
        let alike = indifferent.filter(|&index| self.patterns[index].matches(name)).collect();
        let marked: Vec<String> = self
            .numbers
            .iter()
            .map(|number| format!("{}{MARK}{}", &name[..number.start], &name[number.end..]))
            .collect();
        let perhaps = self.touchy.iter().enumerate().filter_map(|(touchy, Touchy { index, number })| {
            let Some((_, pattern)) = number.as_ref().filter(|_| !name.contains(MARK)) else {
                let may_fit = self.patterns[*index].loosened().matches(name);
                return may_fit.then_some(Perhaps { touchy, places: None });
            };
            let places: Vec<usize> =
                (0..marked.len()).filter(|&place| pattern.matches(&marked[place])).collect();
            (!places.is_empty()).then_some(Perhaps { touchy, places: Some(places) })
        });
        self.answers.push(Answer { alike, perhaps: perhaps.collect() });
        self.shapes.insert(self.shape.clone(), self.answers.len() - 1);
        self.answers.len() - 1
    }

    /// Makes every number between dots a single digit, and notes where they are.
    fn set_shape(&mut self, name: &str) {
        self.shape.clear();
        self.numbers.clear();
        let mut start = 0;
        for part in name.as_bytes().split(|&byte| byte == b'.') {
            if !part.is_empty() && part.iter().all(u8::is_ascii_digit) {
                self.shape.push(b'0');
                self.numbers.push(start..start + part.len());
            } else {
                self.shape.extend_from_slice(part);
            }
            self.shape.push(b'.');
            start += part.len() + 1;
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
                prop_assert_eq!(set.look(name).fits.to_vec(), one_by_one);
            }
        }
    }

    #[test]
    fn names_that_differ_in_numbers_share_a_shape() {
        let mut set = Patterns::new(["*mlp*weight_quantizer", "*layers.1.*"]);
        assert_eq!(set.look("layers.1.mlp.up.weight_quantizer").fits, [0, 1]);
        assert_eq!(set.look("layers.12.mlp.up.weight_quantizer").fits, [0]);
        assert_eq!(set.shapes.len(), 1);
    }

    #[test]
    fn a_number_that_a_pattern_names_may_stand_in_several_places() {
        let mut set = Patterns::new(["*layers.1.*", "*.1.*", "*s.1.e.2.*"]);
        assert_eq!(set.look("layers.1.experts.2.up").fits, [0, 1]);
        assert_eq!(set.look("layers.2.experts.1.up").fits, [1]);
        assert_eq!(set.look("layers.12.experts.11.up").fits, [0usize; 0]);
        assert_eq!(set.look("layers.1.e.2.up").fits, [0, 1, 2]);
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
