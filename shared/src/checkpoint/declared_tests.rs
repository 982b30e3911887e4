//! What is declared is read back as it was meant, for every pair of formats that has a name.

use serde_json::json;

use super::*;
use crate::checkpoint::QuantizationConfig;

const PAIRS: [(Format, Option<Format>); 20] = [
    (Format::Fp8, Some(Format::Fp8)),
    (Format::Fp8Channel, Some(Format::Fp8Token)),
    (Format::Fp8Block { block: 128 }, None),
    (Format::Int8Channel, Some(Format::Int8)),
    (Format::Int8Channel, None),
    (Format::Int4 { block: 64 }, None),
    (Format::Int4Fp8 { block: 128 }, Some(Format::Fp8)),
    (Format::NVFP4, Some(Format::NVFP4)),
    (Format::NVFP4, None),
    (Format::Nvfp4 { block: 32, scales: Nvfp4Scales::Dynamic }, None),
    (Format::Nvfp4 { block: 32, scales: Nvfp4Scales::UnderFp8 }, Some(Format::Fp8)),
    (Format::Mxfp4, Some(Format::Mxfp4)),
    (Format::Mxfp4, None),
    (Format::Mxfp4, Some(Format::Fp8)),
    (Format::Mxfp6, Some(Format::Mxfp6)),
    (Format::Mxfp6, None),
    (Format::Mxfp8, Some(Format::Mxfp8)),
    (Format::Mxfp8, None),
    (Format::Mxint8, Some(Format::Mxint8)),
    (Format::Nf4, None),
];

fn plain((weight, input): (Format, Option<Format>)) -> LayerAlgorithm {
    LayerAlgorithm { weight, input, smoothed: false, low_rank: None }
}

fn formats(algorithm: LayerAlgorithm) -> (Format, Option<Format>) {
    (algorithm.weight, algorithm.input)
}

fn read(config: &QuantizationConfig) -> Declared {
    Declared::read(&config.config_json(), &config.hf_quant_config()["quantization"]).unwrap()
}

#[test]
fn every_uniform_declaration_is_read_as_it_was_meant() {
    for pair in PAIRS {
        let config = QuantizationConfig {
            layers: vec![
                ("model.layers.0.a".to_owned(), plain(pair)),
                ("model.layers.0.b".to_owned(), plain(pair)),
            ],
            excluded: vec!["lm_head".to_owned(), "model.layers.1.a".to_owned()],
            kv_cache: None,
        };
        let declared = read(&config);
        assert_eq!(declared.algorithm("model.layers.0.b").map(formats), Some(pair));
        assert_eq!(declared.algorithm("lm_head"), None);
        assert_eq!(declared.algorithm("model.layers.1.a"), None, "{pair:?}");
        assert_eq!(declared.kv_cache, None);
    }
}

#[test]
fn every_mixed_declaration_is_read_as_it_was_meant() {
    let layers: Vec<(String, LayerAlgorithm)> = PAIRS
        .into_iter()
        // A block of squares is not declared, and 128 is what it is; NF4 has a layout of its own.
        .filter(|(weight, _)| *weight != Format::Nf4)
        .enumerate()
        .map(|(at, pair)| (format!("model.layers.{at}.a"), plain(pair)))
        .collect();
    let config = QuantizationConfig {
        layers: layers.clone(),
        excluded: Vec::new(),
        kv_cache: Some(Format::Fp8.into()),
    };
    let declared = read(&config);
    for (name, algorithm) in &layers {
        assert_eq!(declared.algorithm(name).map(formats), Some(formats(*algorithm)), "{name}");
    }
    assert_eq!(declared.algorithm("model.layers.0.b"), None);
    assert_eq!(declared.named().count(), layers.len());
    assert_eq!(declared.kv_cache, Some(Format::Fp8.into()));
}

#[test]
fn smoothing_and_low_rank_branches_are_declared() {
    let awq = LayerAlgorithm { smoothed: true, ..plain((Format::NVFP4, Some(Format::NVFP4))) };
    let svd = LayerAlgorithm { low_rank: Some(32), ..awq };
    let cache = CacheAlgorithm { format: Format::NVFP4, offset: true, rotated: true };
    let of = |algorithm| {
        let layers = vec![("a".to_owned(), algorithm)];
        read(&QuantizationConfig { layers, excluded: Vec::new(), kv_cache: Some(cache) })
    };
    assert_eq!(of(awq).algorithm("a"), Some(awq));
    assert!(of(svd).algorithm("a").unwrap().low_rank.is_some());
    assert_eq!(of(awq).kv_cache, Some(cache));
}

#[test]
fn what_nothing_decodes_is_refused_by_name() {
    let refused = [
        (json!({"quant_method": "gptq"}), "`gptq`"),
        (json!({"quant_method": "modelopt", "quant_algo": "FP3"}), "`FP3`"),
        (json!({"quant_method": "modelopt", "quant_algo": "FP8", "kv_cache_scheme": "INT8"}), "`INT8`"),
        (json!({"quant_method": "bitsandbytes", "load_in_8bit": true}), "of 8 bits"),
        (
            json!({"quant_method": "bitsandbytes", "load_in_4bit": true, "bnb_4bit_quant_type": "fp4"}),
            "`fp4`",
        ),
        (
            json!({"quant_method": "modelopt", "quant_algo": "MIXED_PRECISION", "quantized_layers": {"a": {"quant_algo": "X"}}}),
            "`X`",
        ),
    ];
    for (config, word) in refused {
        let error = Declared::read(&config, &Value::Null).unwrap_err();
        assert!(error.message.contains(word) && error.hint.is_some(), "{error}");
    }
}
