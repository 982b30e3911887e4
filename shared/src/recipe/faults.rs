//! Everything that is wrong with a recipe, not only the first thing: a person mends a file in one go.

use crate::Error;

/// So many are enough for a person, and keep a hostile file from being costly.
pub(super) const ENOUGH: usize = 100;

/// What is wrong, in the order of the file; empty where the cause stands in another report already.
#[derive(Debug, Default)]
pub(super) struct Faults(Vec<Error>);

/// A value, or everything that keeps it from being one.
pub(super) type Checked<T> = Result<T, Faults>;

impl Faults {
    /// Puts a step in front of the key of each.
    #[must_use]
    pub fn within(self, step: &str) -> Self {
        Self(self.0.into_iter().map(|error| within(error, step)).collect())
    }

    /// Puts the failed aim in front of each message.
    #[must_use]
    pub fn context(self, aim: &str) -> Self {
        Self(self.0.into_iter().map(|error| error.context(aim)).collect())
    }

    /// Whether there are so many that looking further helps nobody.
    pub const fn are_enough(&self) -> bool {
        self.0.len() >= ENOUGH
    }

    /// Keeps what is wrong and hands on what is not, so that siblings are looked at too.
    pub fn keep<T>(&mut self, outcome: Result<T, impl Into<Self>>) -> Option<T> {
        match outcome {
            Ok(value) => Some(value),
            Err(faults) => {
                let room = ENOUGH.saturating_sub(self.0.len());
                self.0.extend(faults.into().0.into_iter().take(room));
                None
            }
        }
    }

    /// The value if nothing was wrong.
    pub fn unless_any<T>(self, value: T) -> Checked<T> {
        if self.0.is_empty() { Ok(value) } else { Err(self) }
    }

    /// The first one, for whoever can tell but one.
    pub fn first(self) -> Error {
        self.0.into_iter().next().unwrap_or_else(|| Error::bug("something is wrong, but nobody said what"))
    }

    /// All of them, each once.
    pub fn into_list(self) -> Vec<Error> {
        let mut list: Vec<Error> = Vec::with_capacity(self.0.len());
        for error in self.0 {
            if !list.contains(&error) {
                list.push(error);
            }
        }
        list
    }
}

impl From<Error> for Faults {
    fn from(error: Error) -> Self {
        Self(vec![error])
    }
}

/// Puts a step in front of the key of an error.
pub(super) fn within(mut error: Error, step: &str) -> Error {
    error.place.key = Some(match error.place.key.take().filter(|key| !key.is_empty()) {
        Some(key) => format!("{step}.{key}"),
        None => step.to_owned(),
    });
    error
}
