//! Which engines load what ModelOpt and qlaunch export, and what is told of a checkpoint's quality.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use qlaunch_shared::audit::engines::{Answer, Engine, EngineVerdict, Offered, engines};
use qlaunch_shared::checkpoint::DType;
use qlaunch_shared::model::Model;
use qlaunch_shared::quality::{Quality, card};
use qlaunch_tests::places::{example_model, golden, read_json, tiny_llama};
use qlaunch_tests::programs::{Quantize, run};
use serde_json::Value;

/// A checkpoint that ModelOpt 0.47 wrote: its two configs and the types and shapes of its tensors.
struct Export {
    model: Model,
    config: Value,
    file: Value,
    tensors: BTreeMap<String, (DType, Vec<usize>)>,
}

impl Export {
    fn of(model: &str, format: &str) -> Self {
        let folder = golden(&format!("modelopt/{model}/{format}"));
        let tensors = read_json(&folder.join("tensors.json"));
        let entry = |(name, entry): (&String, &Value)| {
            let dtype: DType = serde_json::from_value(entry["dtype"].clone()).unwrap();
            let shape: Vec<usize> = serde_json::from_value(entry["shape"].clone()).unwrap();
            (name.clone(), (dtype, shape))
        };
        Self {
            model: Model::open(&example_model(model)).unwrap(),
            config: read_json(&folder.join("config.json"))["quantization_config"].clone(),
            file: read_json(&folder.join("hf_quant_config.json")),
            tensors: tensors.as_object().unwrap().iter().map(entry).collect(),
        }
    }

    fn asked(&self) -> Vec<EngineVerdict> {
        let tensors =
            self.tensors.iter().map(|(name, (dtype, shape))| (name.as_str(), *dtype, shape.as_slice()));
        engines(&Offered::new(&self.model, (Some(self.config.clone()), Some(self.file.clone())), tensors))
    }

    #[track_caller]
    fn refused_by(&self, engine: Engine, words: &str) {
        let answer = self.asked().into_iter().find(|verdict| verdict.engine == engine).unwrap().answer;
        let Answer::Refuses { rule, evidence } = &answer else {
            panic!("{engine} does not refuse it: {answer:?}")
        };
        let text = format!("{rule} {}", evidence.join(" "));
        assert!(text.contains(words), "`{words}` is not in: {text}");
    }
}

/// Formats of ModelOpt's exports, and the engines that load them: v(LLM), s(GLang), t(ensorRT-LLM), l(lama.cpp).
/// vLLM's column was run, of experts as far as loading, llama.cpp's for FP8 and NVFP4 (tests/serving); the rest is read.
const LOADS: [(&str, &str, &str); 35] = [
    ("tiny-llama", "fp8-kv_fp8", "vstl"),
    ("tiny-llama", "fp8_mse", "vstl"),
    ("tiny-llama", "fp8_per_channel_per_token", "vtl"),
    ("tiny-llama", "fp8_2d_blockwise_weight_only", "t"),
    ("tiny-llama", "nvfp4-kv_fp8", "vstl"),
    ("tiny-llama", "nvfp4-kv_nvfp4", "vstl"),
    ("tiny-llama", "nvfp4_mlp_only", "vstl"),
    ("tiny-llama", "nvfp4_mlp_only-kv_fp8", "vstl"),
    ("tiny-llama", "nvfp4_awq_clip", "vstl"),
    ("tiny-llama", "nvfp4_awq_lite", "st"),
    ("tiny-llama", "nvfp4_four_over_six", "vstl"),
    ("tiny-llama", "nvfp4_gptq", "vstl"),
    ("tiny-llama", "nvfp4_svdquant", ""),
    ("tiny-llama", "nvfp4_w4a4_weight_local_hessian", "vstl"),
    ("tiny-llama", "nvfp4_w4a4_weight_mse_fp8_sweep", "vstl"),
    ("tiny-llama", "w4a16_nvfp4", "vstl"),
    ("tiny-llama", "w4a8_nvfp4_fp8", "t"),
    ("tiny-llama", "w4a8_awq_beta", "t"),
    ("tiny-llama", "int4_awq", "t"),
    ("tiny-llama", "int4_gptq", "t"),
    ("tiny-llama", "int4_blockwise_weight_only", "t"),
    ("tiny-llama", "int8", "l"),
    ("tiny-llama", "int8_smoothquant", ""),
    ("tiny-llama", "int8_weight_only", "tl"),
    ("tiny-llama", "mxfp4", ""),
    ("tiny-llama", "mxfp8", "vt"),
    ("tiny-qwen3-moe", "fp8-kv_fp8", "vstl"),
    ("tiny-qwen3-moe", "fp8_per_channel_per_token", "l"),
    ("tiny-qwen3-moe", "fp8_2d_blockwise_weight_only", "t"),
    ("tiny-qwen3-moe", "nvfp4-kv_fp8", "vstl"),
    ("tiny-qwen3-moe", "nvfp4_experts_only", "vstl"),
    ("tiny-qwen3-moe", "nvfp4_mlp_only", "vstl"),
    ("tiny-qwen3-moe", "nvfp4_w4a4_weight_mse_fp8_sweep", "vstl"),
    ("tiny-qwen3-moe", "w4a16_nvfp4", "vstl"),
    ("tiny-qwen3-moe", "mxfp8", "vs"),
];

