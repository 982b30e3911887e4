//! What the scripts of jobs and arrays are rendered from, in a submission and in a dry run alike.

use std::path::{Path, PathBuf};

use qlaunch_shared::protocol::{Reference, RunFolder};

use super::carry::Setup;
use crate::plan::{PlannedJob, PlannedRun, Script, Task, lead};

/// What a job's script is rendered from.
pub fn script_of<'a>(
    job: &'a PlannedJob,
    run: &'a PlannedRun,
    setup: &'a Setup,
    folder: &'a Path,
) -> Script<'a> {
    let evaluate = job.spec.evaluate.as_ref();
    Script {
        run: &run.name,
        candidate: &job.name,
        cluster: &setup.cluster,
        folder,
        worker: &setup.worker,
        extras: &setup.extras,
        needs: needs_of(job),
        leaves: evaluate.is_some_and(|evaluate| evaluate.reference == Reference::Keep).then_some(&*run.site),
        reads: reads_of(job),
        writes: writes_of(job, run, setup, folder),
        lead: lead(job, &setup.extras.slurm),
        array: None,
    }
}

/// Name of the folder of an array whose first task is this attempt.
pub fn array_name(first: &str, attempt: u32) -> String {
    format!("{first}-{attempt}")
}

/// What the script of an array is rendered from, whose tasks are attempts of these jobs.
pub fn array_script_of<'a>(
    tasks: &[(&'a PlannedJob, u32)],
    run: &'a PlannedRun,
    setup: &'a Setup,
    folder: &'a Path,
) -> Script<'a> {
    let job = |(job, _): &(&'a PlannedJob, u32)| *job;
    let site = RunFolder(run.site.clone());
    let task =
        |(job, attempt): &(&PlannedJob, u32)| Task { folder: site.job(&job.name).0, attempt: *attempt };
    let mut reads: Vec<&Path> = tasks.iter().flat_map(|task| reads_of(job(task))).collect();
    reads.sort();
    reads.dedup();
    let writes = |task: &Task, of: &'a PlannedJob| writes_of(of, run, setup, &task.folder);
    let members: Vec<Task> = tasks.iter().map(task).collect();
    let mut writes: Vec<PathBuf> =
        members.iter().zip(tasks).flat_map(|(member, task)| writes(member, job(task))).collect();
    writes.sort();
    writes.dedup();
    Script {
        run: &run.name,
        candidate: "an array",
        cluster: &setup.cluster,
        folder,
        worker: &setup.worker,
        extras: &setup.extras,
        // All wait for the same baselines.
        needs: tasks.first().and_then(|first| needs_of(job(first))),
        leaves: None,
        reads,
        writes,
        lead: tasks.iter().map(|task| lead(job(task), &setup.extras.slurm)).max().unwrap_or(0),
        array: Some(members),
    }
}

/// What a job's baseline leaves for it.
fn needs_of(job: &PlannedJob) -> Option<&Path> {
    match &job.spec.evaluate.as_ref()?.reference {
        Reference::Kept(path) => Some(path),
        _ => None,
    }
}

/// Folders that a job's worker writes. Store and attempts are one folder wherever one holds both, because hard links do not
/// go from one mounted folder to another.
fn writes_of(job: &PlannedJob, run: &PlannedRun, setup: &Setup, folder: &Path) -> Vec<PathBuf> {
    let above = setup.site.workspace.as_deref().or_else(|| run.site.parent());
    match (&job.spec.store, above) {
        (Some(store), Some(above)) if store.starts_with(above) => vec![above.to_owned()],
        (store, _) => std::iter::once(folder.to_owned()).chain(store.clone()).collect(),
    }
}

/// Files and folders that a job's worker reads, each once.
fn reads_of(job: &PlannedJob) -> Vec<&Path> {
    let mut reads = vec![job.spec.model.as_path()];
    // A baseline calibrates for the candidates behind it.
    let made = job.spec.quantize.iter().chain(&job.spec.calibrate);
    reads.extend(made.filter_map(|quantize| Some(quantize.calibration.as_ref()?.data.as_path())));
    if let Some(evaluate) = &job.spec.evaluate {
        reads.push(&evaluate.tokens.data);
        reads.extend(evaluate.checkpoint.as_deref());
        match &evaluate.reference {
            Reference::Kept(path) | Reference::Model(path) => reads.push(path),
            Reference::None | Reference::Keep => {}
        }
    }
    let mut reads: Vec<&Path> = reads.into_iter().map(with_contents).collect();
    reads.sort();
    reads.dedup();
    reads
}

/// What has to be seen for a path to be read: of a snapshot in a cache of the Hub the whole repository, whose contents its
/// files are links to.
fn with_contents(path: &Path) -> &Path {
    let is_repository = |folder: &&Path| {
        let name = folder.file_name().unwrap_or_default().to_string_lossy();
        let kind = name.starts_with("models--") || name.starts_with("datasets--");
        kind && path.starts_with(folder.join("snapshots"))
    };
    path.ancestors().find(is_repository).unwrap_or(path)
}
