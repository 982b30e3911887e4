//! An observer in the middle of its work as bytes, for another attempt to go on from: every number by its bits.

use std::collections::BTreeMap;

use qlaunch_shared::{Error, Result};

use super::cache::CacheStatistics;
use super::collect::{Collection, Growing};
use super::observe::Observer;
use super::statistics::{InputStatistics, LogHistogram};
use crate::ops::Magnitude;

/// Lowest and highest values of channels.
type Bounds = (Vec<f32>, Vec<f32>);
/// Sums of channels, and tokens.
type Sums = (Vec<f64>, u64);

/// Something that is written as bytes, and read again.
pub(super) trait Frozen: Sized {
    /// Appends it.
    fn put(&self, bytes: &mut Vec<u8>);

    /// Takes it from the front; `None` where the bytes are of something else.
    fn take(bytes: &mut &[u8]) -> Option<Self>;
}

macro_rules! number {
    ($($number:ty),*) => {$(
        impl Frozen for $number {
            fn put(&self, bytes: &mut Vec<u8>) {
                bytes.extend(self.to_le_bytes());
            }

            fn take(bytes: &mut &[u8]) -> Option<Self> {
                let (own, rest) = bytes.split_first_chunk()?;
                *bytes = rest;
                Some(Self::from_le_bytes(*own))
            }
        }
    )*};
}

number!(u8, u64, f32, f64);

/// A structure by its fields; further ones are as in `$rest`.
macro_rules! fields {
    ($own:ident { $($field:ident),* } $(, $rest:expr)?) => {
        impl Frozen for $own {
            fn put(&self, bytes: &mut Vec<u8>) {
                $(self.$field.put(bytes);)*
            }

            fn take(bytes: &mut &[u8]) -> Option<Self> {
                Some(Self { $($field: Frozen::take(bytes)?,)* $(..$rest)? })
            }
        }
    };
}

fields!(Magnitude { amax, nans, infinities });
// Sums are moved there only when all samples were seen.
fields!(InputStatistics { magnitude, tokens }, Self::default());
fields!(LogHistogram { counts });
fields!(Growing { amax, sums, tokens, means, batches });

impl Frozen for Collection {
    fn put(&self, bytes: &mut Vec<u8>) {
        self.readers.put(bytes);
        self.tokens.put(bytes);
        self.channels.put(bytes);
        self.blocks.put(bytes);
    }

    fn take(bytes: &mut &[u8]) -> Option<Self> {
        // Products are large, and nobody freezes them.
        let mut own = Self::new(&Vec::take(bytes)?);
        own.tokens = Frozen::take(bytes)?;
        own.channels = Frozen::take(bytes)?;
        own.blocks = Frozen::take(bytes)?;
        Some(own)
    }
}

impl Frozen for usize {
    fn put(&self, bytes: &mut Vec<u8>) {
        (*self as u64).put(bytes);
    }

    fn take(bytes: &mut &[u8]) -> Option<Self> {
        u64::take(bytes).map(|number| number as Self)
    }
}

impl Frozen for bool {
    fn put(&self, bytes: &mut Vec<u8>) {
        u8::from(*self).put(bytes);
    }

    fn take(bytes: &mut &[u8]) -> Option<Self> {
        u8::take(bytes).map(|byte| byte != 0)
    }
}

impl<A: Frozen, B: Frozen> Frozen for (A, B) {
    fn put(&self, bytes: &mut Vec<u8>) {
        self.0.put(bytes);
        self.1.put(bytes);
    }

    fn take(bytes: &mut &[u8]) -> Option<Self> {
        Some((A::take(bytes)?, B::take(bytes)?))
    }
}

impl<T: Frozen> Frozen for Option<T> {
    fn put(&self, bytes: &mut Vec<u8>) {
        self.is_some().put(bytes);
        self.iter().for_each(|own| own.put(bytes));
    }

    fn take(bytes: &mut &[u8]) -> Option<Self> {
        match bool::take(bytes)? {
            true => T::take(bytes).map(Some),
            false => Some(None),
        }
    }
}

impl<T: Frozen> Frozen for Vec<T> {
    fn put(&self, bytes: &mut Vec<u8>) {
        self.len().put(bytes);
        self.iter().for_each(|own| own.put(bytes));
    }

    fn take(bytes: &mut &[u8]) -> Option<Self> {
        (0..usize::take(bytes)?).map(|_| T::take(bytes)).collect()
    }
}

impl<K: Frozen + Ord, V: Frozen> Frozen for BTreeMap<K, V> {
    fn put(&self, bytes: &mut Vec<u8>) {
        self.len().put(bytes);
        for (key, value) in self {
            key.put(bytes);
            value.put(bytes);
        }
    }

    fn take(bytes: &mut &[u8]) -> Option<Self> {
        (0..usize::take(bytes)?).map(|_| Frozen::take(bytes)).collect()
    }
}

impl Frozen for CacheStatistics {
    fn put(&self, bytes: &mut Vec<u8>) {
        self.magnitude.put(bytes);
        let channels = self.channels();
        let owned = channels
            .map(|(low, high, sums, tokens)| ((low.to_vec(), high.to_vec()), (sums.to_vec(), tokens)));
        owned.put(bytes);
    }

    fn take(bytes: &mut &[u8]) -> Option<Self> {
        let magnitude = Frozen::take(bytes)?;
        let channels: Option<(Bounds, Sums)> = Frozen::take(bytes)?;
        Some(Self::of(magnitude, channels.map(|((low, high), (sums, tokens))| (low, high, sums, tokens))))
    }
}

impl Observer {
    /// What was seen so far, where no products are among it.
    pub fn freeze(&self) -> Vec<u8> {
        let (own, mut bytes) = (&self.statistics, Vec::new());
        own.inputs.put(&mut bytes);
        own.keys.put(&mut bytes);
        own.values.put(&mut bytes);
        own.routed.put(&mut bytes);
        self.growing.put(&mut bytes);
        bytes
    }

    /// Goes on from what another observer of the same inputs saw.
    ///
    /// # Errors
    /// The bytes are of something else.
    pub fn thaw(&mut self, mut bytes: &[u8]) -> Result<()> {
        let torn = || Error::bug("what was observed before is torn");
        let bytes = &mut bytes;
        let own = &mut self.statistics;
        own.inputs = Frozen::take(bytes).ok_or_else(torn)?;
        own.keys = Frozen::take(bytes).ok_or_else(torn)?;
        own.values = Frozen::take(bytes).ok_or_else(torn)?;
        own.routed = Frozen::take(bytes).ok_or_else(torn)?;
        self.growing = Frozen::take(bytes).ok_or_else(torn)?;
        if bytes.is_empty() { Ok(()) } else { Err(torn()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_frozen_is_the_same_to_the_bit() {
        let magnitude = Magnitude { amax: -0.0, nans: 3, infinities: u64::MAX };
        let cache = CacheStatistics::of(
            magnitude,
            Some((vec![f32::NEG_INFINITY], vec![f32::MIN_POSITIVE], vec![f64::NAN, -0.0], 7)),
        );
        let mut bytes = Vec::new();
        cache.put(&mut bytes);
        let mut rest = &bytes[..];
        let mut again = Vec::new();
        CacheStatistics::take(&mut rest).unwrap().put(&mut again);
        assert!(rest.is_empty() && again == bytes);
        for cut in 0..bytes.len() {
            assert!(CacheStatistics::take(&mut &bytes[..cut]).is_none(), "{cut}");
        }
    }
}
