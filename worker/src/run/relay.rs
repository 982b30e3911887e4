//! What one of several ranks keeps on the way, for an attempt to go on from that was stopped: what it has seen after each group
//! of batches, or the batches themselves, as they came from the rank before or as they left the last layer.

use std::collections::BTreeSet;

use qlaunch_shared::assign::Needs;
use qlaunch_shared::digest::sha256;
use qlaunch_shared::store::{Key, Origin, Step};
use qlaunch_shared::{Error, Result};

use super::trail::{read, write};
use crate::calibrate::Observer;
use crate::ops::Backend;
use crate::report::{Reporter, cpu_seconds};
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
    samples: &'a Samples,
    /// Samples of a batch.
    batch: usize,
    /// Batches of a group.
    group: usize,
}

impl<'a> Relay<'a> {
    /// Of a pass; `states` are the hidden states where this rank keeps batches: before its first layer, or behind the last.
    pub(super) fn new(
        store: &'a Store,
        states: &Origin,
        observed: Observed,
        (samples, batch, group): (&'a Samples, usize, usize),
    ) -> Self {
        Self { store, states: states.key().to_string(), observed, samples, batch, group }
    }

    /// Groups of batches.
    pub(super) fn groups(&self) -> usize {
        self.samples.count().div_ceil(self.batch.max(1)).div_ceil(self.group.max(1))
    }

    fn cut(&self) -> String {
        format!("{} samples in groups of {}", self.samples.count(), self.batch * self.group)
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
        (1..=self.groups()).filter(|&groups| self.store.has(&self.seen(groups))).collect()
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
        (0..self.groups()).take_while(|&group| self.store.has(&self.group_at(group))).count()
    }

    /// The batches of the first groups.
    ///
    /// # Errors
    /// They were there, and are gone or broken now.
    pub(super) fn read_groups<B: Backend>(&self, backend: &B, groups: usize) -> Result<Vec<Vec<B::Tensor>>> {
        let read = |group: usize| {
            let found = self.store.get(&self.group_at(group), &mut |text| tracing::warn!("{text}"))?;
            let found = found.ok_or_else(|| gone("batches that were kept", self.store))?;
            read(&found, backend, &self.samples_of(group), self.batch)
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
        let length = self.samples.length;
        let tokens = self.batch * self.group * length;
        let ids = self.samples.ids.chunks(tokens.max(1)).nth(group).unwrap_or_default().to_vec();
        Samples { ids, length, skipped: 0 }
    }

    /// Takes all of it away.
    pub(super) fn forget(&self) {
        let all = (0..=self.groups()).flat_map(|group| [self.seen(group), self.group_at(group)]);
        all.filter(|origin| self.store.has(origin)).for_each(|origin| self.store.remove(&origin));
    }
}

/// What observes a pass, what is calibrated on, and what one of several ranks keeps on the way.
pub(super) struct Lookout<'a> {
    pub(super) observer: Observer,
    /// None before the pass begins.
    pub(super) samples: Option<&'a Samples>,
    /// None for a single process, and where nothing is kept.
    pub(super) relay: Option<Relay<'a>>,
    /// CPU time when it was last asked for, in seconds.
    since: f64,
}

impl<'a> Lookout<'a> {
    /// Before a pass.
    pub(super) fn new(observer: Observer) -> Self {
        Self { observer, samples: None, relay: None, since: cpu_seconds() }
    }

    /// CPU time since it was last asked for, in seconds, and the tokens that went through a layer in it.
    pub(super) fn spent(&mut self) -> (f64, u64) {
        let now = cpu_seconds();
        let spent = now - std::mem::replace(&mut self.since, now);
        (spent, self.samples.map_or(0, |samples| samples.ids.len() as u64))
    }

    /// Whether the input of a linear is to be observed.
    pub(super) fn sees(&self, module: usize) -> bool {
        self.observer.needs(module) != Needs::default()
    }

    /// Says what is calibrated on, and where one of several ranks keeps what it has of it.
    pub(super) fn begin(&mut self, samples: &'a Samples, relay: Option<Relay<'a>>) {
        self.spent();
        self.observer.set_length(samples.length);
        (self.samples, self.relay) = (Some(samples), relay);
    }

    /// Keeps a group as it comes from the rank before.
    ///
    /// # Errors
    /// The disk is full, or the job is to stop.
    pub(super) fn arrived<B: Backend>(&self, backend: &B, group: usize, states: &[B::Tensor]) -> Result<()> {
        self.relay.as_ref().map_or(Ok(()), |relay| relay.keep_group(backend, group, states))
    }

    /// Keeps what was seen of so many groups, where a rank keeps anything; otherwise it is but a moment to stop.
    ///
    /// # Errors
    /// The disk is full, or the job is to stop.
    pub(super) fn grouped(&self, groups: usize, seen: bool) -> Result<()> {
        match (&self.relay, seen) {
            (Some(relay), true) => relay.keep_seen(groups, &self.observer.freeze()),
            (Some(_), false) => Reporter::layer_kept(),
            (None, _) => Ok(()),
        }
    }
}

fn gone(what: &str, store: &Store) -> Error {
    Error::new(qlaunch_shared::ErrorKind::Resumable, format!("{what} was lost"))
        .at(&store.folder().0)
        .hint("start the job again")
}
