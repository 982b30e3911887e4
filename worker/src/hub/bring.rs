//! From a repository's name to a folder of the cache: found there, or asked for and brought.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::time::Duration;

use qlaunch_shared::checkpoint::{INDEX, WeightIndex};
use qlaunch_shared::protocol::{self, DownloadEvent, Snapshot, SnapshotFile};
use qlaunch_shared::{Error, ErrorKind, Result};

use super::cache::{Enough, Repository, make_folder};
use super::client::Client;
use super::file::{Progress, bring_file, missing, patiently};
use super::listing::{Asked, Kind, Listed, Listing};
use super::places::HubPlaces;

/// Files that arrive at a time.
const LANES: usize = 4;
/// Tries to get the list of files: whoever plans is waiting.
const TRIES: u32 = 3;
/// Time between two signs of life.
const TICK: Duration = Duration::from_secs(1);
/// Bytes of weights that are asked for at first; most headers fit.
const FIRST: u64 = 1 << 20;
/// Longest header of weights.
const LONGEST: u64 = 64 << 20;

/// How much is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Aim {
    /// Every file.
    Everything,
    /// Small files, and the headers of weights as files of the weights' size with a hole, all in a folder below this one
    /// that is called like the commit: what a plan is made from.
    Headers(PathBuf),
}

/// Finds or brings what is asked for.
///
/// # Errors
/// A Hub that does not answer or refuses, too little space, a disk that fails.
pub fn bring(
    asked: &Asked,
    places: &HubPlaces,
    aim: &Aim,
    tell: &(dyn Fn(&DownloadEvent) + Sync),
) -> Result<Snapshot> {
    let found = |enough| -> Result<Option<Snapshot>> {
        for cache in &places.caches {
            if let Some(snapshot) = Repository::of(cache, asked).find(asked, enough)? {
                return Ok(Some(snapshot));
            }
        }
        Ok(None)
    };
    if let Some(snapshot) = found(Enough::Whole)? {
        return Ok(snapshot);
    }
    let counter =
        Counter { tell, done: AtomicI64::new(0), total: AtomicI64::new(0), over: AtomicBool::new(false) };
    let client = Client::of(places)?;
    let listing = match list(&client, asked, places, &counter) {
        Err(error) if error.kind == ErrorKind::Unreachable => {
            return match found(Enough::Weights)? {
                Some(snapshot) => Ok(Snapshot { note: Some(error.message), ..snapshot }),
                None => Err(error),
            };
        }
        listing => listing?,
    };
    let cache = places.caches.first().ok_or_else(|| Error::bug("there is no cache"))?;
    let job =
        Job { asked, client: &client, repository: Repository::of(cache, asked), commit: &listing.commit };
    let needed = job.needed(&listing, &counter)?;
    std::thread::scope(|scope| {
        scope.spawn(|| counter.live());
        let result = match aim {
            Aim::Everything => job.everything(&needed, cache, &counter),
            Aim::Headers(folder) => job.headers(&needed, folder.join(job.commit), &counter),
        };
        counter.over.store(true, Ordering::Relaxed);
        result
    })
}

fn list(client: &Client, asked: &Asked, places: &HubPlaces, counter: &Counter<'_>) -> Result<Listing> {
    if places.offline {
        return Err(Error::new(ErrorKind::Unreachable, "the Hub must not be called: HF_HUB_OFFLINE is set")
            .hint("unset HF_HUB_OFFLINE"));
    }
    let text = patiently(TRIES, counter, || {
        let mut answer = client.get(&asked.listing(), 0, None)?;
        let mut text = Vec::new();
        // A list of a hundred thousand files has some megabytes.
        let read = answer.body.by_ref().take(LONGEST).read_to_end(&mut text);
        read.map_err(|error| super::client::Fault::Again {
            error: Error::new(ErrorKind::Unreachable, format!("the Hub's answer ended early: {error}"))
                .hint("check the network"),
            wait: None,
        })?;
        Ok(text)
    })?;
    Listing::read(&text, asked)
}

/// One commit to be brought.
struct Job<'a> {
    asked: &'a Asked,
    client: &'a Client,
    repository: Repository,
    commit: &'a str,
}

