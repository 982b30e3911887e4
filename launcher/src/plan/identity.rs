//! The name of a run: the sweep's name and a hash of everything its results depend on.
//!
//! Objective, acceptance and gates are left out on purpose: they change the judgement, not the results, so that a
//! changed rule judges the same run again instead of computing it again.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use qlaunch_shared::model::Model;
use qlaunch_shared::{Error, Result};
use sha2::{Digest, Sha256};

use super::expand::PlannedJob;

/// The hash of jobs, model, data, program version and cluster, in hex. Results on two clusters are two runs, each with a
/// journal of its own.
///
/// # Errors
/// Files that cannot be read.
pub fn identity(jobs: &[PlannedJob], model: &Model, cluster: &str) -> Result<String> {
    let mut hash = Sha256::new();
    let mut part = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    };
    part(env!("CARGO_PKG_VERSION").as_bytes());
    if cluster != "local" {
        part(cluster.as_bytes());
    }
    for job in jobs {
        let spec = content(job)?;
        part(&spec);
        part(job.plan.as_ref().map_or("", |plan| plan.assignment.as_str()).as_bytes());
    }
    // Weights are too large to hash on every start: size and time of change stand for them.
    for header in &model.files.headers {
        part(stamp(&header.path)?.as_bytes());
    }
    for data in data_files(jobs) {
        part(&digest(&data)?);
    }
    Ok(qlaunch_shared::digest::hex(hash.finalize()))
}

/// `NAME-XXXX`: short enough to type. Should four digits ever be the same for two sweeps, the journal tells them apart.
pub fn run_name(sweep: &str, identity: &str) -> String {
    format!("{sweep}-{}", identity.get(..4).unwrap_or(identity))
}

/// What a job is told, with its recipe by content: where a recipe was found does not change what it does.
fn content(job: &PlannedJob) -> Result<Vec<u8>> {
    let fault =
        |error: serde_json::Error| Error::bug(format!("cannot spell the spec of `{}`: {error}", job.name));
    let mut spec = serde_json::to_value(&job.spec).map_err(fault)?;
    // Results are the same for any number of ranks.
    if let Some(resources) = spec["resources"].as_object_mut() {
        resources.remove("ranks");
    }
    // Where rules would end it early is a matter of judgement.
    if let Some(evaluate) = spec["evaluate"].as_object_mut() {
        evaluate.remove("ceilings");
    }
    if let Some(quantize) = &job.spec.quantize {
        spec["quantize"]["recipe"] = quantize.recipe.resolved_json()?;
    }
    serde_json::to_vec(&spec).map_err(fault)
}

fn data_files(jobs: &[PlannedJob]) -> Vec<PathBuf> {
    let calibration = |job: &PlannedJob| Some(job.spec.quantize.as_ref()?.calibration.as_ref()?.data.clone());
    let evaluation = |job: &PlannedJob| Some(job.spec.evaluate.as_ref()?.tokens.data.clone());
    let mut files: Vec<PathBuf> =
        jobs.iter().flat_map(|job| [calibration(job), evaluation(job)]).flatten().collect();
    files.sort();
    files.dedup();
    files
}

fn stamp(path: &Path) -> Result<String> {
    let metadata = fs::metadata(path).map_err(|error| Error::io("look at", path, &error))?;
    let changed = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    let changed = changed.map_or(0, |since| since.as_nanos());
    Ok(format!("{} {} {changed}", path.display(), metadata.len()))
}

fn digest(path: &Path) -> Result<Vec<u8>> {
    let fault = |error: std::io::Error| Error::io("read", path, &error);
    let mut file = File::open(path).map_err(fault)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer).map_err(fault)? {
            0 => return Ok(hash.finalize().to_vec()),
            count => hash.update(&buffer[..count]),
        }
    }
}
