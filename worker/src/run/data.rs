//! Reading the tokens of a job.

use std::path::Path;

use qlaunch_shared::digest::sha256_of_file;
use qlaunch_shared::model::Model;
use qlaunch_shared::protocol::{CalibrationSummary, Level, NumericPath, TokenSource};
use qlaunch_shared::store::{Origin, Step, TokenNote};
use qlaunch_shared::{Error, Result};

use crate::comm::Communicator;
use crate::report::Reporter;
use crate::store::{Store, unique};
use crate::tokens::{Samples, Use, check, is_text, read_samples};

/// File of an artifact of tokens.
const TOKENS: &str = "tokens.bin";
/// Files of a model that decide what its tokenizer makes of a text.
const TOKENIZER: [&str; 3] = ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"];

/// Reads samples for a model and tells a person what may surprise them. A text that was tokenized before is taken from the
/// store.
///
/// # Errors
/// As [`read_samples`], or the store cannot be written.
pub(super) fn samples(
    (model, store): (&Model, Option<&Store>),
    source: &TokenSource,
    reading: Use,
    reporter: &mut Reporter,
) -> Result<Samples> {
    let samples = match store.filter(|_| is_text(source)) {
        Some(store) => tokenized((model, store), source, reading, reporter)?,
        None => read_samples(source, reading, &model.folder, model.config.vocabulary)?,
    };
    if samples.skipped > 0 {
        let message = format!(
            "{} texts of `{}` are shorter than a sample and were left out",
            samples.skipped,
            name(&source.data)
        );
        reporter.note(Level::Warning, message);
    }
    if samples.length > model.config.max_positions {
        let message = format!(
            "samples of {} tokens are longer than the model's context of {}",
            samples.length, model.config.max_positions
        );
        reporter.note(Level::Warning, message);
    }
    Ok(samples)
}

/// Samples of a text by way of the store.
fn tokenized(
    (model, store): (&Model, &Store),
    source: &TokenSource,
    reading: Use,
    reporter: &mut Reporter,
) -> Result<Samples> {
    let mut inputs = vec![
        ("data", sha256_of_file(&source.data)?.0),
        ("cut", format!("{reading:?} {:?} {:?} {}", source.samples, source.seq_len, source.seed)),
    ];
    for file in TOKENIZER {
        if let Ok((digest, _)) = sha256_of_file(&model.folder.join(file)) {
            inputs.push((file, digest));
        }
    }
    let origin = Origin::new(Step::Tokens, inputs);
    if let Some(found) = store.get(&origin, &mut |text| reporter.note(Level::Warning, text))? {
        let samples = decode(&found.read(TOKENS)?)?;
        check(&samples, source, model.config.vocabulary)?;
        return Ok(samples);
    }
    let samples = read_samples(source, reading, &model.folder, model.config.vocabulary)?;
    let mut draft = store.draft(origin, &format!("tokens of {}", name(&source.data)))?;
    draft.add(TOKENS, &encode(&samples))?;
    draft.commit(0.0)?;
    Ok(samples)
}

/// Tokens of a sample, texts that were left out, and the ids, all as little-endian uint32.
fn encode(samples: &Samples) -> Vec<u8> {
    let numbers = [samples.length as u32, samples.skipped as u32];
    numbers.iter().chain(&samples.ids).flat_map(|number| number.to_le_bytes()).collect()
}

fn decode(bytes: &[u8]) -> Result<Samples> {
    let mut numbers = bytes.as_chunks::<4>().0.iter().map(|number| u32::from_le_bytes(*number));
    let mut next = || numbers.next().ok_or_else(|| Error::bug("the store's tokens are torn"));
    let (length, skipped) = (next()?.max(1) as usize, next()? as usize);
    Ok(Samples { ids: numbers.collect(), length, skipped })
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

/// What was calibrated on.
pub(super) fn summary(source: &TokenSource, samples: &Samples) -> CalibrationSummary {
    CalibrationSummary {
        data: source.data.clone(),
        tokens_sha256: samples.digest(),
        samples: samples.count(),
        skipped: samples.skipped,
        tokens: samples.ids.len(),
    }
}

/// What keys of the store know calibration data by: the tokens, and how they are cut.
pub(super) fn identity(samples: &Samples) -> String {
    format!("{} in samples of {}", samples.digest(), samples.length)
}

/// Refuses to go on where ranks do not calibrate on the same tokens.
pub(super) fn agree(comm: &dyn Communicator, summary: &CalibrationSummary) -> Result<()> {
    let digests = comm.all_gather(summary.tokens_sha256.clone().into_bytes())?;
    match digests.iter().position(|other| *other != digests[0]) {
        None => Ok(()),
        Some(rank) => Err(Error::input(format!("rank {rank} reads other calibration tokens than rank 0"))
            .at(&summary.data)
            .hint("all ranks need the same data and tokenizer files under the same paths")),
    }
}

/// Leaves a note for plans on what calibration data came to.
///
/// # Errors
/// The store cannot be written.
pub(super) fn note_tokens(
    store: &Store,
    (source, model): (&TokenSource, &Model),
    (samples, numeric_path): (&Samples, NumericPath),
) -> Result<()> {
    let known = (identity(samples), samples.ids.len() as u64);
    let known = (known.0.as_str(), known.1, numeric_path);
    TokenNote::write(store.folder(), (source, &model.folder), known, &unique())
}
