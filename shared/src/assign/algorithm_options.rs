//! Reading the options of calibration algorithms: names, ranges and old spellings (modelopt.md §1.5, §4).

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::algorithm::{
    Algorithm, AwqClip, AwqFull, AwqLite, Gptq, Headroom, Max, Options, Search, SmoothQuant, Step, SvdQuant,
    wrong,
};
use crate::Result;
use crate::yaml::closest;

const METHODS: [&str; 10] = [
    "max",
    "mse",
    "local_hessian",
    "nvfp4_act_headroom",
    "smoothquant",
    "awq_lite",
    "awq_clip",
    "awq_full",
    "gptq",
    "svdquant",
];

/// The value of `method`: a name, or what stands for none.
pub(super) fn method(value: &Value) -> Option<&Value> {
    match value {
        Value::String(_) | Value::Null => Some(value),
        Value::Object(map) => map.get("method"),
        _ => None,
    }
}

/// One step of a recipe's `algorithm`.
pub(super) fn step(value: &Value) -> Result<Step> {
    let name = match method(value) {
        Some(Value::String(name)) => name.as_str(),
        _ => {
            return Err(wrong(format!("the calibration algorithm `{value}` has no `method`"))
                .hint("write a name such as `max`, or `{method: max}`"));
        }
    };
    let mut options = value.as_object().cloned().unwrap_or_default();
    options.remove("method");
    let experts_ratio = take::<f64>(&mut options, "moe_calib_experts_ratio")?;
    if experts_ratio.is_some_and(|ratio| !(ratio > 0.0 && ratio <= 1.0)) {
        return Err(wrong("`moe_calib_experts_ratio` must be above 0 and at most 1".to_owned()));
    }
    let quantized_predecessors = layerwise(&mut options, name)?;
    Ok(Step { algorithm: algorithm(name, options)?, quantized_predecessors, experts_ratio })
}

/// Whether a layer is calibrated behind quantized ones.
fn layerwise(options: &mut Options, name: &str) -> Result<bool> {
    for old in ["use_sequential", "layerwise_checkpoint_dir"] {
        if options.contains_key(old) {
            return Err(wrong(format!("`{old}` was removed from ModelOpt"))
                .hint("write `layerwise: {enable: true, checkpoint_dir: …}`"));
        }
    }
    let given = options.remove("layerwise").unwrap_or(Value::Null);
    let mut given = match given {
        Value::Null => Options::new(),
        Value::Object(map) => map,
        Value::Bool(on) => {
            return Err(wrong("`layerwise` is no longer a switch".to_owned())
                .hint(format!("write `layerwise: {{enable: {on}}}`")));
        }
        other => return Err(wrong(format!("`layerwise` must be a mapping, not `{other}`"))),
    };
    let enable = take::<bool>(&mut given, "enable")?.unwrap_or(false);
    let mutates = take::<bool>(&mut given, "calib_mutates_weights")?.unwrap_or(true);
    let folder = take::<String>(&mut given, "checkpoint_dir")?;
    let behind = take::<bool>(&mut given, "get_qdq_activations_from_prev_layer")?.unwrap_or(name == "gptq");
    if take::<i64>(&mut given, "save_every")?.is_some_and(|every| every < 1) {
        return Err(wrong("`layerwise.save_every` must be at least 1".to_owned()));
    }
    if let Some(key) = given.keys().next() {
        return Err(unknown(&format!("layerwise.{key}"), name));
    }
    if folder.is_some() && !enable {
        return Err(wrong("`layerwise.checkpoint_dir` needs `layerwise.enable: true`".to_owned()));
    }
    if !mutates && !matches!(name, "max" | "mse" | "local_hessian" | "nvfp4_act_headroom") {
        return Err(wrong(format!(
            "`{name}` changes weights: `calib_mutates_weights: false` would lose that"
        )));
    }
    if enable && name == "svdquant" {
        return Err(wrong("`svdquant` cannot be calibrated layer by layer".to_owned()));
    }
    Ok(enable && behind)
}

