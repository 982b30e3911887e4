//! The steps of one job in order, and the outcome that tells how they ended.

use std::path::{Path, PathBuf};

use qlaunch_shared::audit::forbids_evaluation;
use qlaunch_shared::model::Model;
use qlaunch_shared::protocol::{
    AttemptFolder, EventBody, JobSpec, Level, Outcome, RankSummary, Status, VERSION, Verdict, VerdictKind,
};
use qlaunch_shared::quality::Measured;
use qlaunch_shared::store::SourceDigests;
use qlaunch_shared::{Error, ErrorKind, Result};

use super::again::reproduce;
use super::collection::collect;
use super::device::{Computing, Messages, Wish, agree};
use super::evaluation::evaluate;
use super::place::{Flags, place, slurm_variables};
use super::quantization::{Means, as_it_is, make};
use super::team::{Job, Team};
use crate::comm::Communicator;
use crate::export::add_measurement;
use crate::libraries::Places;
use crate::ops::{Backend, CpuBackend, CudaBackend};
use crate::report::{Reporter, cpu_seconds, host_name, peak_memory, write_outcome};
use crate::store::Store;
use crate::tensor::discard;

/// Runs the job of a spec file, or one rank's share of it, telling the attempt's folder; the result is how it ended.
///
/// # Errors
/// The attempt's folder cannot be written. A failure of the job itself is told in the outcome and returned as it is.
pub fn run(spec: &Path, attempt: &Path, flags: &Flags) -> Result<()> {
    let attempt = AttemptFolder(attempt.to_path_buf());
    let slurm = slurm_variables();
    let task = slurm.get("SLURM_PROCID").and_then(|rank| rank.parse().ok());
    // Each rank but the first tells a folder of its own.
    let folder = match flags.rank.or(task).unwrap_or(0) {
        0 => attempt.clone(),
        rank => attempt.rank(rank),
    };
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
        reproduced: Vec::new(),
        phases: Vec::new(),
        numeric_path: None,
        threads: 0,
        worker: env!("CARGO_PKG_VERSION").to_owned(),
        peak_memory: 0,
        cpu_seconds: 0.0,
        ranks: Vec::new(),
    };
    let result = read_spec(spec).and_then(|read| {
        outcome.candidate.clone_from(&read.candidate);
        let device = flags.device.or(read.resources.device);
        let place = place(flags, &slurm, read.resources.ranks, &attempt)?;
        let job = Job { spec, attempt: &attempt, device };
        let mut team = Team::gather(place, job, end(&read, &attempt, &folder, &outcome))?;
        let wish = Wish { device: device.unwrap_or_default(), path: read.resources.numeric_path };
        let result = steps((&read, wish), &attempt, &mut team, (&mut outcome, &mut reporter));
        team.part(result)
    });
    reporter.end();
    if let Err(error) = &result {
        fail(&mut outcome, error);
    }
    outcome.phases = std::mem::take(&mut reporter.phases);
    outcome.peak_memory = outcome.ranks.iter().map(|rank| rank.peak_memory).fold(peak_memory(), u64::max);
    let others = outcome.ranks.iter().skip(1).map(|rank| rank.cpu_seconds);
    outcome.cpu_seconds = cpu_seconds() + others.sum::<f64>();
    reporter.finish(&outcome)?;
    result
}

fn fail(outcome: &mut Outcome, error: &Error) {
    outcome.status = match error.kind {
        // Another try may do better: nothing is wrong with the job.
        ErrorKind::Resumable | ErrorKind::Unreachable => Status::Interrupted,
        _ => Status::Failed,
    };
    // The launcher finds a broken rule of acceptance by itself; it is no gate.
    let gate = error.place.key.as_deref().filter(|gate| !gate.starts_with("acceptance."));
    if let (ErrorKind::Gate, Some(gate)) = (error.kind, gate) {
        let gate = gate.trim_start_matches("gates.").to_owned();
        let evidence = vec![error.message.clone()];
        outcome.gates.push(Verdict { gate, verdict: VerdictKind::Fail, evidence });
    }
    outcome.error = Some(error.clone());
}

