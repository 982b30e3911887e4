//! What becomes of each quantizer: a recipe's entries applied in order (modelopt.md §2.2), once for all quantizers that
//! the same entries reach.

use std::collections::HashMap;
use std::sync::Arc;

use super::names::without_index;
use super::quantizers::{SEATS, Seat};
use crate::numerics::{QuantizerAttributes, Rotate};
use crate::recipe::{Patterns, QuantizerCfg, QuantizerEntry};

/// Ends one list of entries in a key and starts the next.
const SEPARATOR: u32 = u32::MAX;

/// Entries, and the fates that they have dealt so far.
#[derive(Debug)]
pub(super) struct Fates<'a> {
    entries: &'a [QuantizerEntry],
    patterns: Patterns,
    /// Quantizers of the longest sequence that an entry makes; 0 where none does.
    longest: usize,
    known: HashMap<Vec<u32>, u32, foldhash::fast::RandomState>,
    /// Per shape of names and seat the one fate of all such quantizers, where numbers in names do not matter.
    by_shape: Vec<[Option<u32>; SEATS]>,
    fates: Vec<Fate>,
    key: Vec<u32>,
    child: String,
}

/// The final state of all quantizers of one seat that the same entries reach.
#[derive(Debug)]
pub(super) struct Fate {
    /// What sort of quantizers they are.
    pub(super) seat: Seat,
    /// Whether they quantize.
    pub(super) enabled: bool,
    /// One for a plain quantizer, several for a sequence.
    pub(super) attributes: Arc<[QuantizerAttributes]>,
    /// Entries that reach them.
    reached: Vec<u32>,
    /// How many quantizers there are.
    count: usize,
}

/// A quantizer, or a sequence of them, while entries are applied.
#[derive(Debug, Clone, PartialEq)]
enum Node {
    One { enabled: bool, attributes: Box<QuantizerAttributes> },
    Many(Vec<Node>),
}

impl<'a> Fates<'a> {
    pub(super) fn new(entries: &'a [QuantizerEntry]) -> Self {
        let lengths = entries.iter().map(|entry| match &entry.cfg {
            QuantizerCfg::Many(sequence) => sequence.len(),
            QuantizerCfg::None | QuantizerCfg::One(_) => 0,
        });
        Self {
            entries,
            patterns: Patterns::new(entries.iter().map(|entry| entry.quantizer_name.as_str())),
            longest: lengths.max().unwrap_or(0),
            known: HashMap::default(),
            by_shape: Vec::new(),
            fates: Vec::new(),
            key: Vec::new(),
            child: String::new(),
        }
    }

    /// Index of the fate of the quantizer of this name, which counts as one more.
    pub(super) fn of(&mut self, seat: Seat, name: &str) -> u32 {
        let look = self.patterns.look(name);
        let (shape, mut is_alike) = (look.shape, look.is_alike);
        if self.by_shape.len() <= shape {
            self.by_shape.resize(shape + 1, [None; SEATS]);
        }
        let index = match self.by_shape[shape][seat as usize] {
            Some(index) => index,
            None => {
                let index = self.work_out(seat, name, &mut is_alike);
                self.by_shape[shape][seat as usize] = is_alike.then_some(index);
                index
            }
        };
        self.fates[index as usize].count += 1;
        index
    }

    /// Finds the fate by all entries that reach the name; `is_alike` stays set if all names of its shape have it.
    fn work_out(&mut self, seat: Seat, name: &str, is_alike: &mut bool) -> u32 {
        let mut key = std::mem::take(&mut self.key);
        key.clear();
        key.push(seat as u32);
        *is_alike &= self.reach(name, seat.class(), &mut key);
        let is_sequence = |index: &u32| {
            let entry = usize::try_from(*index).ok().and_then(|index| self.entries.get(index));
            entry.is_some_and(|entry| matches!(entry.cfg, QuantizerCfg::Many(_)))
        };
        if self.longest > 0 && key[1..].iter().any(is_sequence) {
            let mut child = std::mem::take(&mut self.child);
            for index in 0..self.longest {
                key.push(SEPARATOR);
                child.clear();
                child.push_str(name);
                child.push('.');
                child.push_str(&index.to_string());
                // The parent of a child is a sequence, which is of no class that a recipe can name.
                *is_alike &= self.reach(&child, None, &mut key);
            }
            self.child = child;
        }
        let index = match self.known.get(&key) {
            Some(&index) => index,
            None => {
                let index = self.fates.len() as u32;
                self.fates.push(self.deal(seat, &key[1..]));
                self.known.insert(key.clone(), index);
                index
            }
        };
        self.key = key;
        index
    }

    pub(super) fn get(&self, index: u32) -> &Fate {
        &self.fates[index as usize]
    }

    /// How many quantizers each entry reached.
    pub(super) fn counts(&self) -> Vec<usize> {
        let mut counts = vec![0; self.entries.len()];
        for fate in &self.fates {
            for &entry in &fate.reached {
                counts[entry as usize] += fate.count;
            }
        }
        counts
    }

