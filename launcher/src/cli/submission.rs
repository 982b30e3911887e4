//! A sweep made ready to run: read, expanded, named; its files in the run folder.

use std::fs;
use std::path::Path;

use qlaunch_shared::model::Model;
use qlaunch_shared::protocol::RunFolder;
use qlaunch_shared::store::StoreFolder;
use qlaunch_shared::sweep::{Sweep, read_sweep};
use qlaunch_shared::{Error, Result};
use serde_json::json;

use super::runs::read_journal;
use super::submit::SubmitArgs;
use crate::config::{Overrides, Settings, Surroundings, library};
use crate::engine::{Stage, fold};
use crate::plan::{
    Budget, Ingredients, PlannedJob, PlannedRun, RUN_VERSION, Saved, absolute, expand, identity, run_name,
};
use crate::session::{Opening, Setup, Site, block_on};
use crate::ship::{Places, Staging, cluster_path, plan_staging, relocate, shadow_sweep};
use crate::store::{Inventory, Reuse};
use crate::ui::{bytes, coverage, parameters, warnings};

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
    /// Where its jobs run.
    pub site: Site,
    /// What has to be brought there.
    pub staging: Staging,
    /// What of each job is in the store already, where that can be told.
    pub reuse: Vec<Option<Reuse>>,
    /// Whether a person wants to know why pieces have to be made.
    explain: bool,
}

impl Submission {
    /// Reads settings and sweep, opens the model's headers and expands the candidates.
    ///
    /// # Errors
    /// Anything that would make a job fail and can be told beforehand.
    pub fn read(args: &SubmitArgs, around: &Surroundings) -> Result<Self> {
        let overrides = Overrides { runs: args.runs.clone(), ..Overrides::default() };
        let settings = Settings::load(&args.cluster, around, &overrides)?;
        Self::plan(args, read_sweep_file(&args.sweep)?, settings, around)
    }

    /// Plans a sweep that was read, with its text, for the cluster of the settings.
    ///
    /// # Errors
    /// Anything that would make a job fail and can be told beforehand.
    pub fn plan(
        args: &SubmitArgs,
        (text, sweep): (String, Sweep),
        settings: Settings,
        around: &Surroundings,
    ) -> Result<Self> {
        let site = block_on(Site::open(&settings, around))?;
        // Planned with shadows of what lies on the cluster; judged and shown with the paths that a person wrote.
        let (planned, shadows) = shadows(&site, &sweep, &settings)?;
        let model = Model::open(&planned.model)?;
        let jobs = expand(&Ingredients {
            sweep: &planned,
            file: &args.sweep,
            model: &model,
            library: &library(around)?,
            threads: settings.profile.threads,
            ranks: settings.profile.ranks,
            mixed_groups: args.groups.mixed(),
        })?;
        let identity = identity(&jobs, &model, &settings.cluster)?;
        let name = run_name(&sweep.name, &identity);
        let folder = settings.runs.join(&name);
        let mut jobs = jobs;
        let staging = match &site.workspace {
            None => Staging::default(),
            Some(workspace) => block_on(plan_staging(&site.host, workspace, &jobs, &shadows))?,
        };
        relocate(&mut jobs, &staging.places());
        let there = site.run_folder(&folder, &name);
        let mut run = PlannedRun::place(name, (folder, there), &site.store(&settings), identity, jobs);
        if args.rehash {
            run.rehash();
        }
        let reuse = reuse(&site, &settings, (&run.jobs, &model))?;
        Ok(Self { settings, text, sweep, run, site, staging, reuse, explain: args.explain })
    }

    /// How its jobs are carried out.
    ///
    /// # Errors
    /// A template that is nowhere, a worker that would not run where the jobs run.
    pub fn setup(&self, around: &Surroundings, opening: Opening) -> Result<Setup> {
        Setup::prepare(&self.settings, around, self.site.clone(), opening)
    }

    /// Brings worker, model and data to where the jobs run.
    ///
    /// # Errors
    /// A host that does not answer, a worker that does not run there, too little space.
    pub fn bring(&self, setup: &Setup, say: &mut dyn FnMut(&str)) -> Result<()> {
        block_on(async {
            setup.ship().await?;
            let Some(workspace) = &self.site.workspace else {
                return Ok(());
            };
            for staged in self.staging.staged.iter().filter(|staged| staged.missing > 0) {
                say(&format!("sending {} ({})", staged.from.display(), bytes(staged.missing)));
            }
            self.staging.send(&self.site.host, workspace, &mut |_, _| {}).await
        })
    }