fn algorithm(name: &str, mut options: Options) -> Result<Algorithm> {
    // Options that change nothing on one machine, or only what is printed.
    let idle: &[&str] = match name {
        "max" => &["distributed_sync", "shared_states", "skip_forward_without_activation_calib"],
        "mse" => &["distributed_sync", "shared_states"],
        "local_hessian" => &["distributed_sync", "shared_states", "debug"],
        "awq_lite" => &["debug"],
        "awq_clip" | "awq_full" => &["debug", "max_co_batch_size"],
        _ => &[],
    };
    for key in idle {
        options.remove(*key);
    }
    Ok(match name {
        "max" => Algorithm::Max(rest::<Max>(name, options)?),
        "mse" => Algorithm::Mse(search(name, options, false)?),
        "local_hessian" => Algorithm::LocalHessian(search(name, options, true)?),
        "nvfp4_act_headroom" => Algorithm::ActHeadroom(headroom(name, options)?),
        "smoothquant" => {
            let smooth = rest::<SmoothQuant>(name, options)?;
            within("alpha", smooth.alpha, 0.0, 1.0)?;
            Algorithm::SmoothQuant(smooth)
        }
        "awq_lite" => Algorithm::AwqLite(lite(name, options)?),
        "awq_clip" => Algorithm::AwqClip(clip(name, options)?),
        "awq_full" => {
            let step = options.remove("alpha_step");
            let first = step.into_iter().map(|step| ("alpha_step".to_owned(), step)).collect();
            Algorithm::AwqFull(AwqFull { lite: lite(name, first)?, clip: clip(name, options)? })
        }
        "gptq" => {
            let gptq = rest::<Gptq>(name, options)?;
            if !(gptq.perc_damp > 0.0 && gptq.perc_damp <= 1.0) {
                return Err(wrong("`perc_damp` must be above 0 and at most 1".to_owned()));
            }
            if gptq.block_size == 0 || (gptq.fused && !gptq.block_size.is_multiple_of(16)) {
                return Err(wrong(
                    "`block_size` must be positive, and a multiple of 16 if `fused`".to_owned(),
                ));
            }
            Algorithm::Gptq(gptq)
        }
        "svdquant" => {
            let lowrank = take::<usize>(&mut options, "lowrank")?.unwrap_or(32);
            let skip_layers = take::<Vec<String>>(&mut options, "skip_layers")?.unwrap_or_default();
            rest::<Nothing>(name, options)?;
            Algorithm::SvdQuant(SvdQuant { lowrank, skip_layers })
        }
        "lsq" => {
            return Err(wrong("`lsq` learns its scales by training".to_owned()).hint(
                "take the recipe's `scale_algorithm` as its algorithm: `algorithm: {method: mse, …}`",
            ));
        }
        other => {
            let close = closest(other, METHODS).map(|name| format!("did you mean `{name}`?"));
            return Err(wrong(format!("there is no calibration algorithm `{other}`"))
                .hint(close.unwrap_or_else(|| format!("known: {}", METHODS.join(", ")))));
        }
    })
}

/// An algorithm without options.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

fn search(name: &str, mut options: Options, sweep: bool) -> Result<Search> {
    let usual = Search::default();
    let read = Search {
        step_size: take(&mut options, "step_size")?.unwrap_or(usual.step_size),
        start_multiplier: take(&mut options, "start_multiplier")?.unwrap_or(usual.start_multiplier),
        stop_multiplier: take(&mut options, "stop_multiplier")?.unwrap_or(usual.stop_multiplier),
        fp8_scale_sweep: take(&mut options, "fp8_scale_sweep")?.unwrap_or(sweep),
        block_size: match name {
            "local_hessian" => take(&mut options, "block_size")?.unwrap_or(usual.block_size),
            _ => usual.block_size,
        },
    };
    rest::<Nothing>(name, options)?;
    let steps = (read.stop_multiplier - read.start_multiplier) / read.step_size;
    if !(read.step_size > 0.0 && read.start_multiplier > 0.0 && (0.0..1e4).contains(&steps)) {
        return Err(wrong(format!(
            "`{name}` tries no multiplier from {} to {} in steps of {}",
            read.start_multiplier, read.stop_multiplier, read.step_size
        )));
    }
    if read.block_size == 0 {
        return Err(wrong("`block_size` must be positive".to_owned()));
    }
    Ok(read)
}

fn headroom(name: &str, mut options: Options) -> Result<Headroom> {
    let weights = options.remove("weight_scale_algorithm");
    let weights = match &weights {
        Some(one) => step(one)?.algorithm,
        None => Algorithm::Max(Max::default()),
    };
    if !matches!(weights, Algorithm::Max(_) | Algorithm::Mse(_) | Algorithm::LocalHessian(_)) {
        return Err(wrong(format!("`weight_scale_algorithm` cannot be `{}`", weights.name()))
            .hint("use `max`, `mse` or `local_hessian`"));
    }
    let read = Headroom {
        anchor_percentile: take(&mut options, "anchor_percentile")?.unwrap_or(1.0),
        upper_percentile: take(&mut options, "upper_percentile")?.unwrap_or(99.99),
        rho: take(&mut options, "rho")?.unwrap_or(16384.0),
        weights: Box::new(weights),
    };
    rest::<Nothing>(name, options)?;
    within("anchor_percentile", read.anchor_percentile, 0.0, 100.0)?;
    within("upper_percentile", read.upper_percentile, 0.0, 100.0)?;
    if !(read.rho > 0.0 && read.rho < 28672.0) {
        return Err(wrong("`rho` must be above 0 and below 28672".to_owned()));
    }
    Ok(read)
}