#[test]
fn each_engine_loads_the_formats_of_modelopt_that_it_knows() {
    let letter = |engine: Engine| match engine {
        Engine::Vllm => Some('v'),
        Engine::Sglang => Some('s'),
        Engine::TensorRtLlm => Some('t'),
        Engine::LlamaCpp => Some('l'),
        Engine::Transformers => None,
    };
    let mut faults = Vec::new();
    for (model, format, expected) in LOADS {
        let verdicts = Export::of(model, format).asked();
        let loads: String = verdicts.iter().filter(|v| v.loads()).filter_map(|v| letter(v.engine)).collect();
        if loads != expected {
            let told: Vec<String> = verdicts.iter().map(ToString::to_string).collect();
            faults.push(format!("{model} {format}: `{loads}`, not `{expected}`\n  {}", told.join("\n  ")));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn a_partly_excluded_fused_layer_is_refused() {
    let mut export = Export::of("tiny-llama", "nvfp4-kv_fp8");
    for ignored in [&mut export.config["ignore"], &mut export.file["quantization"]["exclude_modules"]] {
        ignored.as_array_mut().unwrap().push("model.layers.3.self_attn.q_proj".into());
    }
    export.refused_by(Engine::Vllm, "1 of 3 linears of `model.layers.3.self_attn.qkv_proj`");
    export.refused_by(Engine::Sglang, "1 of 3 linears of `model.layers.3.self_attn.qkv_proj`");
    export.refused_by(Engine::TensorRtLlm, "leaves the layer unquantized");
}

#[test]
fn a_pattern_that_is_part_of_other_names_excludes_them_in_vllm_alone() {
    let mut export = Export::of("tiny-llama", "fp8-kv_fp8");
    // A router's name, as lists of experts have it: here it is part of `gate_up_proj`.
    export.config["ignore"].as_array_mut().unwrap().push("model.layers.0.mlp.gate".into());
    export.refused_by(Engine::Vllm, "`model.layers.0.mlp.gate_proj.weight` is F8_E4M3");
    assert!(export.asked().iter().any(|verdict| verdict.engine == Engine::Sglang && verdict.loads()));
}

#[test]
fn a_bare_part_of_a_name_excludes_every_module_below_it_in_sglang() {
    let mut export = Export::of("tiny-llama", "nvfp4-kv_fp8");
    export.config["ignore"].as_array_mut().unwrap().push("down_proj".into());
    export.refused_by(Engine::Sglang, "mlp.down_proj.weight` is U8");
}

#[test]
fn a_scale_of_another_type_or_none_is_refused() {
    for (suffix, words) in [("weight_scale", "is U8"), ("weight_scale_2", "is missing")] {
        let mut export = Export::of("tiny-llama", "nvfp4-kv_fp8");
        let name = format!("model.layers.0.mlp.up_proj.{suffix}");
        match suffix {
            "weight_scale" => export.tensors.get_mut(&name).unwrap().0 = DType::U8,
            _ => drop(export.tensors.remove(&name)),
        }
        for engine in [Engine::Vllm, Engine::Sglang, Engine::TensorRtLlm] {
            export.refused_by(engine, words);
        }
    }
}

#[test]
fn a_mixed_checkpoint_is_refused_where_its_layers_have_no_name_or_no_rule() {
    let mut export = Export::of("tiny-llama", "fp8-kv_fp8");
    let linears: Vec<&str> =
        export.tensors.keys().filter_map(|name| name.strip_suffix(".weight_scale")).collect();
    let layers: Value =
        linears.iter().map(|name| ((*name).to_owned(), serde_json::json!({ "quant_algo": "FP8" }))).collect();
    for (config, key) in
        [(&mut export.config, "ignore"), (&mut export.file["quantization"], "exclude_modules")]
    {
        config["quant_algo"] = "MIXED_PRECISION".into();
        config["quantized_layers"] = layers.clone();
        config[key] = Value::Array(Vec::new());
    }
    let loads = |export: &Export, engine| export.asked().iter().any(|v| v.engine == engine && v.loads());
    assert!(loads(&export, Engine::Vllm) && loads(&export, Engine::TensorRtLlm));
    export.refused_by(Engine::Sglang, "taken for W4AFP8");
    for config in [&mut export.config, &mut export.file["quantization"]] {
        config["quantized_layers"]["model.layers.0.self_attn.k_proj"]["quant_algo"] = "INT4_AWQ".into();
    }
    export.refused_by(Engine::Vllm, "`model.layers.0.self_attn.qkv_proj` is FP8 and INT4_AWQ");
    export.refused_by(Engine::TensorRtLlm, "`QuantAlgo`");
}

#[test]
fn one_excluded_expert_excludes_them_all_in_vllm() {
    let mut export = Export::of("tiny-qwen3-moe", "nvfp4-kv_fp8");
    export.config["ignore"].as_array_mut().unwrap().push("model.layers.1.mlp.experts.2.down_proj".into());
    export.refused_by(Engine::Vllm, "`model.layers.1.mlp.experts.0.gate_proj.weight` is U8");
}

#[test]
fn tensorrt_llm_wants_the_file_and_transformers_refuses_whatever_modelopt_wrote() {
    let mut export = Export::of("tiny-llama", "fp8-kv_fp8");
    export.file = Value::Null;
    export.refused_by(Engine::TensorRtLlm, "hf_quant_config.json");
    export.refused_by(Engine::Transformers, "modelopt");
}

/// `qlaunch quantize` of the small dense model; the quality report that lies beside it.
fn quantized(model: &Path, recipe: &str, out: &Path) -> Value {
    let outcome = Quantize::new(model, recipe, out).run().json();
    assert_eq!(outcome["gates"].as_array().unwrap().last().unwrap()["gate"], "engines");
    read_json(&out.join("quality.json"))
}

/// A copy of the small dense model with a card and terms of its own.
fn model_with_a_card(folder: &Path) -> PathBuf {
    let copy = folder.join("carded");
    std::fs::create_dir(&copy).unwrap();
    for entry in std::fs::read_dir(tiny_llama()).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), copy.join(entry.file_name())).unwrap();
    }
    std::fs::write(copy.join("README.md"), "---\nlicense: llama3.2\n---\n# The source's card\n").unwrap();
    std::fs::write(copy.join("LICENSE"), "terms of the source\n").unwrap();
    copy
}