    /// Keeps the sweep file and the plan in the run folder, and when its jobs may begin.
    ///
    /// # Errors
    /// A disk that is full or gone.
    pub fn write(&self, args: &SubmitArgs, begin: Option<u64>) -> Result<()> {
        let folder = RunFolder(self.run.folder.clone());
        let plans: serde_json::Map<String, serde_json::Value> =
            self.run.jobs.iter().map(|job| (job.name.clone(), json!(job.plan))).collect();
        fs::create_dir_all(&folder.0).map_err(|error| Error::io("make the run folder", &folder.0, &error))?;
        let plans = format!("{:#}\n", serde_json::Value::Object(plans));
        for (path, text) in [(folder.sweep(), &self.text), (folder.plan(), &plans)] {
            fs::write(&path, text).map_err(|error| Error::io("write", &path, &error))?;
        }
        let sweep = absolute(&args.sweep)?;
        let saved = Saved {
            version: RUN_VERSION,
            cluster: self.settings.cluster.clone(),
            submit: args.again(),
            begin,
            run: self.run.clone(),
            sweep,
        };
        saved.write()
    }

    /// What jobs that are not done yet may take at most, where that can be told.
    ///
    /// # Errors
    /// A time limit that SLURM would not understand, a journal that cannot be read.
    pub fn budget(&self, fresh: bool) -> Result<Option<Budget>> {
        let state = fold(&read_journal(&self.run.folder)?);
        let done = |name: &str| state.job(name).is_some_and(|job| job.stage == Stage::Accepted);
        let jobs = self.run.jobs.iter().filter(|job| fresh || !done(&job.name)).count();
        Budget::of(&self.settings.profile, jobs)
    }

    /// `memory, perplexity within 1% of bf16`.
    fn question(&self) -> String {
        let rules = qlaunch_shared::sweep::acceptance_words(&self.sweep.acceptance);
        format!("{}, {rules}", self.sweep.objective.name)
    }
}

/// A sweep file: its text, and what it says.
///
/// # Errors
/// A file that cannot be read or understood.
pub fn read_sweep_file(path: &Path) -> Result<(String, Sweep)> {
    let text = fs::read_to_string(path).map_err(|error| Error::io("read the sweep file", path, &error))?;
    let sweep = read_sweep(&text, path)?;
    Ok((text, sweep))
}

/// The sweep with shadows in the place of `cluster:` paths, and what they stand for.
fn shadows(site: &Site, sweep: &Sweep, settings: &Settings) -> Result<(Sweep, Places)> {
    let mut planned = sweep.clone();
    if site.workspace.is_none() {
        return match cluster_path(&sweep.model) {
            None => Ok((planned, Places::new())),
            Some(path) => {
                Err(Error::input("`cluster:` paths mean a cluster, and this run is on this machine")
                    .at(path)
                    .hint("add `--cluster NAME`; see `qlaunch cluster list`"))
            }
        };
    }
    fs::create_dir_all(&settings.runs)
        .map_err(|error| Error::io("make the folder", &settings.runs, &error))?;
    let runs = absolute(&settings.runs)?;
    let folder = runs.join(".headers").join(&settings.cluster);
    let places = block_on(shadow_sweep(&site.host, &mut planned, &folder))?;
    Ok((planned, places))
}

/// What of each job is in the store of this machine; a store elsewhere is not looked into.
fn reuse(
    site: &Site,
    settings: &Settings,
    (jobs, model): (&[PlannedJob], &Model),
) -> Result<Vec<Option<Reuse>>> {
    if site.workspace.is_some() {
        return Ok(vec![None; jobs.len()]);
    }
    let inventory = Inventory::of(StoreFolder(site.store(settings)))?;
    jobs.iter().map(|job| inventory.reuse(&job.spec, model)).collect()
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
    for (job, reuse) in jobs.iter().zip(&submission.reuse).filter(|(job, _)| !job.is_baseline()) {
        let Some(plan) = &job.plan else { continue };
        lines.push(format!("  {:width$}  {}", job.name, coverage(plan)));
        if let Some(reuse) = reuse {
            lines.push(format!("  {:width$}  {}", "", reuse.summary(bytes)));
            let why = reuse.explanation().into_iter().filter(|_| submission.explain);
            lines.extend(why.map(|line| format!("  {:width$}    {line}", "")));
        }
        let notes = job.recipe_notes().iter();
        lines.extend(notes.map(|note| format!("  {:width$}  note: {note}", "")));
        lines.extend(warnings(plan).map(|warning| format!("  {:width$}  {warning}", "")));
    }
    for staged in &submission.staging.staged {
        lines.push(match (staged.missing, staged.from == staged.to) {
            _ if staged.shadow => format!("  {} lies on the cluster", staged.to.display()),
            (0, true) => format!("  {} is there already", staged.from.display()),
            (0, false) => format!("  {} was sent before", staged.from.display()),
            (missing, _) => format!("  {} has to be sent: {}", staged.from.display(), bytes(missing)),
        });
    }
    lines.join("\n")
}
