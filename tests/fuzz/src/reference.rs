//! A slow matcher that follows CPython's `fnmatch.translate` step by step, and shares no code with ours.
//!
//! Sets are cut at hyphens, backward ranges are dropped and the rest is joined to the inside of a regular expression's
//! brackets, as CPython does; matching fills the whole table of (prefix of the pattern, prefix of the name).

/// One step of a pattern.
#[derive(Debug, Clone)]
enum Step {
    Star,
    One(Class),
}

/// What one character may be.
#[derive(Debug, Clone)]
enum Class {
    Any,
    None,
    Literal(char),
    Set { negated: bool, ranges: Vec<(char, char)> },
}

impl Class {
    fn holds(&self, c: char) -> bool {
        match self {
            Self::Any => true,
            Self::None => false,
            Self::Literal(own) => *own == c,
            Self::Set { negated, ranges } => {
                ranges.iter().any(|&(low, high)| low <= c && c <= high) != *negated
            }
        }
    }
}

/// Whether a name fits a pattern, in time and memory of name length × pattern length.
pub fn fits(name: &str, pattern: &str) -> bool {
    let name: Vec<char> = name.chars().collect();
    let mut reached = vec![false; name.len() + 1];
    reached[0] = true;
    for step in steps(pattern) {
        let mut next = vec![false; name.len() + 1];
        match step {
            Step::Star => {
                let mut any = false;
                for (at, before) in reached.iter().enumerate() {
                    any |= *before;
                    next[at] = any;
                }
            }
            Step::One(class) => {
                for at in 0..name.len() {
                    next[at + 1] = reached[at] && class.holds(name[at]);
                }
            }
        }
        reached = next;
    }
    reached[name.len()]
}

fn steps(pattern: &str) -> Vec<Step> {
    let pattern: Vec<char> = pattern.chars().collect();
    let mut steps = Vec::new();
    let mut i = 0;
    while i < pattern.len() {
        let c = pattern[i];
        i += 1;
        match c {
            '*' => steps.push(Step::Star),
            '?' => steps.push(Step::One(Class::Any)),
            '[' => {
                let mut j = i;
                if j < pattern.len() && pattern[j] == '!' {
                    j += 1;
                }
                if j < pattern.len() && pattern[j] == ']' {
                    j += 1;
                }
                while j < pattern.len() && pattern[j] != ']' {
                    j += 1;
                }
                if j >= pattern.len() {
                    steps.push(Step::One(Class::Literal('[')));
                } else {
                    steps.push(Step::One(class(&pattern, i, j)));
                    i = j + 1;
                }
            }
            c => steps.push(Step::One(Class::Literal(c))),
        }
    }
    steps
}

/// A hyphen that makes a range is told apart from one that stands for itself, which CPython does with a backslash.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Inside {
    Char(char),
    To,
}

/// The set in `pattern[i..j]`; follows the branch for `[` of `fnmatch.translate`.
fn class(pattern: &[char], i: usize, j: usize) -> Class {
    let find = |from: usize| (from..j).find(|&at| pattern[at] == '-');
    let mut inside: Vec<Inside> = Vec::new();
    if find(i).is_none() {
        inside.extend(pattern[i..j].iter().copied().map(Inside::Char));
    } else {
        let mut chunks: Vec<Vec<char>> = Vec::new();
        let (mut start, mut k) = (i, if pattern[i] == '!' { i + 2 } else { i + 1 });
        while let Some(hyphen) = find(k) {
            chunks.push(pattern[start..hyphen].to_vec());
            start = hyphen + 1;
            k = hyphen + 3;
        }
        let last = pattern[start..j].to_vec();
        if last.is_empty() {
            if let Some(chunk) = chunks.last_mut() {
                chunk.push('-');
            }
        } else {
            chunks.push(last);
        }
        // Backward ranges are dropped, from the last to the first.
        for k in (1..chunks.len()).rev() {
            if chunks[k - 1].last() > chunks[k].first() {
                let tail = chunks[k].split_off(1);
                chunks[k - 1].pop();
                chunks[k - 1].extend(tail);
                chunks.remove(k);
            }
        }
        for (at, chunk) in chunks.iter().enumerate() {
            if at > 0 {
                inside.push(Inside::To);
            }
            inside.extend(chunk.iter().copied().map(Inside::Char));
        }
    }
    match inside.as_slice() {
        [] => Class::None,
        [Inside::Char('!')] => Class::Any,
        [Inside::Char('!'), rest @ ..] => Class::Set { negated: true, ranges: ranges(rest) },
        all => Class::Set { negated: false, ranges: ranges(all) },
    }
}

/// How a regular expression reads the inside of its brackets.
fn ranges(mut inside: &[Inside]) -> Vec<(char, char)> {
    let mut ranges = Vec::new();
    while let Some((&first, others)) = inside.split_first() {
        inside = match (first, others) {
            (Inside::Char(low), [Inside::To, Inside::Char(high), rest @ ..]) => {
                ranges.push((low, *high));
                rest
            }
            (Inside::Char(c), _) => {
                ranges.push((c, c));
                others
            }
            // At an end of the brackets a hyphen stands for itself.
            (Inside::To, _) => {
                ranges.push(('-', '-'));
                others
            }
        };
    }
    ranges
}
