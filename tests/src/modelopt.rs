//! Holds exported tensors against what ModelOpt's `tensors.json` says of its own.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::checkpoint::Tensor;

/// How close tensors are to be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Closeness {
    /// Every byte but scales of activations, which may be off by 1%.
    Bytes,
    /// Types and shapes.
    Shapes,
}

/// What differs: names, types and shapes, and bytes where those are asked for.
pub fn faults(ours: &BTreeMap<String, Tensor>, theirs: &Value, asked: Closeness) -> Vec<String> {
    let theirs = theirs.as_object().expect("names of tensors");
    let missing =
        theirs.keys().filter(|name| !ours.contains_key(*name)).map(|name| format!("{name}: missing"));
    let extra = ours.keys().filter(|name| !theirs.contains_key(*name)).map(|name| format!("{name}: extra"));
    let differing = theirs.iter().filter_map(|(name, entry)| {
        let own = ours.get(name)?;
        match asked {
            Closeness::Bytes => {
                let is_nvfp4 = theirs.contains_key(&name.replace("input_scale", "weight_scale_2"))
                    && name.ends_with("input_scale");
                fault_of_bytes(name, own, entry, is_nvfp4)
            }
            Closeness::Shapes => fault_of_shape(name, own, entry),
        }
    });
    missing.chain(extra).chain(differing).collect()
}

fn fault_of_shape(name: &str, ours: &Tensor, theirs: &Value) -> Option<String> {
    let shape: Vec<usize> = serde_json::from_value(theirs["shape"].clone()).expect("a shape");
    let fits = theirs["dtype"] == ours.dtype.as_str() && shape == ours.shape;
    (!fits).then(|| format!("{name}: {} {:?}, ModelOpt has {theirs}", ours.dtype, ours.shape))
}

/// The fault of one tensor, if any.
fn fault_of_bytes(name: &str, ours: &Tensor, theirs: &Value, is_nvfp4: bool) -> Option<String> {
    if let Some(fault) = fault_of_shape(name, ours, theirs) {
        return Some(fault);
    }
    let last = name.rsplit('.').next().unwrap_or(name);
    if !["input_scale", "k_scale", "v_scale"].contains(&last) {
        let same = theirs["sha256"] == ours.digest().as_str();
        return (!same).then(|| format!("{name}: other bytes than ModelOpt's"));
    }
    // A scale is amax over the largest value of its format: 448 for E4M3, 6 · 448 for NVFP4's two levels.
    let largest = if is_nvfp4 { 6.0 * 448.0 } else { 448.0 };
    let (mine, reference) =
        (f64::from(ours.scalar()), theirs["value"].as_f64().expect("the value of a scalar"));
    let tolerance = (0.01 * reference).max(2.0 * bf16_ulp(reference * largest) / largest);
    let fits = (mine - reference).abs() <= tolerance;
    (!fits).then(|| {
        format!("{name}: {mine}, ModelOpt has {reference} ({:+.2}%)", 100.0 * (mine / reference - 1.0))
    })
}

/// Distance between neighbouring bf16 numbers (8 significant bits) around a positive value.
fn bf16_ulp(value: f64) -> f64 {
    2f64.powi(value.log2().floor() as i32 - 7)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_comparison_sees_a_changed_byte_a_wrong_shape_and_a_scale_that_is_off() {
        let scale =
            |value: f32| Tensor { dtype: "F32".into(), shape: vec![], bytes: value.to_le_bytes().to_vec() };
        let entry = |value: f32| serde_json::json!({"dtype": "F32", "shape": [], "value": value, "sha256": scale(value).digest()});
        let fault =
            |name: &str, tensor: Tensor, value: f32| fault_of_bytes(name, &tensor, &entry(value), false);
        assert_eq!(fault("a.weight_scale", scale(0.5), 0.5), None);
        assert!(fault("a.weight_scale", scale(0.500_001), 0.5).is_some(), "weights are exact");
        assert_eq!(fault("a.input_scale", scale(0.5045), 0.5), None, "within 1%");
        assert!(fault("a.input_scale", scale(0.51), 0.5).is_some(), "2% is too much");
        let reshaped = Tensor { shape: vec![1], ..scale(0.5) };
        assert!(fault("a.input_scale", reshaped, 0.5).is_some(), "a shape is exact");
        assert!((bf16_ulp(1.0) - 1.0 / 128.0).abs() < 1e-12 && (bf16_ulp(255.0) - 1.0).abs() < 1e-12);
    }

    #[test]
    fn a_tensor_too_few_or_too_many_is_a_fault() {
        let tensor = Tensor { dtype: "F32".into(), shape: vec![], bytes: vec![0; 4] };
        let ours = BTreeMap::from([("a".to_owned(), tensor)]);
        let found =
            faults(&ours, &serde_json::json!({"b": {"dtype": "F32", "shape": []}}), Closeness::Shapes);
        assert_eq!(found, ["b: missing", "a: extra"]);
    }
}
