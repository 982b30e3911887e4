//! A sweep made ready to run: read, expanded, named; its files in the run folder.

use std::fs;
use std::path::{Path, PathBuf};

use qlaunch_shared::model::Model;
use qlaunch_shared::protocol::RunFolder;
use qlaunch_shared::store::StoreFolder;
use qlaunch_shared::sweep::{Sweep, read_sweep};
use qlaunch_shared::{Error, Result};
use serde_json::json;

use super::hub::{Telling, couriers};
use super::runs::read_journal;
use super::submit::SubmitArgs;
use crate::config::{Overrides, Settings, Surroundings, library};
use crate::engine::{Stage, fold};
use crate::plan::{
    Budget, Ingredients, PlannedJob, PlannedRun, RUN_VERSION, Saved, absolute, expand, identity, run_name,
};
use crate::session::{Opening, Setup, Site, block_on};
use crate::ship::{
    Couriers, Known, Staged, StagedBy, Staging, cluster_path, hub_ids, plan_hub, plan_staging, relocate,
    shadow_sweep,
};
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
    /// Who brings what is on the Hub; none if nothing is.
    couriers: Option<Couriers>,
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
        let (mut planned, mut known) = shadows(&site, &sweep, &settings)?;
        let couriers = on_hub(args, &site, &settings, (&mut planned, &mut known), around)?;
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
            None => Staging::here(&known),
            Some(workspace) => block_on(plan_staging(&site.host, workspace, &jobs, &known))?,
        };
        relocate(&mut jobs, &staging.places());
        let there = site.run_folder(&folder, &name);
        let mut run = PlannedRun::place(name, (folder, there), &site.store(&settings), identity, jobs);
        if args.rehash {
            run.rehash();
        }
        let reuse = reuse(&site, &settings, (&run.jobs, &weights(model, &known)))?;
        Ok(Self { settings, text, sweep, run, site, staging, couriers, reuse, explain: args.explain })
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
            if let Some(workspace) = &self.site.workspace {
                let sent = |staged: &&Staged| staged.way == StagedBy::Upload && staged.missing > 0;
                for staged in self.staging.staged.iter().filter(sent) {
                    say(&format!("sending {} ({})", staged.from.display(), bytes(staged.missing)));
                }
                self.staging.send(&self.site.host, workspace, &mut |_, _| {}).await?;
            }
            for (staged, couriers) in self.staging.staged.iter().zip(self.couriers.iter().cycle()) {
                if let (StagedBy::Hub(pinned) | StagedBy::HubHere(pinned, _), 1..) =
                    (&staged.way, staged.missing)
                {
                    let mut telling = Telling::of(&pinned.to_string(), say);
                    couriers.bring(staged, &mut |event| telling.hear(event)).await?;
                }
            }
            Ok(())
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

/// The folder that a sweep file's paths are taken from.
pub fn folder_of(sweep: &Path) -> &Path {
    sweep.parent().unwrap_or(Path::new(""))
}

/// The sweep with shadows in the place of `cluster:` paths, and what they stand for.
fn shadows(site: &Site, sweep: &Sweep, settings: &Settings) -> Result<(Sweep, Known)> {
    let mut planned = sweep.clone();
    if site.workspace.is_none() {
        return match cluster_path(&sweep.model) {
            None => Ok((planned, Known::new())),
            Some(path) => {
                Err(Error::input("`cluster:` paths mean a cluster, and this run is on this machine")
                    .at(path)
                    .hint("add `--cluster NAME`; see `qlaunch cluster list`"))
            }
        };
    }
    let known = block_on(shadow_sweep(&site.host, &mut planned, &headers_folder(settings)?))?;
    Ok((planned, known))
}

/// Folder of shadows of what lies elsewhere.
///
/// # Errors
/// A folder of runs that cannot be made.
pub fn headers_folder(settings: &Settings) -> Result<PathBuf> {
    fs::create_dir_all(&settings.runs)
        .map_err(|error| Error::io("make the folder", &settings.runs, &error))?;
    Ok(absolute(&settings.runs)?.join(".headers").join(&settings.cluster))
}

/// Puts shadows in the place of names on the Hub; who brings what is missing, if there are such names.
fn on_hub(
    args: &SubmitArgs,
    site: &Site,
    settings: &Settings,
    (sweep, known): (&mut Sweep, &mut Known),
    around: &Surroundings,
) -> Result<Option<Couriers>> {
    let ids = hub_ids(sweep, folder_of(&args.sweep))?;
    if ids.is_empty() {
        return Ok(None);
    }
    let couriers = couriers(site, settings, around)?;
    known.extend(block_on(plan_hub(&couriers, sweep, &ids, &headers_folder(settings)?))?);
    Ok(Some(couriers))
}

/// The model itself where it lies in a cache of this machine: the store knows what it has of it by its files.
fn weights(model: Model, known: &Known) -> Model {
    let found = known.get(&model.files.folder).filter(|staged| staged.missing == 0);
    found.and_then(|staged| Model::open(&staged.to).ok()).unwrap_or(model)
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
        "{} · {} · {} {candidates} {} · objective: {}",
        submission.run.name,
        size.unwrap_or_default(),
        if baselines.is_empty() { String::new() } else { format!("baseline {} and", baselines.join(", ")) },
        if candidates == 1 { "candidate" } else { "candidates" },
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
        lines.push(format!("  {}", way(staged)));
    }
    lines.join("\n")
}

/// How an input gets to where it is needed, with its bytes.
fn way(staged: &Staged) -> String {
    let (from, to) = (staged.from.display(), staged.to.display());
    match (&staged.way, staged.missing) {
        (StagedBy::Cluster, _) => format!("{to} lies on the cluster"),
        (StagedBy::Upload, 0) if staged.from == staged.to => format!("{from} is there already"),
        (StagedBy::Upload, 0) => format!("{from} was sent before"),
        (StagedBy::Upload, missing) => format!("{from} has to be sent: {}", bytes(missing)),
        (StagedBy::Hub(id), 0) => format!("{id} of the Hub is there already: {to}"),
        (StagedBy::Hub(id), missing) => {
            format!("{id} of the Hub has to be downloaded there: {} into {to}", bytes(missing))
        }
        (StagedBy::HubHere(id, _), 0) => format!("{id} of the Hub was sent before: {to}"),
        (StagedBy::HubHere(id, why), missing) => format!(
            "{id} of the Hub has to be downloaded here and sent: {}; from there, {why}",
            bytes(missing)
        ),
    }
}