fn lite(name: &str, options: Options) -> Result<AwqLite> {
    let lite = rest::<AwqLite>(name, options)?;
    if !(lite.alpha_step > 0.0 && lite.alpha_step <= 1.0) {
        return Err(wrong("`alpha_step` must be above 0 and at most 1".to_owned()));
    }
    Ok(lite)
}

fn clip(name: &str, options: Options) -> Result<AwqClip> {
    let clip = rest::<AwqClip>(name, options)?;
    let usable = clip.min_clip_ratio > 0.0 && clip.min_clip_ratio < 1.0 && clip.shrink_step > 0.0;
    if !usable || clip.shrink_step > 1.0 || clip.max_tokens_per_batch == 0 {
        return Err(wrong(format!("`{name}` needs ratios and steps between 0 and 1, and some tokens")));
    }
    Ok(clip)
}

fn within(key: &str, value: f64, low: f64, high: f64) -> Result<()> {
    if (low..=high).contains(&value) {
        return Ok(());
    }
    Err(wrong(format!("`{key}` is {value}, and must be from {low} to {high}")))
}

/// Takes one option out; null is as good as absent.
fn take<T: DeserializeOwned>(options: &mut Options, key: &str) -> Result<Option<T>> {
    match options.remove(key) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => serde_json::from_value(value.clone())
            .map(Some)
            .map_err(|e| wrong(format!("`{key}` cannot be `{value}`: {e}"))),
    }
}

/// Reads what is left as the options of an algorithm; nulls mean the default.
fn rest<T: DeserializeOwned>(name: &str, mut options: Options) -> Result<T> {
    options.retain(|_, value| !value.is_null());
    serde_json::from_value(Value::Object(options)).map_err(|e| {
        wrong(format!("options of `{name}`: {e}"))
            .hint("`qlaunch recipe show` prints the recipe as it is read")
    })
}

fn unknown(key: &str, name: &str) -> crate::Error {
    wrong(format!("`{name}` has no option `{key}`"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::algorithm::Calibration;
    use super::*;

    fn steps(value: serde_json::Value) -> Vec<Step> {
        Calibration::parse(&value).unwrap().steps
    }

    fn message(value: serde_json::Value) -> String {
        let error = Calibration::parse(&value).unwrap_err();
        assert_eq!(error.place.key.as_deref(), Some("quantize.algorithm"));
        error.to_string()
    }

    #[test]
    fn names_mappings_lists_and_null_are_algorithms() {
        assert_eq!(steps(json!(null)), []);
        assert_eq!(steps(json!({ "method": null })), []);
        assert_eq!(steps(json!("awq_lite")), steps(json!({ "method": "awq_lite", "alpha_step": 0.1 })));
        let names: Vec<&str> =
            steps(json!(["max", { "method": "gptq" }])).iter().map(|step| step.algorithm.name()).collect();
        assert_eq!(names, ["max", "gptq"]);
    }

    #[test]
    fn gptq_stands_behind_quantized_layers_where_it_goes_layer_by_layer() {
        let behind = |value| steps(value)[0].quantized_predecessors;
        assert!(!behind(json!({ "method": "gptq" })));
        assert!(behind(json!({ "method": "gptq", "layerwise": { "enable": true } })));
        assert!(!behind(json!({ "method": "mse", "layerwise": { "enable": true } })));
        let off = json!({ "enable": true, "get_qdq_activations_from_prev_layer": false });
        assert!(!behind(json!({ "method": "gptq", "layerwise": off })));
    }

    #[test]
    fn local_hessian_sweeps_unless_told_otherwise() {
        let Algorithm::LocalHessian(search) = &steps(json!("local_hessian"))[0].algorithm else { panic!() };
        assert!(search.fp8_scale_sweep);
        assert_eq!(search.block_size, 16);
    }

    #[test]
    fn old_forms_are_refused_with_the_new_one() {
        assert!(message(json!({ "method": "max", "layerwise": true })).contains("layerwise: {enable: true}"));
        assert!(message(json!({ "method": "max", "use_sequential": true })).contains("was removed"));
    }

    #[test]
    fn what_is_not_known_is_named() {
        assert!(message(json!("awq_light")).contains("did you mean `awq_lite`"));
        assert!(message(json!({ "method": "awq_lite", "alpha": 1 })).contains("unknown field `alpha`"));
        assert!(message(json!({ "method": "max", "layerwise": { "on": true } })).contains("layerwise.on"));
        assert!(message(json!({ "method": "smoothquant", "alpha": 1.5 })).contains("from 0 to 1"));
        assert!(message(json!({ "method": "mse", "step_size": 0 })).contains("tries no multiplier"));
        assert!(message(json!({ "method": "lsq" })).contains("by training"));
    }
}
