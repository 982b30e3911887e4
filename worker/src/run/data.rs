//! Reading the tokens of a job.

use std::path::Path;

use qlaunch_shared::Result;
use qlaunch_shared::model::Model;
use qlaunch_shared::protocol::{CalibrationSummary, Level, TokenSource};

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
