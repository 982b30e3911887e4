//! What calibration data came to when it was last read, so that a plan can name keys without a tokenizer.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::StoreFolder;
use super::sources::Stamp;
use crate::digest::sha256;
use crate::protocol::{NumericPath, TokenSource};
use crate::{Error, Result};

/// The version that this program writes.
const VERSION: u32 = 1;

/// What a job read, and what it computed on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenNote {
    version: u32,
    /// The data file, and the tokenizer where there is one.
    stamps: Vec<Option<Stamp>>,
    /// Digest of the tokens, and how they are cut: as keys have it.
    pub identity: String,
    /// What the job computed on.
    pub numeric_path: NumericPath,
    /// How many tokens there are; 0 where an earlier program wrote the note.
    #[serde(default)]
    pub tokens: u64,
}

impl TokenNote {
    /// The note on a source, if its files are what they were.
    pub fn read(store: &StoreFolder, source: &TokenSource, model: &Path) -> Option<Self> {
        let text = fs::read(place(store, source, model)).ok()?;
        let note: Self = serde_json::from_slice(&text).ok()?;
        (note.version == VERSION && note.stamps == stamps(source, model)).then_some(note)
    }

    /// Notes what a source came to.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn write(
        store: &StoreFolder,
        (source, model): (&TokenSource, &Path),
        (identity, tokens, numeric_path): (&str, u64, NumericPath),
        unique: &str,
    ) -> Result<()> {
        let stamps = stamps(source, model);
        let note = Self { version: VERSION, stamps, identity: identity.to_owned(), numeric_path, tokens };
        if Self::read(store, source, model).is_some_and(|known| known == note) {
            return Ok(());
        }
        let path = place(store, source, model);
        let failed = |error: std::io::Error| Error::io("write to the store", &path, &error);
        let text = serde_json::to_vec(&note)
            .map_err(|error| Error::bug(format!("cannot spell a note on tokens: {error}")))?;
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(failed)?;
        }
        let draft = path.with_extension(unique);
        fs::write(&draft, text).and_then(|()| fs::rename(&draft, &path)).map_err(failed)
    }
}

fn stamps(source: &TokenSource, model: &Path) -> Vec<Option<Stamp>> {
    [source.data.clone(), model.join("tokenizer.json")].iter().map(|path| Stamp::of(path).ok()).collect()
}

fn place(store: &StoreFolder, source: &TokenSource, model: &Path) -> PathBuf {
    let TokenSource { data, samples, seq_len, seed, .. } = source;
    let name = sha256(format!("{} {samples:?} {seq_len:?} {seed} {}", data.display(), model.display()));
    store.0.join("sources").join(format!("tokens-{}.json", &name[..16]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_holds_until_the_data_change() {
        let work = tempfile::tempdir().unwrap();
        let store = StoreFolder(work.path().join("store"));
        let data = work.path().join("text.jsonl");
        fs::write(&data, "{}").unwrap();
        let source = TokenSource { data, samples: Some(4), seq_len: None, batch_size: 8, seed: 0 };
        let model = work.path();
        assert_eq!(TokenNote::read(&store, &source, model), None);
        let path = NumericPath::Portable;
        TokenNote::write(&store, (&source, model), ("abc", 32, path), "draft").unwrap();
        let note = TokenNote::read(&store, &source, model).unwrap();
        assert_eq!((note.identity.as_str(), note.tokens, note.numeric_path), ("abc", 32, path));
        // How many go together changes no key, how many there are does.
        let other = TokenSource { batch_size: 1, ..source.clone() };
        assert!(TokenNote::read(&store, &other, model).is_some());
        let other = TokenSource { samples: Some(5), ..source.clone() };
        assert!(TokenNote::read(&store, &other, model).is_none());
        fs::write(&source.data, "{} {}").unwrap();
        assert!(TokenNote::read(&store, &source, model).is_none());
    }
}
