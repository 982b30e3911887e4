//! The steps of one job in order, and the outcome that tells how they ended.

use std::path::{Path, PathBuf};

use qlaunch_shared::audit::forbids_evaluation;
use qlaunch_shared::model::Model;
use qlaunch_shared::protocol::{
    AttemptFolder, EventBody, JobSpec, Level, NumericPath, Outcome, Status, VERSION,
};
use qlaunch_shared::quality::Measured;
use qlaunch_shared::{Error, ErrorKind, Result};

use super::evaluation::evaluate;
use super::quantization::{as_it_is, make};
use crate::export::add_measurement;
use crate::ops::{CpuBackend, CpuPath};
use crate::report::{Reporter, cpu_seconds, host_name, peak_memory};

/// Runs the job of a spec file, telling the attempt's folder; the result is how it ended.
///
/// # Errors
/// The attempt's folder cannot be written. A failure of the job itself is told in the outcome and returned as it is.
pub fn run(spec: &Path, attempt: &Path) -> Result<()> {
    let folder = AttemptFolder(attempt.to_path_buf());
    let mut reporter = Reporter::create(folder.clone())?;
    let mut outcome = Outcome {
        version: VERSION,
        candidate: String::new(),
        status: Status::Done,
        error: None,
        checkpoint: None,
        calibration: None,
        gates: Vec::new(),
        quality: None,
        evaluation: None,
        phases: Vec::new(),
        numeric_path: None,
        threads: 0,
        worker: env!("CARGO_PKG_VERSION").to_owned(),
        peak_memory: 0,
        cpu_seconds: 0.0,
    };
    let result = read_spec(spec).and_then(|spec| steps(&spec, &folder, &mut outcome, &mut reporter));
    reporter.end();
    if let Err(error) = &result {
        outcome.status = match error.kind {
            ErrorKind::Resumable => Status::Interrupted,
            _ => Status::Failed,
        };
        outcome.error = Some(error.clone());
    }
    outcome.phases = std::mem::take(&mut reporter.phases);
    outcome.peak_memory = peak_memory();
    outcome.cpu_seconds = cpu_seconds();
    reporter.finish(&outcome)?;
    result
}

fn read_spec(path: &Path) -> Result<JobSpec> {
    let text = std::fs::read(path).map_err(|e| Error::io("read the job's spec", path, &e))?;
    let spec: JobSpec = serde_json::from_slice(&text).map_err(|e| {
        Error::input(format!("cannot understand the job's spec: {e}")).at(path).line(e.line(), e.column())
    })?;
    if spec.version > VERSION {
        return Err(Error::input(format!(
            "the spec is of version {}, this worker knows {VERSION}",
            spec.version
        ))
        .at(path)
        .hint("install the same version of launcher and worker"));
    }
    Ok(spec)
}

fn steps(
    spec: &JobSpec,
    attempt: &AttemptFolder,
    outcome: &mut Outcome,
    reporter: &mut Reporter,
) -> Result<()> {
    outcome.candidate.clone_from(&spec.candidate);
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
    let threads = spec.resources.threads.unwrap_or(cores).max(1);
    let numeric_path = spec.resources.numeric_path.unwrap_or_else(NumericPath::detect);
    outcome.threads = threads;
    outcome.numeric_path = Some(numeric_path);
    reporter.tell(EventBody::Started {
        worker: outcome.worker.clone(),
        host: host_name(),
        pid: std::process::id(),
        threads,
        numeric_path,
    });
    let backend = CpuBackend::new(threads, numeric_path)?;
    // Codecs run on the pool that calls them.
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build()
        .map_err(|e| Error::input(format!("cannot start {threads} threads: {e}")))?;
    pool.install(|| work(spec, attempt, &backend, outcome, reporter))
}

fn work(
    spec: &JobSpec,
    attempt: &AttemptFolder,
    backend: &CpuBackend,
    outcome: &mut Outcome,
    reporter: &mut Reporter,
) -> Result<()> {
    let mut evaluated: PathBuf = spec.model.clone();
    if let Some(step) = &spec.quantize {
        let model = Model::open(&spec.model)?;
        let out = step.out.clone().unwrap_or_else(|| attempt.checkpoint());
        let made = make(backend, &model, step, &out, reporter)?;
        outcome.checkpoint = Some(made.checkpoint);
        outcome.calibration = made.calibration;
        outcome.gates = made.gates;
        outcome.quality = Some(made.quality);
        evaluated = out;
        if outcome.gates.iter().any(forbids_evaluation) {
            if spec.evaluate.is_some() {
                reporter.note(Level::Warning, "a gate failed: the checkpoint is not evaluated");
            }
            return Ok(());
        }
    }
    let Some(step) = &spec.evaluate else { return Ok(()) };
    let checkpoint = step.checkpoint.as_ref().unwrap_or(&evaluated);
    if outcome.checkpoint.is_none() {
        outcome.checkpoint = as_it_is(&Model::open_any(checkpoint)?).ok();
    }
    let evaluation = evaluate(backend, checkpoint, &spec.model, step, (attempt, reporter))?;
    outcome.evaluation = Some(evaluation.clone());
    // Somebody else's checkpoint is measured and left as it is.
    if outcome.quality.is_some() && step.checkpoint.is_none() {
        add_measurement(checkpoint, Measured { data: step.tokens.data.clone(), evaluation })?;
    }
    Ok(())
}
