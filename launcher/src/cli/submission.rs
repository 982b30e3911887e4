//! A sweep made ready to run: read, expanded, named; its files in the run folder, and what a dry run shows of it.

use std::fs;
use std::path::PathBuf;

use qlaunch_shared::model::Model;
use qlaunch_shared::protocol::RunFolder;
use qlaunch_shared::sweep::{Sweep, read_sweep};
use qlaunch_shared::{Error, Result};
use serde_json::json;

use super::main::Context;
use super::submit::SubmitArgs;
use crate::config::{Overrides, Settings, Surroundings, library};
use crate::plan::{Ingredients, PlannedRun, Script, expand, identity, render, run_name};
use crate::session::Setup;
use crate::ui::{coverage, parameters, warnings};

/// A sweep made ready to run.
#[derive(Debug)]
pub struct Submission {
    /// The settings of its cluster.
    pub settings: Settings,
    /// The sweep file's text.
    pub text: String,
    /// The sweep.
    pub sweep: Sweep,
    /// The run.
    pub run: PlannedRun,
}

impl Submission {
    /// Reads settings and sweep, opens the model's headers and expands the candidates.
    ///
    /// # Errors
    /// Anything that would make a job fail and can be told beforehand.
    pub fn read(args: &SubmitArgs, around: &Surroundings) -> Result<Self> {
        let overrides = Overrides { runs: args.runs.clone(), ..Overrides::default() };
        let settings = Settings::load(&args.cluster, around, &overrides)?;
        let text = fs::read_to_string(&args.sweep)
            .map_err(|error| Error::io("read the sweep file", &args.sweep, &error))?;
        let sweep = read_sweep(&text, &args.sweep)?;
        let model = Model::open(&sweep.model)?;
        let jobs = expand(&Ingredients {
            sweep: &sweep,
            file: &args.sweep,
            model: &model,
            library: &library(around)?,
            threads: settings.profile.threads,
            ranks: settings.profile.ranks,
            mixed_groups: args.groups.mixed(),
        })?;
        let identity = identity(&jobs, &model)?;
        let name = run_name(&sweep.name, &identity);
        let folder = settings.runs.join(&name);
        let run = PlannedRun::place(name, folder, identity, jobs);
        Ok(Self { settings, text, sweep, run })
    }

    /// Keeps the sweep file and the plan in the run folder.
    ///
    /// # Errors
    /// A disk that is full or gone.
    pub fn write(&self) -> Result<()> {
        let folder = RunFolder(self.run.folder.clone());
        let plans: serde_json::Map<String, serde_json::Value> =
            self.run.jobs.iter().map(|job| (job.name.clone(), json!(job.plan))).collect();
        fs::create_dir_all(&folder.0).map_err(|error| Error::io("make the run folder", &folder.0, &error))?;
        let plans = format!("{:#}\n", serde_json::Value::Object(plans));
        for (path, text) in [(folder.sweep(), &self.text), (folder.plan(), &plans)] {
            fs::write(&path, text).map_err(|error| Error::io("write", &path, &error))?;
        }
        Ok(())
    }

    /// `memory, perplexity within 1% of bf16`.
    fn question(&self) -> String {
        let rules = qlaunch_shared::sweep::acceptance_words(&self.sweep.acceptance);
        format!("{}, {rules}", self.sweep.objective.name)
    }
}

/// What will be run: a line for the sweep and one for each candidate.
pub fn header(submission: &Submission) -> String {
    let jobs = &submission.run.jobs;
    let size = jobs.iter().find_map(|job| Some(parameters(job.plan.as_ref()?.totals.parameters)));
    let candidates = jobs.iter().filter(|job| !job.is_baseline()).count();
    let baselines: Vec<&str> =
        jobs.iter().filter(|job| job.is_baseline()).map(|job| job.name.as_str()).collect();
    let mut lines = vec![format!(
        "{} · {} · {} {candidates} candidates · objective: {}",
        submission.run.name,
        size.unwrap_or_default(),
        if baselines.is_empty() { String::new() } else { format!("baseline {} and", baselines.join(", ")) },
        submission.question()
    )];
    let width = jobs.iter().map(|job| job.name.chars().count()).max().unwrap_or(0);
    for job in jobs.iter().filter(|job| !job.is_baseline()) {
        let Some(plan) = &job.plan else { continue };
        lines.push(format!("  {:width$}  {}", job.name, coverage(plan)));
        let notes = job.recipe_notes().iter();
        lines.extend(notes.map(|note| format!("  {:width$}  note: {note}", "")));
        lines.extend(warnings(plan).map(|warning| format!("  {:width$}  {warning}", "")));
    }
    lines.join("\n")
}

/// Shows everything that a submission would do, byte for byte as it would be written.
pub fn dry_run(submission: &Submission, setup: &Setup, context: &mut Context) -> Result<()> {
    let mut documents = Vec::new();
    let mut texts = vec![header(submission)];
    for job in &submission.run.jobs {
        let folder: PathBuf = RunFolder(submission.run.folder.clone()).job(&job.name).0;
        let script = render(&Script {
            template: &setup.template,
            origin: &setup.template_origin,
            run: &submission.run.name,
            candidate: &job.name,
            cluster: &setup.cluster,
            folder: &folder,
            worker: &setup.worker,
        })?;
        texts.push(format!("\n# {}\n{}", folder.join("job.sh").display(), script.trim_end()));
        documents.push(json!({
            "candidate": job.name, "recipe": job.recipe, "folder": folder, "plan": job.plan, "spec": job.spec,
            "script": script,
        }));
    }
    match context.screen.json {
        true => context.screen.document(&json!({
            "run": submission.run.name, "folder": submission.run.folder, "jobs": documents,
        })),
        false => context.screen.data(&texts.join("\n")),
    }
}
