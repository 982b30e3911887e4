//! Surveys: models that are not all there, and families that nobody knows.

use std::path::Path;

use serde_json::{Value, json};

use super::{Family, FusedGroup, Model, ModuleRole, Part, QuantizerHome, Survey, fixture};
use crate::Error;
use crate::checkpoint::{DType, INDEX, Layout, PlannedTensor, SINGLE};

/// The fixture without its weights, with an index if one is asked for.
fn without_weights(index: Option<Value>) -> Result<Survey, Error> {
    let folder = tempfile::tempdir().unwrap();
    fixture::write(folder.path(), &fixture::config());
    std::fs::remove_file(folder.path().join(SINGLE)).unwrap();
    if let Some(index) = index {
        std::fs::write(folder.path().join(INDEX), index.to_string()).unwrap();
    }
    Survey::of(folder.path())
}

/// An index of all tensors of the fixture.
fn index() -> Value {
    let folder = tempfile::tempdir().unwrap();
    fixture::write(folder.path(), &fixture::config());
    let model = Model::open(folder.path()).unwrap();
    let map: serde_json::Map<String, Value> =
        model.files.tensors().map(|t| (t.name.clone(), json!("model-00001-of-00001.safetensors"))).collect();
    let total: u64 = model.files.tensors().map(|tensor| tensor.length).sum();
    json!({ "metadata": { "total_size": total }, "weight_map": map })
}

/// A model of tensors of these names and shapes, all bf16.
fn write(folder: &Path, config: &Value, tensors: &[(&str, &[usize])]) {
    std::fs::write(folder.join("config.json"), config.to_string()).unwrap();
    let tensors: Vec<PlannedTensor> = tensors
        .iter()
        .map(|(name, shape)| PlannedTensor {
            name: (*name).to_owned(),
            dtype: DType::BF16,
            shape: shape.to_vec(),
        })
        .collect();
    let layout = Layout::plan(&tensors, u64::MAX, &Default::default()).unwrap();
    let mut bytes = layout.shards[0].header.clone();
    bytes.resize(layout.shards[0].bytes as usize, 0);
    std::fs::write(folder.join(SINGLE), bytes).unwrap();
}

/// A mixture of experts with a shared expert, linear attention, a vision tower and a layer that predicts two tokens ahead.
fn strange(config: Value) -> Survey {
    let folder = tempfile::tempdir().unwrap();
    write(
        folder.path(),
        &config,
        &[
            ("lm_head.weight", &[64, 32]),
            ("model.language_model.embed_tokens.weight", &[64, 32]),
            ("model.language_model.layers.10.linear_attn.conv1d.weight", &[32, 1, 4]),
            ("model.language_model.layers.10.linear_attn.in_proj_a.weight", &[4, 32]),
            ("model.language_model.layers.10.linear_attn.in_proj_b.weight", &[4, 32]),
            ("model.language_model.layers.10.linear_attn.in_proj_qkv.weight", &[96, 32]),
            ("model.language_model.layers.10.linear_attn.in_proj_z.weight", &[32, 32]),
            ("model.language_model.layers.2.input_layernorm.weight", &[32]),
            ("model.language_model.layers.2.mlp.experts.down_proj", &[4, 32, 16]),
            ("model.language_model.layers.2.mlp.experts.gate_up_proj", &[4, 32, 32]),
            ("model.language_model.layers.2.mlp.gate.weight", &[4, 32]),
            ("model.language_model.layers.2.mlp.shared_expert.up_proj.weight", &[16, 32]),
            ("model.language_model.layers.2.mlp.shared_expert_gate.weight", &[1, 32]),
            ("model.language_model.layers.2.self_attn.k_proj.bias", &[16]),
            ("model.language_model.layers.2.self_attn.k_proj.weight", &[16, 32]),
            ("model.language_model.layers.2.self_attn.q_proj.weight", &[32, 32]),
            ("model.language_model.layers.2.self_attn.v_proj.weight", &[16, 32]),
            ("model.language_model.layers.11.mlp.up_proj.weight", &[16, 32]),
            ("model.visual.blocks.0.attn.qkv.weight", &[96, 32]),
        ],
    );
    Survey::of(folder.path()).unwrap()
}

fn strange_config() -> Value {
    json!({
        "model_type": "strange_moe", "architectures": ["StrangeForConditionalGeneration"],
        "text_config": { "num_hidden_layers": 11, "num_experts": 4, "num_experts_per_tok": 2 },
    })
}

#[test]
fn a_model_that_is_all_there_is_opened_as_always() {
    let folder = tempfile::tempdir().unwrap();
    fixture::write(folder.path(), &fixture::config());
    let survey = Survey::of(folder.path()).unwrap();
    assert!(survey.remarks.is_empty());
    assert_eq!(survey.model.files.bytes(), Model::open(folder.path()).unwrap().files.bytes());
}

#[test]
fn config_and_index_tell_the_same_modules_and_bytes_as_the_weights() {
    let folder = tempfile::tempdir().unwrap();
    fixture::write(folder.path(), &fixture::config());
    let whole = Model::open(folder.path()).unwrap();
    let survey = without_weights(Some(index())).unwrap();
    assert_eq!(survey.model.modules, whole.modules);
    assert_eq!(survey.model.parameters(), whole.parameters());
    let shapes = |model: &Model| {
        let mut all: Vec<_> =
            model.files.tensors().map(|t| (t.name.clone(), t.dtype, t.shape.clone(), t.length)).collect();
        all.sort();
        all
    };
    assert_eq!(shapes(&survey.model), shapes(&whole));
    assert_eq!(survey.remarks.len(), 1, "{:?}", survey.remarks);
    assert!(survey.remarks[0].contains("the weights are not here"), "{:?}", survey.remarks);
}