    /// Appends the indexes of the entries that reach a name, ascending. Returns whether numbers in it do not matter.
    fn reach(&mut self, name: &str, class: Option<&str>, key: &mut Vec<u32>) -> bool {
        let start = key.len();
        let entries = self.entries;
        let in_class =
            |index: &usize| entries[*index].parent_class.as_deref().is_none_or(|own| class == Some(own));
        let look = self.patterns.look(name);
        let mut is_alike = look.is_alike;
        key.extend(look.fits.iter().copied().filter(in_class).map(|index| index as u32));
        // Names end with what quantizers are called, or with an index into a list of them.
        let is_listed = name.bytes().next_back().is_some_and(|byte| byte.is_ascii_digit());
        if let Some(plain) = is_listed.then(|| without_index(name)).flatten() {
            let look = self.patterns.look(&plain);
            is_alike &= look.is_alike;
            key.extend(look.fits.iter().copied().filter(in_class).map(|index| index as u32));
            key[start..].sort_unstable();
            let mut last = start;
            for at in start..key.len() {
                if at == start || key[at] != key[last - 1] {
                    key[last] = key[at];
                    last += 1;
                }
            }
            key.truncate(last);
        }
        is_alike
    }

    /// Applies the entries of a key in order.
    fn deal(&self, seat: Seat, key: &[u32]) -> Fate {
        let mut lists = key.split(|&index| index == SEPARATOR);
        let own = lists.next().unwrap_or(&[]);
        let children: Vec<&[u32]> = lists.collect();
        let mut node = Node::One { enabled: seat.starts_enabled(), attributes: Box::new(seat.starts_with()) };
        for (index, entry) in self.entries.iter().enumerate() {
            let holds = |list: &[u32]| list.binary_search(&(index as u32)).is_ok();
            // ModelOpt walks on into the children of a sequence that was there before the entry, whatever the entry did
            // to it; grandchildren have no codec, so names of theirs are not followed.
            let was_sequence = matches!(node, Node::Many(_));
            if holds(own) {
                node.apply(entry);
            }
            if let Node::Many(parts) = &mut node
                && was_sequence
            {
                for (part, list) in parts.iter_mut().zip(&children) {
                    if holds(list) {
                        part.apply(entry);
                    }
                }
            }
        }
        let enabled = seat.can_be_enabled() && node.is_enabled();
        let mut attributes = Vec::new();
        node.leaves(enabled, &mut attributes);
        Fate { seat, enabled, attributes: attributes.into(), reached: own.to_vec(), count: 0 }
    }
}

impl Node {
    /// A configuration replaces the whole state; without one, only the switch is set.
    fn apply(&mut self, entry: &QuantizerEntry) {
        let one = |attributes: &QuantizerAttributes| Self::One {
            enabled: entry.enable,
            attributes: Box::new(attributes.clone()),
        };
        match (&entry.cfg, &mut *self) {
            (QuantizerCfg::None, _) => self.switch(entry.enable),
            (QuantizerCfg::One(attributes), _) => *self = one(attributes),
            (QuantizerCfg::Many(sequence), Self::One { .. }) => {
                *self = Self::Many(sequence.iter().map(one).collect());
            }
            (QuantizerCfg::Many(sequence), Self::Many(parts)) => {
                for (part, attributes) in parts.iter_mut().zip(sequence) {
                    part.set(&one(attributes));
                }
            }
        }
    }

    /// Attributes given to a sequence are given to each of its parts.
    fn set(&mut self, leaf: &Self) {
        match self {
            Self::One { .. } => *self = leaf.clone(),
            Self::Many(parts) => parts.iter_mut().for_each(|part| part.set(leaf)),
        }
    }

    fn switch(&mut self, enable: bool) {
        match self {
            Self::One { enabled, attributes } => {
                *enabled = enable;
                // ModelOpt's switch takes the rotation off too; only `{cfg: {rotate}, enable: false}` keeps it.
                if !enable && attributes.rotate.is_some() {
                    attributes.rotate = Some(Rotate::Switch(false));
                }
            }
            Self::Many(parts) => parts.iter_mut().for_each(|part| part.switch(enable)),
        }
    }

    fn is_enabled(&self) -> bool {
        match self {
            Self::One { enabled, .. } => *enabled,
            Self::Many(parts) => parts.iter().any(Self::is_enabled),
        }
    }

    /// Attributes in order of application: those that are on, or all of a quantizer that is off.
    fn leaves(&self, only_enabled: bool, found: &mut Vec<QuantizerAttributes>) {
        match self {
            Self::One { enabled, attributes } if *enabled || !only_enabled => {
                found.push((**attributes).clone())
            }
            Self::One { .. } => {}
            Self::Many(parts) => parts.iter().for_each(|part| part.leaves(only_enabled, found)),
        }
    }
}

#[cfg(test)]
#[path = "fates_tests.rs"]
mod tests;
