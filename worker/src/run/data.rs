//! Reading the tokens of a job.

use std::path::Path;

use qlaunch_shared::model::Model;
use qlaunch_shared::protocol::{CalibrationSummary, Level, TokenSource};
use qlaunch_shared::{Error, Result};

use crate::comm::Communicator;
use crate::report::Reporter;
use crate::tokens::{Samples, Use, read_samples};

/// Reads samples for a model and tells a person what may surprise them.
pub(super) fn samples(
    model: &Model,
    source: &TokenSource,
    reading: Use,
    reporter: &mut Reporter,
) -> Result<Samples> {
    let samples = read_samples(source, reading, &model.folder, model.config.vocabulary)?;
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
