//! A field as its author left it: not mentioned, `null`, or set.
//!
//! ModelOpt tells "axis: null" from no axis at all when it prints a recipe, and so do we.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A field that may be left out, be `null`, or hold a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Field<T> {
    /// Not mentioned.
    #[default]
    Unset,
    /// Explicitly `null`.
    Null,
    /// Set to a value.
    Set(T),
}

impl<T> Field<T> {
    /// Whether it was not mentioned.
    pub const fn is_unset(&self) -> bool {
        matches!(self, Self::Unset)
    }

    /// The value, if there is one.
    pub const fn value(&self) -> Option<&T> {
        match self {
            Self::Set(value) => Some(value),
            Self::Unset | Self::Null => None,
        }
    }

    /// A function of the value, or what stands for its absence.
    pub fn map_or<U>(&self, absent: U, of: impl FnOnce(&T) -> U) -> U {
        self.value().map_or(absent, of)
    }
}

impl<T: Serialize> Serialize for Field<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.value().serialize(serializer)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Field<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Option::deserialize(deserializer).map(|value| value.map_or(Self::Null, Self::Set))
    }
}

/// For optional fields that may be left out but not be `null`.
pub(crate) fn given<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}