#[test]
fn a_checkpoint_tells_its_provenance_its_errors_and_its_engines() {
    let work = tempfile::tempdir().unwrap();
    let out = work.path().join("out");
    let quality = quantized(&model_with_a_card(work.path()), "general/ptq/nvfp4_default-kv_fp8", &out);
    let parsed: Quality = serde_json::from_value(quality.clone()).unwrap();
    assert_eq!(parsed.modules.len(), 56);
    for module in &parsed.modules {
        // NVFP4 of a bell-shaped weight loses about 1% of its energy: more is a fault, less is no NVFP4.
        let error = module.weight_error.unwrap();
        assert!((0.002..0.03).contains(&error), "{}: {error}", module.name);
        assert_eq!(module.rows_measured, module.rows);
        assert!(module.output_error.is_some() || module.without_output_error.is_some());
    }
    assert_eq!(quality["licence"]["license"], "llama3.2");
    assert_eq!(quality["licence"]["files"], serde_json::json!(["LICENSE"]));
    assert_eq!(quality["recipe"]["name"], "general/ptq/nvfp4_default-kv_fp8");
    assert_eq!(quality["calibration"]["tokens_sha256"].as_str().unwrap().len(), 64);
    assert_eq!(quality["source"]["digest_of"], "names, types, shapes and data of all tensors");
    let vllm = parsed.engines.iter().find(|verdict| verdict.engine == Engine::Vllm).unwrap();
    assert!(vllm.loads(), "{vllm}");
    let card = std::fs::read_to_string(out.join("README.md")).unwrap();
    for words in [
        "license: llama3.2",
        "base_model: carded",
        "vLLM 0.32.0 | loads it",
        "transformers 5.17.0 | does not",
    ] {
        assert!(card.contains(words), "`{words}` is not in:\n{card}");
    }
    let kept = std::fs::read_to_string(out.join("README.source.md")).unwrap();
    assert!(kept.ends_with("# The source's card\n"));
    assert_eq!(std::fs::read_to_string(out.join("LICENSE")).unwrap(), "terms of the source\n");
}

#[test]
fn the_plan_tells_engines_as_the_checkpoint_does() {
    for recipe in ["fp8", "w4a16_nvfp4", "mxfp8", "int8_weight_only"] {
        let work = tempfile::tempdir().unwrap();
        let model = tiny_llama();
        let arguments = ["plan", model.to_str().unwrap(), "--recipe", recipe, "--format", "json"];
        let planned = run(arguments).json()["engines"].clone();
        assert_eq!(planned.as_array().unwrap().len(), Engine::ALL.len());
        let made = quantized(&model, recipe, &work.path().join("out"));
        assert_eq!(made["engines"], planned, "{recipe}");
    }
}

#[test]
fn a_quality_report_of_version_1_is_understood_whole_and_its_card_tells_it() {
    let file = read_json(&golden("quality/quality-v1.json"));
    let quality: Quality = serde_json::from_value(file.clone()).unwrap();
    assert_eq!(serde_json::to_value(&quality).unwrap(), file, "something was lost or renamed");
    let measured = &quality.measured.as_ref().unwrap().evaluation;
    let change = 100.0 * (measured.perplexity / measured.reference_perplexity.unwrap() - 1.0);
    let card = card(&quality, false);
    for words in
        [format!("({change:+.2}%)"), quality.recorded.source.sha256.clone(), "SGLang 0.5.23".to_owned()]
    {
        assert!(card.contains(&words), "`{words}` is not in:\n{card}");
    }
}