/// How a rank ends that still computes while the others are gone: without what it was doing, and with the reason.
fn end(
    spec: &JobSpec,
    attempt: &AttemptFolder,
    folder: &AttemptFolder,
    outcome: &Outcome,
) -> impl FnOnce(Error) + Send + 'static {
    let out = spec.quantize.as_ref().map(|step| step.out.clone().unwrap_or_else(|| attempt.checkpoint()));
    // Another rank's checkpoint is taken back by that rank.
    let out = out.filter(|_| attempt == folder);
    let (folder, mut outcome) = (folder.clone(), outcome.clone());
    move |error| {
        if let Some(out) = &out {
            discard(out);
        }
        fail(&mut outcome, &error);
        if let Err(unwritten) = write_outcome(&folder, &outcome) {
            tracing::error!("{unwritten}");
        }
        tracing::error!("{error}");
        #[expect(
            clippy::exit,
            reason = "the thread that computes looks at nothing, and cannot be ended alone"
        )]
        std::process::exit(i32::from(error.exit_code()));
    }
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
    (spec, wish): (&JobSpec, Wish),
    attempt: &AttemptFolder,
    team: &mut Team,
    (outcome, reporter): (&mut Outcome, &mut Reporter),
) -> Result<()> {
    let threads = team.threads(spec.resources.threads)?;
    let places = Places::gather();
    let Computing { path: numeric_path, gpu, messages } = agree(team.comm(), wish, &places, reporter)?;
    outcome.threads = threads;
    outcome.numeric_path = Some(numeric_path);
    reporter.tell(EventBody::Started {
        worker: outcome.worker.clone(),
        host: host_name(),
        pid: std::process::id(),
        threads,
        numeric_path,
    });
    // Codecs run on the pool that calls them.
    match gpu {
        None => {
            let backend = CpuBackend::new(threads, numeric_path)?;
            backend.install(|| work(spec, attempt, (&backend, team.comm()), outcome, reporter))?;
        }
        Some(gpu) => {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .map_err(|e| Error::input(format!("cannot start {threads} threads: {e}")))?;
            let backend = CudaBackend::open(gpu.index as usize, threads, &places)?;
            if messages == Messages::Nccl {
                team.join_gpus(&gpu, &places)?;
            }
            pool.install(|| work(spec, attempt, (&backend, team.comm()), outcome, reporter))?;
        }
    }
    let (rank, size) = (team.comm().rank(), team.comm().size());
    if size > 1 {
        let (peak_memory, cpu_seconds) = (peak_memory(), cpu_seconds());
        outcome.ranks =
            team.summaries(&RankSummary { rank, host: host_name(), threads, peak_memory, cpu_seconds })?;
    }
    Ok(())
}

fn work<B: Backend>(
    spec: &JobSpec,
    attempt: &AttemptFolder,
    (backend, comm): (&B, &dyn Communicator),
    outcome: &mut Outcome,
    reporter: &mut Reporter,
) -> Result<()> {
    let mut evaluated: PathBuf = spec.model.clone();
    let store = spec.store.as_deref().map(Store::open).transpose()?;
    if let (Some(store), true, 0) = (&store, spec.rehash, comm.rank()) {
        SourceDigests::forget(store.folder(), &Model::open(&spec.model)?)?;
    }
    if let (Some(store), false) = (&store, spec.calibrate.is_empty()) {
        let model = Model::open(&spec.model)?;
        let means = Means { comm, store: Some(store) };
        outcome.calibration = collect(backend, (&model, means, store), &spec.calibrate, reporter)?;
    }
    if let Some(step) = &spec.reproduce {
        let model = Model::open(&spec.model)?;
        outcome.reproduced = reproduce(backend, (&model, comm), step, (attempt, reporter))?;
    }
    if let Some(step) = &spec.quantize {
        let model = Model::open(&spec.model)?;
        let out = step.out.clone().unwrap_or_else(|| attempt.checkpoint());
        let means = Means { comm, store: store.as_ref() };
        if let Some(made) = make(backend, (&model, means), step, &out, reporter)? {
            outcome.checkpoint = Some(made.checkpoint);
            outcome.calibration = made.calibration;
            outcome.gates = made.gates;
            outcome.quality = Some(made.quality);
        }
        evaluated = out;
        // The first rank has audited what all have made, and all go on with it or none.
        let forbidden = u8::from(outcome.gates.iter().any(forbids_evaluation));
        if comm.broadcast(0, vec![forbidden])? != [0] {
            if spec.evaluate.is_some() {
                reporter.note(Level::Warning, "a gate failed: the checkpoint is not evaluated");
            }
            return Ok(());
        }
    }
    let Some(step) = &spec.evaluate else { return Ok(()) };
    let checkpoint = step.checkpoint.as_ref().unwrap_or(&evaluated);
    if outcome.checkpoint.is_none() && comm.rank() == 0 {
        outcome.checkpoint = as_it_is(&Model::open_any(checkpoint)?).ok();
    }
    // Of somebody else's checkpoint nothing is kept.
    let store = store.as_ref().filter(|_| step.checkpoint.is_none());
    let (means, is_own) = (Means { comm, store }, spec.quantize.is_some());
    let evaluation =
        evaluate((backend, means), (checkpoint, is_own), &spec.model, step, (attempt, reporter))?;
    outcome.evaluation = Some(evaluation.clone());
    // Somebody else's checkpoint is measured and left as it is.
    if outcome.quality.is_some() && step.checkpoint.is_none() {
        add_measurement(checkpoint, Measured { data: step.tokens.data.clone(), evaluation })?;
    }
    Ok(())
}
