//! Python's `fnmatch`: the patterns that recipes name quantizers with.
//!
//! `*` crosses dots, `?` is any one character, `[seq]` and `[!seq]` are sets with ranges; case matters; a pattern
//! covers the whole name. Stars cut a pattern into segments that are found leftmost one after the other, so a match
//! takes at most name length × pattern length steps whatever the pattern.

/// Whether a name fits a pattern. Compile a [`Pattern`] where one pattern meets many names.
pub fn fnmatch(name: &str, pattern: &str) -> bool {
    Pattern::new(pattern).matches(name)
}

/// A compiled pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    /// What stands between stars; without stars there is one segment.
    segments: Vec<Segment>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Segment {
    Literal(String),
    Tokens(Vec<Token>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Char(char),
    Any,
    Set { negated: bool, ranges: Vec<(char, char)> },
}

impl Pattern {
    /// Compiles a pattern; every text is a pattern.
    pub fn new(pattern: &str) -> Self {
        let chars: Vec<char> = pattern.chars().collect();
        let mut segments = vec![Vec::new()];
        let mut at = 0;
        while let Some(&c) = chars.get(at) {
            at += 1;
            let token = match c {
                '*' => {
                    segments.push(Vec::new());
                    continue;
                }
                '?' => Token::Any,
                '[' => match closing_bracket(&chars, at) {
                    Some(end) => {
                        let set = set(&chars[at..end]);
                        at = end + 1;
                        set
                    }
                    None => Token::Char('['),
                },
                c => Token::Char(c),
            };
            if let Some(segment) = segments.last_mut() {
                segment.push(token);
            }
        }
        Self { segments: segments.into_iter().map(Segment::new).collect() }
    }

    /// Whether anything in it but a star can stand for a digit of a number that is a part of a name by itself, as in
    /// `layers.12.mlp`. The digit of `conv1d` cannot.
    pub(super) fn touches_numbers(&self) -> bool {
        self.segments.iter().any(|segment| match segment {
            Segment::Literal(literal) => {
                touch_numbers(&literal.chars().map(Token::Char).collect::<Vec<Token>>())
            }
            Segment::Tokens(tokens) => touch_numbers(tokens),
        })
    }

    /// The pattern with a star for everything that may stand for a digit of such a number: it fits whatever this one
    /// fits, and more.
    pub(super) fn loosened(&self) -> Self {
        let mut segments = Vec::new();
        for segment in &self.segments {
            let tokens = match segment {
                Segment::Literal(literal) => literal.chars().map(Token::Char).collect(),
                Segment::Tokens(tokens) => tokens.clone(),
            };
            let mut open = Vec::new();
            for token in tokens {
                if ('0'..='9').any(|digit| token.fits(digit)) {
                    segments.push(Segment::new(std::mem::take(&mut open)));
                } else {
                    open.push(token);
                }
            }
            segments.push(Segment::new(open));
        }
        Self { segments }
    }

    /// The one number between dots that the pattern names, and the pattern with a mark in its place; `None` where
    /// anything else in it may be a digit, a letter beside it or not.
    pub(super) fn only_number(&self, mark: char) -> Option<(String, Self)> {
        let may_be_digit = |token: &Token| ('0'..='9').any(|digit| token.fits(digit));
        let mut marked = self.clone();
        let mut number = None;
        for segment in &mut marked.segments {
            match segment {
                Segment::Tokens(tokens) if tokens.iter().any(may_be_digit) => return None,
                Segment::Literal(literal) if literal.contains(mark) => return None,
                Segment::Literal(literal) if literal.contains(|c: char| c.is_ascii_digit()) => {
                    let start = literal.find(|c: char| c.is_ascii_digit())?;
                    let digits = literal[start..].bytes().take_while(u8::is_ascii_digit).count();
                    let (before, behind) = (&literal[..start], &literal[start + digits..]);
                    let is_whole = before.ends_with('.') && behind.starts_with('.');
                    if !is_whole || behind.contains(|c: char| c.is_ascii_digit()) || number.is_some() {
                        return None;
                    }
                    number = Some(literal[start..start + digits].to_owned());
                    *literal = format!("{before}{mark}{behind}");
                }
                Segment::Tokens(_) | Segment::Literal(_) => {}
            }
        }
        Some((number?, marked))
    }

    /// The text itself, where nothing in it stands for anything else.
    pub fn literal(&self) -> Option<&str> {
        match self.segments.as_slice() {
            [Segment::Literal(literal)] => Some(literal),
            _ => None,
        }
    }

    /// Whether a name fits.
    pub fn matches(&self, name: &str) -> bool {
        let Some((first, others)) = self.segments.split_first() else {
            return name.is_empty();
        };
        let Some(mut rest) = first.strip_from(name) else {
            return false;
        };
        let Some((last, middle)) = others.split_last() else {
            return rest.is_empty();
        };
        // The last segment is anchored at the end, so it is taken off before the middle ones look for room.
        let Some(tail) = last.cut_from_end(rest) else {
            return false;
        };
        rest = &rest[..tail];
        middle.iter().all(|segment| match segment.find_in(rest) {
            Some(end) => {
                rest = &rest[end..];
                true
            }
            None => false,
        })
    }
}

impl Segment {
    fn new(tokens: Vec<Token>) -> Self {
        let literal = tokens.iter().map(|token| match token {
            Token::Char(c) => Some(*c),
            Token::Any | Token::Set { .. } => None,
        });
        match literal.collect() {
            Some(text) => Self::Literal(text),
            None => Self::Tokens(tokens),
        }
    }

    /// What is left of a text behind this segment, if the text starts with it.
    fn strip_from<'a>(&self, text: &'a str) -> Option<&'a str> {
        match self {
            Self::Literal(literal) => text.strip_prefix(literal.as_str()),
            Self::Tokens(tokens) => {
                let mut chars = text.chars();
                let fits = tokens.iter().all(|token| chars.next().is_some_and(|c| token.fits(c)));
                fits.then_some(chars.as_str())
            }
        }
    }

    /// Where this segment starts, if the text ends with it.
    fn cut_from_end(&self, text: &str) -> Option<usize> {
        match self {
            Self::Literal(literal) => text.ends_with(literal.as_str()).then(|| text.len() - literal.len()),
            Self::Tokens(tokens) => {
                let mut chars = text.chars();
                let fits = tokens.iter().rev().all(|token| chars.next_back().is_some_and(|c| token.fits(c)));
                fits.then_some(chars.as_str().len())
            }
        }
    }

    /// Where the leftmost occurrence of this segment ends.
    fn find_in(&self, text: &str) -> Option<usize> {
        match self {
            Self::Literal(literal) => end_of(text, literal),
            Self::Tokens(_) => text
                .char_indices()
                .find_map(|(start, _)| self.strip_from(&text[start..]).map(|rest| text.len() - rest.len())),
        }
    }
}

