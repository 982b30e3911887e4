//! `qlaunch submit --dry-run`: everything that a submission would do, byte for byte as it would be written.

use qlaunch_shared::Result;
use qlaunch_shared::protocol::RunFolder;
use serde_json::{Value, json};

use super::last_run::{Comparison, compare_with_last};
use super::main::Context;
use super::runs::read_journal;
use super::submission::{Submission, header};
use super::submit::SubmitArgs;
use crate::engine::{Action, Policy, Stage, apply, decide, fold};
use crate::journal::{Entry, JobName, Line, VERSION};
use crate::plan::PlannedJob;
use crate::session::{Opening, Setup, array_name, array_script_of, script_of};

/// Shows the plan, what is different from the last run, and the scripts. Arrays are shown as the profile wants them: a cluster
/// whose own limit is lower gets more of them.
///
/// # Errors
/// A template that cannot be rendered, a journal that cannot be read.
pub fn dry_run(
    args: &SubmitArgs,
    submission: &Submission,
    setup: &Setup,
    context: &mut Context,
) -> Result<()> {
    let (run, settings) = (&submission.run, &submission.settings);
    let mut texts = vec![header(submission)];
    let last = compare_with_last(run, &args.sweep, &settings.cluster, &settings.runs);
    texts.extend(last.iter().flat_map(Comparison::lines));
    let site = RunFolder(run.site.clone());
    let mut show = |folder: &std::path::Path, script: &str| {
        texts.push(format!("\n# {}\n{}", folder.join("job.sh").display(), script.trim_end()));
    };
    let template = setup.job_template()?;
    let arrays = arrays(submission, setup)?;
    let array_of = |job: &PlannedJob| {
        let holds = |tasks: &&Vec<(&PlannedJob, u32)>| tasks.iter().any(|(task, _)| task.name == job.name);
        let (first, attempt) = arrays.iter().find(holds)?.first()?;
        Some(array_name(&first.name, *attempt))
    };
    let mut documents: Vec<Value> = Vec::new();
    for (job, reuse) in run.jobs.iter().zip(&submission.reuse) {
        let (folder, array) = (site.job(&job.name).0, array_of(job));
        let script = template.render(&script_of(job, run, setup, &folder))?;
        if array.is_none() {
            show(&folder, &script);
        }
        documents.push(json!({
            "candidate": job.name, "recipe": job.recipe, "folder": folder, "plan": job.plan, "spec": job.spec,
            "script": script, "array": array, "reuse": reuse,
        }));
    }
    let mut array_documents: Vec<Value> = Vec::new();
    for tasks in &arrays {
        let Some((first, attempt)) = tasks.first() else { continue };
        let folder = site.array(&array_name(&first.name, *attempt)).0;
        let script = template.render(&array_script_of(tasks, run, setup, &folder))?;
        show(&folder, &script);
        let names: Vec<&str> = tasks.iter().map(|(task, _)| task.name.as_str()).collect();
        array_documents.push(json!({"folder": folder, "candidates": names, "script": script}));
    }
    match context.screen.json {
        true => context.screen.document(&json!({
            "run": run.name, "folder": run.folder, "jobs": documents, "arrays": array_documents, "last": last,
        })),
        false => context.screen.data(&texts.join("\n")),
    }
}

/// The arrays that a submission would hand over now, by the very rules that do it, once the baselines are in the queue.
fn arrays<'s>(submission: &'s Submission, setup: &Setup) -> Result<Vec<Vec<(&'s PlannedJob, u32)>>> {
    let run = &submission.run;
    let name = |job: &PlannedJob| JobName { name: job.name.clone(), baseline: job.is_baseline() };
    let opened = Entry::Opened {
        version: VERSION,
        launcher: String::new(),
        identity: String::new(),
        fresh: setup.opening == Opening::Fresh,
        jobs: run.jobs.iter().map(name).collect(),
    };
    let mut state = apply(fold(&read_journal(&run.folder)?), &Line { at: 0, entry: opened });
    for job in state.jobs.iter_mut().filter(|job| job.baseline) {
        job.stage = Stage::Accepted;
    }
    let policy = Policy { array: setup.array_size, ..setup.policy };
    let planned =
        |(name, attempt): &(String, u32)| Some((run.jobs.iter().find(|job| job.name == *name)?, *attempt));
    let tasks = |action: Action| match action {
        Action::SubmitArray { tasks } => Some(tasks.iter().filter_map(planned).collect()),
        _ => None,
    };
    Ok(decide(&state, u64::MAX, &policy).into_iter().filter_map(tasks).collect())
}
