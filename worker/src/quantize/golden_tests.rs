//! Weights of the example models against the bytes that ModelOpt 0.47 stores (tests/golden/README.md).

use std::path::{Path, PathBuf};

use qlaunch_shared::model::Model;
use qlaunch_shared::numerics::{Format, Nvfp4Scales};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{Magnitudes, magnitudes, quantize_weight};
use crate::network::SourceWeights;
use crate::tensor::MappedCheckpoint;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Quantizes every linear that ModelOpt quantized, and compares all that is stored of it. Magnitudes of fused groups are
/// those of the group where ModelOpt merges them, so they are given.
fn compare(golden: &str, format: Format) {
    let (model, golden) = golden.split_once('/').unwrap();
    let folder = root().join("examples/models").join(model);
    let text =
        std::fs::read(root().join(format!("tests/golden/modelopt/{model}/{golden}/tensors.json"))).unwrap();
    let expected: Value = serde_json::from_slice(&text).unwrap();
    let model = Model::open(&folder).unwrap();
    let files = MappedCheckpoint::open(model.files.clone()).unwrap();
    let weights = SourceWeights::new(&model, &files);
    let found: Vec<(String, Magnitudes)> = linears(&model, &expected)
        .map(|(module, name)| (name, weights.look(module, |view| magnitudes(view, format)).unwrap()))
        .collect();
    let mut compared = 0;
    for (module, name) in linears(&model, &expected) {
        let mut own = found.iter().find(|(other, _)| *other == name).unwrap().1.clone();
        if format.has_tensor_scale() {
            let group = group_of(&name);
            let members = found.iter().filter(|(other, _)| group_of(other) == group);
            own.tensor = members.map(|(_, member)| member.tensor).fold(0.0, f32::max);
        }
        // ModelOpt merges whatever magnitude is a scalar, a single square's too, of all but plain FP8; experts' squares are
        // cut out of a fused tensor's, and no scalars.
        if matches!(format, Format::Fp8Block { .. }) && own.fine.len() == 1 && !name.contains(".experts.") {
            let group = group_of(&name);
            let members = found.iter().filter(|(other, _)| group_of(other) == group);
            own.fine[0] = members.map(|(_, member)| member.fine[0]).fold(0.0, f32::max);
        }
        let stored = weights.look(module, |view| quantize_weight(view, format, &own)).unwrap();
        for (suffix, bytes) in stored {
            let key = format!("{name}.{suffix}");
            assert_eq!(expected[&key]["sha256"], digest(&bytes).as_str(), "{golden}: {key}");
            compared += 1;
        }
    }
    assert!(compared >= 56, "{golden}: only {compared} tensors were compared");
}

fn linears<'a>(model: &'a Model, expected: &'a Value) -> impl Iterator<Item = (usize, String)> + 'a {
    let all = model.modules.iter().enumerate();
    all.filter(|(_, part)| !expected[format!("{}.weight_scale", part.name)].is_null())
        .map(|(module, part)| (module, part.name.clone()))
}

/// The name with what tells members of a fused group apart replaced.
fn group_of(name: &str) -> String {
    let (owner, last) = name.rsplit_once('.').unwrap();
    let group = match last {
        "q_proj" | "k_proj" | "v_proj" => "qkv",
        "gate_proj" | "up_proj" => "gate_up",
        other => other,
    };
    format!("{owner}.{group}")
}

macro_rules! stored {
    ($($test:ident: $golden:literal $format:expr;)*) => {$(
        #[test]
        fn $test() {
            compare($golden, $format);
        }
    )*};
}

stored! {
    fp8_is_stored_as_modelopt_stores_it: "tiny-llama/fp8-kv_fp8" Format::Fp8;
    fp8_per_channel_is_stored_as_modelopt_stores_it: "tiny-llama/fp8_per_channel_per_token" Format::Fp8Channel;
    fp8_in_squares_is_stored_as_modelopt_stores_it:
        "tiny-llama/fp8_2d_blockwise_weight_only" Format::Fp8Block { block: 128 };
    int8_is_stored_as_modelopt_stores_it: "tiny-llama/int8_weight_only" Format::Int8Channel;
    int4_is_stored_as_modelopt_stores_it: "tiny-llama/int4_blockwise_weight_only" Format::Int4 { block: 128 };
    nvfp4_is_stored_as_modelopt_stores_it: "tiny-llama/w4a16_nvfp4" Format::NVFP4;
    nvfp4_under_fp8_is_stored_as_modelopt_stores_it:
        "tiny-llama/w4a8_nvfp4_fp8" Format::Nvfp4 { block: 32, scales: Nvfp4Scales::UnderFp8 };
    mxfp4_is_stored_as_modelopt_stores_it: "tiny-llama/mxfp4" Format::Mxfp4;
    mxfp8_is_stored_as_modelopt_stores_it: "tiny-llama/mxfp8" Format::Mxfp8;
    experts_in_mxfp8_are_stored_as_modelopt_stores_them: "tiny-qwen3-moe/mxfp8" Format::Mxfp8;
    experts_in_int8_are_stored_as_modelopt_stores_them: "tiny-qwen3-moe/int8_weight_only" Format::Int8Channel;
    experts_in_fp8_squares_are_stored_as_modelopt_stores_them:
        "tiny-qwen3-moe/fp8_2d_blockwise_weight_only" Format::Fp8Block { block: 128 };
}
