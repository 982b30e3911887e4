//! How long before its time limit a job is told to stop: a worker stops behind the layer that it is at, so the longest one decides.

use std::collections::BTreeMap;

use qlaunch_shared::assign::Plan;
use qlaunch_shared::protocol::{JobSpec, TokenSource};

use super::expand::PlannedJob;
use super::render::SlurmExtras;

/// Operations a second of a CPU and of a GPU, low enough for old ones: a lead that is too long costs seconds, one that is too
/// short the layer.
const CPU: f64 = 10e9;
const GPU: f64 = 20e12;
/// Bytes of weights that a busy file system gives a second.
const DISK: f64 = 200e6;
/// Samples and their tokens where nothing is said, as the worker has it.
const SAMPLES: usize = 512;
const LENGTH: usize = 512;

/// Seconds before the limit: the planned time of the longest layer and the profile's margin, but no more than half of the limit
/// beyond it, since a job that is told at once to stop gets nowhere.
pub fn lead(job: &PlannedJob, slurm: &SlurmExtras) -> u32 {
    let planned = job.plan.as_ref().map_or(0.0, |plan| longest_layer(plan, &job.spec, slurm));
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it saturates")]
    let planned = planned.ceil() as u32;
    let room = slurm.limit.map_or(u32::MAX, |limit| (limit / 2).saturating_sub(slurm.signal_seconds));
    slurm.signal_seconds.saturating_add(planned.min(room))
}

/// Seconds for all tokens of a step through the layer with most weights, which are read once: two operations for each weight and
/// token, in two bytes a weight.
fn longest_layer(plan: &Plan, spec: &JobSpec, slurm: &SlurmExtras) -> f64 {
    let mut layers: BTreeMap<&str, u64> = BTreeMap::new();
    for module in &plan.modules {
        if let Some(layer) = layer_of(&module.name) {
            *layers.entry(layer).or_default() += module.source_bytes;
        }
    }
    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    let bytes = layers.into_values().max().unwrap_or(0) as f64;
    let calibrations =
        spec.quantize.iter().chain(&spec.calibrate).filter_map(|step| step.calibration.as_ref());
    let evaluations = spec.evaluate.iter().map(|evaluate| &evaluate.tokens);
    let tokens = calibrations.chain(evaluations).map(tokens).fold(0.0, f64::max);
    let speed = if slurm.gpus > 0 { GPU } else { CPU * f64::from(slurm.cpus.max(1)) };
    bytes * tokens / speed + bytes / DISK
}

/// `model.layers.7.` of `model.layers.7.mlp.up_proj`.
fn layer_of(module: &str) -> Option<&str> {
    let begin = module.find(".layers.")? + ".layers.".len();
    let end = begin + module[begin..].find('.')?;
    Some(&module[..end])
}

fn tokens(source: &TokenSource) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    let count = |given: Option<usize>, otherwise: usize| given.unwrap_or(otherwise) as f64;
    count(source.samples, SAMPLES) * count(source.seq_len, LENGTH)
}

#[cfg(test)]
mod tests {
    use super::*;
    use qlaunch_shared::model::Model;
    use std::path::Path;

    fn job(samples: usize) -> PlannedJob {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/models/tiny-llama");
        let plan =
            qlaunch_shared::assign::resolve(&Model::open(&folder).unwrap(), None, u64::MAX).unwrap().plan;
        let spec = serde_json::json!({
            "version": 1, "run": "r", "candidate": "bf16", "model": folder,
            "evaluate": {"tokens": {"data": "d", "samples": samples, "seq_len": 1000, "batch_size": 1}},
        });
        let spec = serde_json::from_value(spec).unwrap();
        PlannedJob { name: "bf16".to_owned(), recipe: None, plan: Some(plan), spec }
    }

    #[test]
    fn the_longest_layer_decides_how_early_a_job_is_told() {
        let slurm = SlurmExtras { signal_seconds: 100, cpus: 1, ..SlurmExtras::default() };
        // By the header of its file, a layer of tiny-llama has 1,508,352 bytes: 150.8 s for a million tokens at 10 Gop/s.
        assert_eq!(lead(&job(1000), &slurm), 100 + 151);
        assert_eq!(lead(&job(1000), &SlurmExtras { cpus: 16, ..slurm.clone() }), 100 + 10);
        assert_eq!(lead(&job(1000), &SlurmExtras { gpus: 1, ..slurm.clone() }), 100 + 1);
        let short = SlurmExtras { limit: Some(300), ..slurm };
        assert_eq!(lead(&job(1000), &short), 150, "half of the limit at most");
        assert_eq!(
            lead(&job(1000), &SlurmExtras { limit: Some(60), ..short }),
            100,
            "a margin is a person's word"
        );
    }

    #[test]
    fn modules_outside_of_layers_are_none() {
        assert_eq!(layer_of("model.layers.12.mlp.up_proj"), Some("model.layers.12"));
        assert_eq!(layer_of("lm_head"), None);
    }
}
