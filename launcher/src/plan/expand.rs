//! A sweep becomes jobs: every recipe resolved against the model's headers, every fault found before anything runs.

use std::path::{Path, PathBuf};

use qlaunch_shared::assign::{Aims, Grouping, MixedGroups, Plan, resolve, resolve_with};
use qlaunch_shared::model::Model;
use qlaunch_shared::protocol::{self, Evaluate, JobSpec, Quantize, Reference, Resources, RunFolder};
use qlaunch_shared::recipe::{Library, load_recipe};
use qlaunch_shared::sweep::{Baseline, Candidate, Data, Sweep, ceilings};
use qlaunch_shared::{Error, Result};
use serde::{Deserialize, Serialize};

/// Largest size of one safetensors file unless a flag says otherwise: 10 GB, as transformers has it.
pub const SHARD_BYTES: u64 = 10_000_000_000;

/// What a sweep is expanded from.
#[derive(Debug)]
pub struct Ingredients<'a> {
    /// The sweep.
    pub sweep: &'a Sweep,
    /// The file it was read from, for errors.
    pub file: &'a Path,
    /// Its model, opened.
    pub model: &'a Model,
    /// Where recipes are found.
    pub library: &'a Library,
    /// Threads of each job, if the sweep does not say.
    pub threads: Option<usize>,
    /// Processes that share each job's layers, if the sweep does not say.
    pub ranks: Option<usize>,
    /// What becomes of fused groups with mixed numerics.
    pub mixed_groups: MixedGroups,
}

/// A run, ready to be carried out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlannedRun {
    /// Its name.
    pub name: String,
    /// Its folder on this machine, absolute; not written, since the file lies there.
    #[serde(skip)]
    pub folder: PathBuf,
    /// Its folder where the jobs run: the same one, or one on another host.
    pub site: PathBuf,
    /// Hash of everything that its results depend on; empty where the folder is for this run only.
    pub identity: String,
    /// Baselines first, then candidates in the sweep's order.
    pub jobs: Vec<PlannedJob>,
}

/// A job, ready to be carried out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlannedJob {
    /// Its name, unique in the run.
    pub name: String,
    /// Name of its recipe; none for a baseline.
    pub recipe: Option<String>,
    /// What it will do, from headers alone; none for a checkpoint that is only evaluated.
    pub plan: Option<Plan>,
    /// What the worker is told.
    pub spec: JobSpec,
}

impl PlannedJob {
    /// What a person should know about how its recipe was read.
    pub fn recipe_notes(&self) -> &[String] {
        self.spec.quantize.as_ref().map_or(&[], |quantize| &quantize.recipe.notes)
    }

    /// Whether candidates wait for it.
    pub const fn is_baseline(&self) -> bool {
        self.recipe.is_none()
    }
}

impl PlannedRun {
    /// Gives jobs their run: its name, its folder, the store, and the reference that the first baseline leaves there. It also
    /// calibrates for all candidates, which wait for it anyway.
    pub fn place(
        name: String,
        (folder, site): (PathBuf, PathBuf),
        store: &Path,
        identity: String,
        mut jobs: Vec<PlannedJob>,
    ) -> Self {
        let kept = RunFolder(site.clone()).reference();
        let has_reference = jobs.iter().any(PlannedJob::is_baseline);
        let candidates = jobs.iter().filter_map(|job| job.spec.quantize.clone());
        let mut calibrated: Vec<Quantize> =
            candidates.filter(|candidate| candidate.calibration.is_some()).collect();
        for (index, job) in jobs.iter_mut().enumerate() {
            job.spec.run.clone_from(&name);
            job.spec.store = Some(store.to_owned());
            if index == 0 && job.is_baseline() {
                job.spec.calibrate = std::mem::take(&mut calibrated);
            }
            if let Some(evaluate) = job.spec.evaluate.as_mut().filter(|_| has_reference) {
                evaluate.reference = match index {
                    0 => Reference::Keep,
                    _ => Reference::Kept(kept.clone()),
                };
            }
        }
        Self { name, folder, site, identity, jobs }
    }

    /// Has every tensor of the model read again: by the job that calibrates for all, or else by each.
    pub fn rehash(&mut self) {
        let is_shared = self.jobs.iter().any(|job| !job.spec.calibrate.is_empty());
        for job in self.jobs.iter_mut().filter(|job| !is_shared || !job.spec.calibrate.is_empty()) {
            job.spec.rehash = true;
        }
    }
}

/// Expands a sweep: baselines first, then candidates in the file's order.
///
/// # Errors
/// Data files that are not there, recipes that cannot be loaded or do not fit the model, baselines of another dtype.
pub fn expand(from: &Ingredients<'_>) -> Result<Vec<PlannedJob>> {
    for data in [&from.sweep.calibration, &from.sweep.evaluate].into_iter().flatten() {
        check_data(data, from.file)?;
    }
    let baselines = from.sweep.baselines.iter().map(|baseline| expand_baseline(baseline, from));
    let candidates = from.sweep.candidates.iter().map(|candidate| {
        let (line, column) = candidate.place;
        let in_sweep = |mut error: Error| {
            // A fault in the recipe keeps its own place; any other is shown where the sweep asks for it.
            if error.place.file.is_none() {
                error = error.at(from.file).line(line, column);
            }
            error.context(format!("candidate `{}`", candidate.name))
        };
        expand_candidate(candidate, from).map_err(in_sweep)
    });
    baselines.chain(candidates).collect()
}

