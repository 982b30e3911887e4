//! Opening models: what is understood, and what is refused with which words.

use serde_json::{Value, json};

use super::{Family, Model, ModelConfig, RopeScaling, fixture};
use crate::Error;

fn open(change: impl FnOnce(&mut Value)) -> Result<Model, Error> {
    let folder = tempfile::tempdir().unwrap();
    fixture::write(folder.path(), &fixture::config());
    let mut config = fixture::config();
    change(&mut config);
    std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    Model::open(folder.path())
}

fn parse(change: impl FnOnce(&mut Value)) -> Result<ModelConfig, Error> {
    let mut config = fixture::config();
    change(&mut config);
    ModelConfig::parse("config.json".as_ref(), config.as_object().unwrap())
}

#[test]
fn a_llama_opens_with_modules_in_torch_order() {
    let model = open(|_| ()).unwrap();
    let names: Vec<&str> = model.modules.iter().map(|module| module.name.as_str()).collect();
    assert_eq!(
        names[..3],
        ["model.embed_tokens", "model.layers.0.self_attn", "model.layers.0.self_attn.q_proj"]
    );
    assert_eq!(names[names.len() - 2..], ["model.norm", "lm_head"]);
    assert!(model.strangers.is_empty());
    assert_eq!(model.config.head_dim, 16);
}

#[test]
fn both_spellings_of_dtype_and_rope_mean_the_same() {
    let older = parse(|c| c["rope_scaling"] = json!({"type": "linear", "factor": 2.0})).unwrap();
    let current = parse(|c| {
        let map = c.as_object_mut().unwrap();
        map.remove("torch_dtype");
        map.remove("rope_theta");
        map.insert("dtype".into(), json!("bfloat16"));
        map.insert(
            "rope_parameters".into(),
            json!({"rope_theta": 10000.0, "rope_type": "linear", "factor": 2.0}),
        );
    });
    assert_eq!(older, current.unwrap());
    assert_eq!(older.rope.scaling, RopeScaling::Linear { factor: 2.0 });
}

#[test]
fn windows_follow_the_family() {
    let mistral = parse(|c| {
        c["model_type"] = json!("mistral");
        c["architectures"] = json!(["MistralForCausalLM"]);
        c["sliding_window"] = json!(8);
    });
    assert_eq!(mistral.unwrap().windows, [Some(8), Some(8)]);
    let qwen = |use_window: bool| {
        parse(|c| {
            c["model_type"] = json!("qwen2");
            c["architectures"] = json!(["Qwen2ForCausalLM"]);
            c["sliding_window"] = json!(8);
            c["use_sliding_window"] = json!(use_window);
            c["max_window_layers"] = json!(1);
        })
        .unwrap()
    };
    assert_eq!(qwen(true).windows, [None, Some(8)]);
    assert_eq!(qwen(false).windows, [None, None]);
    assert_eq!(qwen(false).family, Family::Qwen2);
}

#[test]
fn an_unknown_family_names_the_known_ones() {
    let error = parse(|c| c["model_type"] = json!("mamba")).unwrap_err();
    assert!(error.message.contains("`mamba`"), "{error}");
    assert!(error.hint.as_deref().unwrap_or_default().contains("`qwen3`"), "{error}");
}

#[test]
fn an_unknown_rope_scaling_names_the_known_ones() {
    let error = parse(|c| c["rope_scaling"] = json!({"rope_type": "longrope", "factor": 2.0})).unwrap_err();
    assert!(error.to_string().contains("yarn"), "{error}");
}

#[test]
fn a_shape_that_contradicts_the_config_is_refused_by_tensor() {
    let error = open(|c| c["intermediate_size"] = json!(96)).unwrap_err();
    assert_eq!(error.place.key.as_deref(), Some("model.layers.0.mlp.gate_proj.weight"));
    assert!(error.message.contains("wrong shape"), "{error}");
}

#[test]
fn a_dtype_that_contradicts_the_config_is_refused_by_tensor() {
    let error = open(|c| c["torch_dtype"] = json!("float32")).unwrap_err();
    assert!(error.message.contains("wrong dtype BF16"), "{error}");
}

#[test]
fn a_quantized_source_is_refused() {
    let error = open(|c| c["quantization_config"] = json!({"quant_method": "modelopt"})).unwrap_err();
    assert!(error.message.contains("already quantized"), "{error}");
}

#[test]
fn a_tied_head_needs_no_tensor() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = fixture::config();
    config["tie_word_embeddings"] = json!(true);
    fixture::write(folder.path(), &config);
    let model = Model::open(folder.path()).unwrap();
    let head = model.modules.last().unwrap();
    assert!(model.is_tied_head(head));
    assert_eq!(model.weight(head).unwrap().name, "model.embed_tokens.weight");
}

#[test]
fn a_truncated_file_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    fixture::write(folder.path(), &fixture::config());
    let path = folder.path().join("model.safetensors");
    let bytes = std::fs::read(&path).unwrap();
    for length in [0, 4, 100, bytes.len() - 1] {
        std::fs::write(&path, &bytes[..length]).unwrap();
        let error = Model::open(folder.path()).unwrap_err();
        assert_eq!(error.place.file.as_deref(), Some(path.as_path()));
        assert!(error.message.contains("truncated"), "{length}: {error}");
    }
}

#[test]
fn what_a_config_leaves_out_is_what_transformers_takes() {
    let mistral = |change: fn(&mut Value)| {
        parse(|c| {
            c["model_type"] = json!("mistral");
            c["architectures"] = json!(["MistralForCausalLM"]);
            change(c);
        })
        .unwrap()
    };
    assert_eq!(mistral(|_| ()).windows[0], Some(4096));
    assert_eq!(mistral(|c| c["sliding_window"] = Value::Null).windows[0], None);
    let qwen = parse(|c| {
        c["model_type"] = json!("qwen3");
        c["architectures"] = json!(["Qwen3ForCausalLM"]);
    });
    assert_eq!(qwen.unwrap().head_dim, 128);
}

#[test]
fn a_bias_that_the_config_promises_must_be_there() {
    let error = open(|c| c["attention_bias"] = json!(true)).unwrap_err();
    assert_eq!(error.place.key.as_deref(), Some("model.layers.0.self_attn.q_proj.bias"));
    assert!(error.message.contains("missing"), "{error}");
}

#[test]
fn a_config_without_a_type_takes_the_weights_own() {
    let model = open(|c| {
        c.as_object_mut().unwrap().remove("torch_dtype");
    });
    assert_eq!(model.unwrap().config.dtype, crate::checkpoint::DType::BF16);
}