impl Job<'_> {
    fn bring(&self, file: &Listed, progress: &dyn Progress) -> Result<()> {
        let address = self.asked.file(self.commit, &file.name);
        bring_file(self.client, &address, (&self.repository, file), progress)?;
        self.repository.link(self.commit, &file.name, &file.digest)
    }

    /// The files that are needed; the index of the weights is read for that.
    fn needed<'l>(&self, listing: &'l Listing, progress: &dyn Progress) -> Result<Vec<&'l Listed>> {
        if self.asked.kind == Kind::Dataset {
            return Ok(vec![listing.data(self.asked)?]);
        }
        let Some(index) = listing.find(INDEX) else {
            return listing.model(None, self.asked);
        };
        self.bring(index, progress)?;
        let index = WeightIndex::read(&self.repository.snapshot(self.commit))?;
        let names =
            index.map(|index| index.files().into_iter().map(str::to_owned).collect::<BTreeSet<String>>());
        listing.model(names.as_ref(), self.asked)
    }

    fn everything(&self, needed: &[&Listed], cache: &Path, counter: &Counter<'_>) -> Result<Snapshot> {
        let missing: u64 = needed.iter().map(|file| missing(&self.repository, file)).sum();
        refuse_full(cache, missing)?;
        counter.total.store(i64::try_from(missing).unwrap_or(i64::MAX), Ordering::Relaxed);
        // The largest first, so that no lane is left with it at the end.
        let mut order = needed.to_vec();
        order.sort_by_key(|file| std::cmp::Reverse(file.size));
        let next = AtomicUsize::new(0);
        let lane = || -> Result<()> {
            while let Some(file) = order.get(next.fetch_add(1, Ordering::Relaxed)) {
                // After a failure the other lanes begin nothing new.
                self.bring(file, counter).inspect_err(|_| next.store(order.len(), Ordering::Relaxed))?;
            }
            Ok(())
        };
        std::thread::scope(|scope| {
            let lanes: Vec<_> = (0..LANES.min(order.len())).map(|_| scope.spawn(lane)).collect();
            let ended =
                lanes.into_iter().map(|lane| lane.join().map_err(|_| Error::bug("a download panicked"))?);
            ended.collect::<Vec<Result<()>>>().into_iter().collect::<Result<()>>()
        })?;
        let has_tokenizer = needed.iter().any(|file| file.name == "tokenizer.json");
        self.repository.note(self.asked, self.commit, has_tokenizer)?;
        Ok(self.snapshot(needed))
    }

    fn headers(&self, needed: &[&Listed], folder: PathBuf, counter: &Counter<'_>) -> Result<Snapshot> {
        make_folder(&folder)?;
        for file in needed {
            let to = folder.join(&file.name);
            make_folder(to.parent().unwrap_or(&folder))?;
            if file.name.ends_with(".safetensors") {
                self.header(file, &to, counter)?;
            } else {
                self.bring(file, counter)?;
                let from = self.repository.blob(&file.digest);
                fs::copy(&from, &to).map_err(|error| Error::io("copy", &to, &error))?;
            }
        }
        Ok(Snapshot { headers: Some(folder), ..self.snapshot(needed) })
    }

    /// Writes the header of a weight file; the rest of its size is a hole.
    fn header(&self, file: &Listed, to: &Path, counter: &Counter<'_>) -> Result<()> {
        if to.metadata().is_ok_and(|there| there.len() == file.size) {
            return Ok(());
        }
        let address = self.asked.file(self.commit, &file.name);
        let read = |from: u64, bytes: u64| {
            patiently(TRIES, counter, || {
                let last = (from + bytes).min(file.size).saturating_sub(1);
                let mut answer = self.client.get(&address, from, Some(last))?;
                let skipped = from.saturating_sub(answer.from);
                let mut text = Vec::new();
                let read = std::io::copy(&mut answer.body.by_ref().take(skipped), &mut std::io::sink())
                    .and_then(|_| answer.body.take(last + 1 - from).read_to_end(&mut text));
                match read {
                    Ok(_) if text.len() as u64 == last + 1 - from => Ok(text),
                    _ => Err(super::client::Fault::Again {
                        error: Error::new(
                            ErrorKind::Unreachable,
                            format!("the header of `{}` does not arrive", file.name),
                        )
                        .hint("check the network"),
                        wait: None,
                    }),
                }
            })
        };
        let mut bytes = read(0, FIRST)?;
        let length =
            bytes.first_chunk::<8>().map_or(0, |length| u64::from_le_bytes(*length)).saturating_add(8);
        let have = bytes.len() as u64;
        if length > have && length <= LONGEST.min(file.size) {
            bytes.extend(read(have, length - have)?);
        }
        bytes.truncate(usize::try_from(length).unwrap_or(usize::MAX));
        let fault = |error: std::io::Error| Error::io("write", to, &error);
        let mut beside = to.as_os_str().to_owned();
        beside.push(".partial");
        let mut out = File::create(&beside).map_err(fault)?;
        out.write_all(&bytes).and_then(|()| out.set_len(file.size)).map_err(fault)?;
        fs::rename(&beside, to).map_err(fault)
    }

    fn snapshot(&self, needed: &[&Listed]) -> Snapshot {
        let file = |file: &&Listed| SnapshotFile {
            name: file.name.clone(),
            size: file.size,
            missing: missing(&self.repository, file),
        };
        Snapshot {
            version: protocol::VERSION,
            repository: self.asked.repository.clone(),
            commit: self.commit.to_owned(),
            folder: self.repository.snapshot(self.commit),
            files: needed.iter().map(file).collect(),
            headers: None,
            note: None,
        }
    }
}

/// Too little space is known before anything is written.
fn refuse_full(cache: &Path, missing: u64) -> Result<()> {
    make_folder(cache)?;
    let Ok(system) = rustix::fs::statvfs(cache) else { return Ok(()) };
    let free = system.f_bavail.saturating_mul(system.f_frsize);
    match free < missing {
        true => Err(Error::input(format!("{missing} bytes have to be downloaded, and {free} are free"))
            .at(cache)
            .hint("free some space there, or set HF_HOME to another folder")),
        false => Ok(()),
    }
}

/// What has arrived, told about once a second.
struct Counter<'a> {
    tell: &'a (dyn Fn(&DownloadEvent) + Sync),
    done: AtomicI64,
    total: AtomicI64,
    over: AtomicBool,
}

impl Counter<'_> {
    fn live(&self) {
        let mut waited = TICK;
        while !self.over.load(Ordering::Relaxed) {
            if waited >= TICK {
                let read = |number: &AtomicI64| u64::try_from(number.load(Ordering::Relaxed)).unwrap_or(0);
                (self.tell)(&DownloadEvent::Progress { done: read(&self.done), total: read(&self.total) });
                waited = Duration::ZERO;
            }
            let short = TICK / 20;
            std::thread::sleep(short);
            waited += short;
        }
    }
}

impl Progress for Counter<'_> {
    fn arrived(&self, bytes: i64) {
        self.done.fetch_add(bytes, Ordering::Relaxed);
    }

    fn again(&self, error: &Error) {
        (self.tell)(&DownloadEvent::Again { error: error.clone() });
    }
}