#[test]
fn a_config_alone_is_enough_for_a_known_family() {
    let survey = without_weights(None).unwrap();
    assert!(survey.remarks[0].contains("neither weights nor an index"), "{:?}", survey.remarks);
    assert_eq!(survey.model.modules.len(), 2 + 1 + 2 * 10);
}

#[test]
fn an_index_of_another_model_is_refused_by_tensor() {
    let mut other = index();
    other["weight_map"].as_object_mut().unwrap().remove("model.layers.1.mlp.up_proj.weight");
    let error = without_weights(Some(other)).unwrap_err();
    assert_eq!(error.place.key.as_deref(), Some("model.layers.1.mlp.up_proj.weight"));
    assert!(error.place.file.unwrap().ends_with(INDEX));
}

#[test]
fn tensors_of_the_index_that_no_module_owns_are_said() {
    let mut other = index();
    other["weight_map"]["model.rotary.inv_freq"] = json!("model-00001-of-00001.safetensors");
    other["metadata"]["total_size"] = json!(1_000_000);
    let remarks = without_weights(Some(other)).unwrap().remarks;
    assert!(remarks.iter().any(|remark| remark.contains("1000000 bytes")), "{remarks:?}");
    assert!(remarks.iter().any(|remark| remark.contains("`model.rotary.inv_freq`")), "{remarks:?}");
}

#[test]
fn an_unknown_family_without_weights_says_what_to_fetch() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("config.json"), strange_config().to_string()).unwrap();
    let error = Survey::of(folder.path()).unwrap_err();
    assert!(error.message.contains("`strange_moe`"), "{error}");
    assert!(error.hint.unwrap().contains("fetch the safetensors files"));
}

#[test]
fn an_unknown_family_is_refused_where_it_would_run() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), &strange_config(), &[("lm_head.weight", &[64, 32])]);
    let error = Model::open(folder.path()).unwrap_err();
    assert!(error.message.contains("`strange_moe`"), "{error}");
}

#[test]
fn an_unknown_family_is_told_from_names_and_shapes() {
    let survey = strange(strange_config());
    assert!(survey.remarks[0].contains("`strange_moe`"), "{:?}", survey.remarks);
    let model = &survey.model;
    assert_eq!(model.config.family, Family::Other);
    let find = |name: &str| model.modules.iter().find(|module| module.name == name).unwrap();
    let text = "model.language_model.layers";
    assert_eq!(find(&format!("{text}.2.self_attn")).role, ModuleRole::Attention);
    assert_eq!(find(&format!("{text}.2.self_attn.k_proj")).layer, Some(2));
    assert_eq!(find(&format!("{text}.2.input_layernorm")).role, ModuleRole::Norm { width: 32 });
    assert_eq!(find("model.visual.blocks.0.attn.qkv").part, Part::Vision);
    assert_eq!(find("model.visual.blocks.0.attn.qkv").layer, None);
    assert_eq!(find("lm_head").part, Part::Head);
    assert_eq!(find(&format!("{text}.2.mlp.shared_expert.up_proj")).part, Part::SharedExpert);
    let group = |name: &str| match find(name).role {
        ModuleRole::Linear { group, .. } => group,
        _ => None,
    };
    assert_eq!(group(&format!("{text}.10.linear_attn.in_proj_z")), Some(FusedGroup::LinearInputs));
    assert_eq!(group(&format!("{text}.10.linear_attn.in_proj_a")), Some(FusedGroup::LinearGates));
    assert_eq!(
        find("model.language_model.embed_tokens").role,
        ModuleRole::Embedding { rows: 64, columns: 32 }
    );
    // A convolution is no linear, and a layer beyond the config's is not loaded.
    assert_eq!(
        model.strangers,
        [format!("{text}.10.linear_attn.conv1d.weight"), format!("{text}.11.mlp.up_proj.weight")]
    );
    let layer = |module: &super::Module| module.layer;
    let layers: Vec<usize> = model.modules.iter().filter_map(layer).collect();
    assert!(layers.is_sorted(), "{layers:?}");
}

#[test]
fn fused_experts_of_an_unknown_family_stand_one_by_one() {
    let survey = strange(strange_config());
    let model = &survey.model;
    let experts: Vec<_> = model.modules.iter().filter(|module| module.expert() == Some(3)).collect();
    let names: Vec<&str> = experts.iter().map(|module| module.name.rsplit('.').next().unwrap()).collect();
    assert_eq!(names, ["down_proj", "gate_proj", "up_proj"]);
    assert_eq!(model.weight(experts[1]).unwrap().shape, [16, 32]);
    assert_eq!(model.weight(experts[0]).unwrap().shape, [32, 16]);
    assert_eq!(
        experts[2].quantizer_home(),
        QuantizerHome::Experts {
            container: "model.language_model.layers.2.mlp.experts",
            tensor: "gate_up_proj",
            expert: 3
        }
    );
}

#[test]
fn code_of_its_own_keeps_experts_and_routers_as_linears() {
    let mut config = strange_config();
    config["auto_map"] = json!({ "AutoModelForCausalLM": "modeling_strange.Strange" });
    let survey = strange(config);
    let homes = |part: Part| {
        let module = survey.model.modules.iter().find(|module| module.part == part).unwrap();
        module.quantizer_home()
    };
    assert_eq!(homes(Part::Expert(3)), QuantizerHome::Linear);
    assert_eq!(homes(Part::Gate), QuantizerHome::Linear);
}
