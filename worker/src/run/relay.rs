//! What one of several ranks keeps on the way, for an attempt to go on from that was stopped: what it has seen after each group
//! of batches, or the batches themselves, as they came from the rank before or as they left the last layer.

use std::collections::BTreeSet;

use qlaunch_shared::digest::sha256;
use qlaunch_shared::store::{Key, Origin, Step};
use qlaunch_shared::{Error, Result};

use super::trail::{read, write};
use crate::network::Batches;
use crate::ops::Backend;
use crate::report::Reporter;
use crate::store::Store;
use crate::tokens::Samples;

/// File with what was seen.
const SEEN: &str = "seen.bin";
/// File with the keys of the statistics that it is of.
const COVERED: &str = "covered.json";
/// States of what was seen that are kept: the rank before may be so many groups ahead.
const KEPT: usize = 8;

/// Statistics that a rank observes.
#[derive(Debug, Clone, Default)]
pub(super) struct Observed {
    /// All that the job needs of this rank's layers, whether or not they are there.
    pub(super) all: BTreeSet<Key>,
    /// Those that are not.
    pub(super) unseen: BTreeSet<Key>,
}

/// A rank's share of a pass in the store.
pub(super) struct Relay<'a> {
    store: &'a Store,
    /// The hidden states where batches are kept.
    states: String,
    observed: Observed,
    pub(super) batches: Batches<'a>,
}

impl<'a> Relay<'a> {
    /// Of a pass; `states` are the hidden states where this rank keeps batches: before its first layer, or behind the last.
    pub(super) fn new(store: &'a Store, states: &Origin, observed: Observed, batches: Batches<'a>) -> Self {
        Self { store, states: states.key().to_string(), observed, batches }
    }

    fn cut(&self) -> String {
        format!("{} samples in groups of {}", self.batches.samples.count(), self.batches.grouped())
    }

    /// Origin of what was seen of the first so many groups.
    fn seen(&self, groups: usize) -> Origin {
        let all: Vec<&str> = self.observed.all.iter().map(Key::as_str).collect();
        Origin::new(
            Step::Hidden,
            [
                ("states", self.states.clone()),
                ("observed", sha256(all.concat())),
                ("cut", self.cut()),
                ("groups", groups.to_string()),
            ],
        )
    }

    /// Origin of the batches of a group.
    fn group_at(&self, group: usize) -> Origin {
        Origin::new(
            Step::Hidden,
            [("states", self.states.clone()), ("cut", self.cut()), ("group", group.to_string())],
        )
    }

    /// Numbers of groups after each of which this rank knows what it had seen.
    pub(super) fn known(&self) -> Vec<usize> {
        (1..=self.batches.groups()).filter(|&groups| self.store.has(&self.seen(groups))).collect()
    }

    /// What was seen of the first so many groups.
    ///
    /// # Errors
    /// It was there, and is gone or broken now.
    pub(super) fn saw(&self, groups: usize) -> Result<Vec<u8>> {
        let found = self.store.get(&self.seen(groups), &mut |text| tracing::warn!("{text}"))?;
        let found = found.ok_or_else(|| gone("what a rank had seen", self.store))?;
        found.read(SEEN)
    }

    /// Whether what was seen of the first so many groups tells all that is to be observed now.
    pub(super) fn covers(&self, groups: usize) -> bool {
        let folder = self.store.folder();
        let text = std::fs::read(folder.file(&self.seen(groups).key(), COVERED)).unwrap_or_default();
        let covered: BTreeSet<Key> = serde_json::from_slice(&text).unwrap_or_default();
        self.observed.unseen.is_subset(&covered)
    }

    /// Keeps what was seen of the first so many groups.
    ///
    /// # Errors
    /// The disk is full, or the job is to stop.
    pub(super) fn keep_seen(&self, groups: usize, seen: &[u8]) -> Result<()> {
        let covered = serde_json::to_vec(&self.observed.unseen)
            .map_err(|error| Error::bug(format!("cannot spell keys: {error}")))?;
        let mut draft = self.store.draft(self.seen(groups), &format!("what was seen of {groups} groups"))?;
        draft.add(COVERED, &covered)?;
        draft.add(SEEN, seen)?;
        draft.commit(0.0)?;
        if let Some(old) = groups.checked_sub(KEPT) {
            self.store.remove(&self.seen(old));
        }
        Reporter::layer_kept()
    }

    /// How many of the first groups are kept.
    pub(super) fn kept_groups(&self) -> usize {
        (0..self.batches.groups()).take_while(|&group| self.store.has(&self.group_at(group))).count()
    }

    /// The batches of the first groups.
    ///
    /// # Errors
    /// They were there, and are gone or broken now.
    pub(super) fn read_groups<B: Backend>(&self, backend: &B, groups: usize) -> Result<Vec<Vec<B::Tensor>>> {
        let read = |group: usize| {
            let found = self.store.get(&self.group_at(group), &mut |text| tracing::warn!("{text}"))?;
            let found = found.ok_or_else(|| gone("batches that were kept", self.store))?;
            read(&found, backend, &self.samples_of(group), self.batches.batch)
        };
        (0..groups).map(read).collect()
    }

    /// Keeps the batches of a group.
    ///
    /// # Errors
    /// The disk is full, or the job is to stop.
    pub(super) fn keep_group<B: Backend>(
        &self,
        backend: &B,
        group: usize,
        states: &[B::Tensor],
    ) -> Result<()> {
        let about = format!("group {group} of batches on their way from rank to rank");
        write(self.store, (&self.group_at(group), &about), backend, &self.samples_of(group), (states, None))?;
        Reporter::layer_kept()
    }

    /// The samples of a group.
    fn samples_of(&self, group: usize) -> Samples {
        let Samples { ids, length, .. } = self.batches.samples;
        let (length, tokens) = (*length, self.batches.grouped() * length);
        let ids = ids.chunks(tokens.max(1)).nth(group).unwrap_or_default().to_vec();
        Samples { ids, length, skipped: 0 }
    }

    /// Takes all of it away.
    pub(super) fn forget(&self) {
        let all = (0..=self.batches.groups()).flat_map(|group| [self.seen(group), self.group_at(group)]);
        all.filter(|origin| self.store.has(origin)).for_each(|origin| self.store.remove(&origin));
    }
}

fn gone(what: &str, store: &Store) -> Error {
    Error::new(qlaunch_shared::ErrorKind::Resumable, format!("{what} was lost"))
        .at(&store.folder().0)
        .hint("start the job again")
}