fn expand_baseline(baseline: &Baseline, from: &Ingredients<'_>) -> Result<PlannedJob> {
    let plan = resolve(from.model, None, SHARD_BYTES)?.plan;
    if plan.recipe != baseline.name {
        let message = format!("the model is {}, so there is no baseline `{}`", plan.recipe, baseline.name);
        let error = Error::input(message).at(from.file).key("baselines");
        return Err(error.hint(format!("write `baselines: [{}]`", plan.recipe)));
    }
    Ok(PlannedJob {
        name: baseline.name.clone(),
        recipe: None,
        plan: Some(plan),
        spec: spec(&baseline.name, None, from)?,
    })
}

fn expand_candidate(candidate: &Candidate, from: &Ingredients<'_>) -> Result<PlannedJob> {
    let mut recipe = load_recipe(from.library, &candidate.recipe, &candidate.overrides)?;
    if let Some(kv_cache) = &candidate.kv_cache {
        recipe = recipe.with_kv_cache(from.library, kv_cache)?;
    }
    let mixed_groups = from.mixed_groups;
    let aims = Aims { shard_bytes: SHARD_BYTES, grouping: Grouping::ByPiece, mixed_groups };
    let resolved = resolve_with(from.model, Some(&recipe), aims)?.asking_engines(from.model);
    let calibration = candidate.calibration.as_ref().or(from.sweep.calibration.as_ref());
    if let Some(own) = &candidate.calibration {
        check_data(own, from.file)?;
    }
    let needed = resolved.assignment.is_some_and(|assignment| assignment.needs_calibration());
    if needed && calibration.is_none() {
        return Err(Error::input("the recipe needs calibration data, and the sweep has none")
            .at(from.file)
            .hint("add `calibration: {data: FILE}`"));
    }
    let silent_experts = calibration.and_then(|data| data.silent_experts).unwrap_or_default();
    let calibration = calibration.map(Data::tokens).map(absolute_tokens).transpose()?;
    let name = Some(recipe.name.clone());
    let quantize = Quantize {
        recipe,
        mixed_groups,
        silent_experts,
        calibration,
        out: None,
        shard_bytes: SHARD_BYTES,
        no_digests: false,
        assignment: Some(resolved.plan.assignment.clone()),
    };
    let spec = spec(&candidate.name, Some(quantize), from)?;
    Ok(PlannedJob { name: candidate.name.clone(), recipe: name, plan: Some(resolved.plan), spec })
}

fn spec(name: &str, quantize: Option<Quantize>, from: &Ingredients<'_>) -> Result<JobSpec> {
    let tokens = from.sweep.evaluate.as_ref().map(Data::tokens).map(absolute_tokens).transpose()?;
    // Baselines are measured to their end: they are what others are compared with.
    let ceilings = if quantize.is_some() { ceilings(from.sweep) } else { Vec::new() };
    let evaluate =
        tokens.map(|tokens| Evaluate { checkpoint: None, tokens, reference: Reference::None, ceilings });
    let resources = &from.sweep.resources;
    Ok(JobSpec {
        version: protocol::VERSION,
        run: String::new(),
        candidate: name.to_owned(),
        model: absolute(&from.model.folder)?,
        quantize,
        calibrate: Vec::new(),
        store: None,
        rehash: false,
        reproduce: None,
        evaluate,
        resources: Resources {
            threads: resources.threads.or(from.threads),
            device: resources.device,
            numeric_path: resources.numeric_path,
            ranks: resources.ranks.or(from.ranks),
        },
    })
}

/// Data that is not there is found now, not after the baseline has run.
fn check_data(data: &Data, sweep: &Path) -> Result<()> {
    match data.data.is_file() {
        true => Ok(()),
        false => Err(Error::input("there is no such data file")
            .at(&data.data)
            .hint(format!("paths in {} are taken from the sweep file's folder", sweep.display()))),
    }
}

fn absolute_tokens(mut tokens: protocol::TokenSource) -> Result<protocol::TokenSource> {
    tokens.data = absolute(&tokens.data)?;
    Ok(tokens)
}

/// A path that means the same in the job's folder.
///
/// # Errors
/// Nothing there.
pub fn absolute(path: &Path) -> Result<PathBuf> {
    // A link to a file keeps its own name: caches link names that say what a file is to contents that have none.
    let linked = path.is_file().then(|| path.file_name().zip(path.parent())).flatten();
    let found = match linked {
        Some((name, above)) if above.as_os_str().is_empty() => {
            Path::new(".").canonicalize().map(|at| at.join(name))
        }
        Some((name, above)) => above.canonicalize().map(|at| at.join(name)),
        None => path.canonicalize(),
    };
    found.map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => {
            Error::input("there is no such file or folder").at(path).hint("check the path")
        }
        _ => Error::io("find", path, &error),
    })
}
