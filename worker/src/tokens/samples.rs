//! Samples of one length, cut from whatever file was given.

use std::path::Path;

use qlaunch_shared::digest::hex;
use qlaunch_shared::protocol::TokenSource;
use qlaunch_shared::{Error, Result};
use sha2::{Digest, Sha256};

use super::npy;
use super::text::TextReader;

/// Samples and tokens per sample where a text is read and nothing was said.
const DEFAULT_SAMPLES: usize = 512;
const DEFAULT_LENGTH: usize = 512;

const OTHER_MODEL: &str = "the ids or the tokenizer belong to another model: make them with this model's";
const LINE_FORM: &str = "each line must look like {\"text\": \"…\"}";

/// What tokens are read for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// Calibration: a line of JSON is a sample of its own, and begins as a text begins.
    Calibration,
    /// Evaluation: all texts are one, cut into windows, as they stand.
    Evaluation,
}

/// Samples of one length, in file order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Samples {
    /// Token ids, sample after sample.
    pub ids: Vec<u32>,
    /// Tokens per sample.
    pub length: usize,
    /// Texts that were too short to give a sample.
    pub skipped: usize,
}

impl Samples {
    /// How many there are.
    pub fn count(&self) -> usize {
        self.ids.len() / self.length
    }

    /// SHA-256 of the ids as little-endian int32, sample after sample.
    pub fn digest(&self) -> String {
        let mut hash = Sha256::new();
        for id in &self.ids {
            hash.update(id.to_le_bytes());
        }
        hex(hash.finalize())
    }

    /// Samples in batches of at most `size`.
    pub fn batches(&self, size: usize) -> impl Iterator<Item = &[u32]> {
        self.ids.chunks(self.length * size.max(1))
    }
}

/// Reads samples from a `.npy`, `.jsonl` or `.txt` file.
///
/// An array is used whole, its shape giving samples and length, and limits only shorten it. A text is cut into
/// consecutive samples, 512 of 512 tokens at most unless other limits are given (windows for evaluation are not
/// limited in number). For calibration, a line of JSON gives one sample: the token that begins a text, where the
/// tokenizer has one, then the line's first tokens; lines too short for that are counted and left out.
///
/// # Errors
/// The file cannot be read, has another extension, holds an id outside the vocabulary, or gives not even one sample.
pub fn read_samples(source: &TokenSource, reading: Use, model: &Path, vocabulary: usize) -> Result<Samples> {
    let path = &source.data;
    if source.samples == Some(0) || source.seq_len.is_some_and(|length| length < 2) {
        return Err(Error::usage("at least one sample of two tokens is needed")
            .at(path)
            .hint("give `--samples` of 1 or more and `--seq-len` of 2 or more"));
    }
    let samples = match path.extension().and_then(|extension| extension.to_str()) {
        Some("npy") => from_array(&npy::read(path)?, source, vocabulary)?,
        Some("jsonl") => from_lines(source, reading, &TextReader::open(model)?)?,
        Some("txt") => from_text(&TextReader::open(model)?.encode(&read_text(path)?)?, source, reading, 0),
        _ => {
            return Err(Error::input("unknown kind of data")
                .at(path)
                .hint("give `.jsonl` with a `text` field, `.txt`, or `.npy` with int32 token ids"));
        }
    };
    check(&samples, source, vocabulary)?;
    Ok(samples)
}

/// Whether a text has to be tokenized: not where the ids are given.
pub fn is_text(source: &TokenSource) -> bool {
    source.data.extension().is_none_or(|extension| extension != "npy")
}

/// Checks that samples are of use to a model.
///
/// # Errors
/// There is none, or one of them has a token that the model does not know.
pub fn check(samples: &Samples, source: &TokenSource, vocabulary: usize) -> Result<()> {
    let path = &source.data;
    if samples.ids.is_empty() {
        let short = if samples.skipped > 0 {
            format!(" ({} texts are too short)", samples.skipped)
        } else {
            String::new()
        };
        return Err(Error::input(format!("not even one sample of {} tokens{short}", samples.length))
            .at(path)
            .hint(format!(
                "give more text, or ask for shorter samples: `--seq-len {}`",
                samples.length / 2
            )));
    }
    if let Some(id) = samples.ids.iter().find(|&&id| id as usize >= vocabulary) {
        return Err(Error::input(format!("token id {id} is outside the model's vocabulary of {vocabulary}"))
            .at(path)
            .hint(OTHER_MODEL));
    }
    Ok(())
}

fn read_text(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).map_err(|e| Error::io("read the text", path, &e))
}

fn from_array(array: &npy::Array, source: &TokenSource, vocabulary: usize) -> Result<Samples> {
    let narrow = |&id: &i64| {
        u32::try_from(id).map_err(|_| {
            Error::input(format!("token id {id} is outside the model's vocabulary of {vocabulary}"))
                .at(&source.data)
                .hint(OTHER_MODEL)
        })
    };
    let ids: Vec<u32> = array.ids.iter().map(narrow).collect::<Result<_>>()?;
    let &[rows, width] = &array.shape[..] else {
        return Ok(windows(&ids, source.seq_len.unwrap_or(DEFAULT_LENGTH), source.samples, 0));
    };
    let length = source.seq_len.map_or(width, |length| length.min(width));
    let taken = source.samples.map_or(rows, |samples| samples.min(rows));
    let ids = ids.chunks(width.max(1)).take(taken).flat_map(|row| row[..length].iter().copied()).collect();
    Ok(Samples { ids, length: length.max(1), skipped: 0 })
}

fn from_text(ids: &[u32], source: &TokenSource, reading: Use, skipped: usize) -> Samples {
    let limit = match reading {
        Use::Calibration => Some(source.samples.unwrap_or(DEFAULT_SAMPLES)),
        Use::Evaluation => source.samples,
    };
    windows(ids, source.seq_len.unwrap_or(DEFAULT_LENGTH), limit, skipped)
}

/// Consecutive windows; a tail that does not fill one is dropped.
fn windows(ids: &[u32], length: usize, limit: Option<usize>, skipped: usize) -> Samples {
    let whole = ids.len() / length;
    let taken = limit.map_or(whole, |limit| limit.min(whole));
    Samples { ids: ids[..taken * length].to_vec(), length, skipped }
}

fn from_lines(source: &TokenSource, reading: Use, reader: &TextReader) -> Result<Samples> {
    let text = read_text(&source.data)?;
    let mut texts = Vec::new();
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let json: serde_json::Value = serde_json::from_str(line).map_err(|e| {
            Error::input(format!("not JSON: {e}"))
                .at(&source.data)
                .line(number + 1, e.column())
                .hint(LINE_FORM)
        })?;
        let text = json["text"].as_str().ok_or_else(|| {
            Error::input("the line has no `text`").at(&source.data).line(number + 1, 1).hint(LINE_FORM)
        })?;
        texts.push(text.to_owned());
    }
    if reading == Use::Evaluation {
        return Ok(from_text(&reader.encode(&texts.join("\n"))?, source, reading, 0));
    }
    let length = source.seq_len.unwrap_or(DEFAULT_LENGTH);
    let wanted = source.samples.unwrap_or(DEFAULT_SAMPLES);
    let mut samples = Samples { ids: Vec::new(), length, skipped: 0 };
    for text in texts {
        if samples.count() == wanted {
            break;
        }
        let ids = reader.encode(&text)?;
        let begin = reader.begin;
        let own = length - usize::from(begin.is_some());
        if ids.len() < own {
            samples.skipped += 1;
            continue;
        }
        samples.ids.extend(begin);
        samples.ids.extend(&ids[..own]);
    }
    Ok(samples)
}