/// Where the leftmost occurrence of a literal ends. Names are short and each is looked at once, so that the preparations of
/// `str::find` take longer than the search itself.
fn end_of(text: &str, literal: &str) -> Option<usize> {
    let Some((&first, rest)) = literal.as_bytes().split_first() else { return Some(0) };
    let text = text.as_bytes();
    let mut from = 0;
    loop {
        let behind = from + text[from..].iter().position(|&byte| byte == first)? + 1;
        if text[behind..].starts_with(rest) {
            return Some(behind + rest.len());
        }
        from = behind;
    }
}

/// Whether a digit may stand where no letter stands beside it.
fn touch_numbers(tokens: &[Token]) -> bool {
    let is_letter =
        |token: Option<&Token>| matches!(token, Some(Token::Char(c)) if !c.is_ascii_digit() && *c != '.');
    tokens.iter().enumerate().any(|(at, token)| {
        let before = at.checked_sub(1).and_then(|at| tokens.get(at));
        ('0'..='9').any(|digit| token.fits(digit)) && !is_letter(before) && !is_letter(tokens.get(at + 1))
    })
}

impl Token {
    fn fits(&self, c: char) -> bool {
        match self {
            Self::Char(own) => *own == c,
            Self::Any => true,
            Self::Set { negated, ranges } => {
                ranges.iter().any(|(low, high)| (*low..=*high).contains(&c)) != *negated
            }
        }
    }
}

/// The bracket that ends a set whose content starts at `start`; a bracket in first place belongs to the set.
fn closing_bracket(chars: &[char], start: usize) -> Option<usize> {
    let mut from = start;
    if chars.get(from) == Some(&'!') {
        from += 1;
    }
    if chars.get(from) == Some(&']') {
        from += 1;
    }
    (from..chars.len()).find(|&at| chars[at] == ']')
}

/// A set; a range that runs backwards holds nothing, and a hyphen at either end stands for itself.
fn set(content: &[char]) -> Token {
    let (negated, mut rest) = match content.split_first() {
        Some(('!', rest)) => (true, rest),
        _ => (false, content),
    };
    let mut ranges = Vec::new();
    let mut starts_alone = false;
    while let Some((&first, others)) = rest.split_first() {
        rest = match others {
            ['-', last, others @ ..] => {
                if first <= *last {
                    ranges.push((first, *last));
                }
                others
            }
            _ => {
                starts_alone |= ranges.is_empty();
                ranges.push((first, first));
                others
            }
        };
    }
    match ranges.first() {
        // Python drops backward ranges first and looks for the mark of negation then, so `[b-a!x]` is `[!x]`,
        // and of a range that starts with the mark its hyphen and its end are left: `[b-a!-z]` is `[!-z]`.
        Some(&('!', last)) if !negated => {
            let others = ranges.split_off(1);
            let ends = if starts_alone { vec![] } else { vec![('-', '-'), (last, last)] };
            Token::Set { negated: true, ranges: ends.into_iter().chain(others).collect() }
        }
        _ => Token::Set { negated, ranges },
    }
}

#[cfg(test)]
#[path = "fnmatch_tests.rs"]
mod tests;
