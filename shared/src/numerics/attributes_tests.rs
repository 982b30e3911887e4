//! The rules of quantizer attributes, and what of them is printed.

use serde_json::json;

use super::*;

fn attributes(value: serde_json::Value) -> QuantizerAttributes {
    serde_json::from_value(value).unwrap()
}

#[track_caller]
fn refused(value: serde_json::Value, key: &str, message: &str) {
    let fault = attributes(value).check().unwrap_err();
    assert_eq!((fault.key, fault.message.as_str()), (key, message));
}

#[test]
fn only_what_was_written_is_printed() {
    for value in [
        json!({}),
        json!({"num_bits": [4, 3], "axis": null}),
        json!({"block_sizes": {"-1": null, "-2": 4, "scale_bits": [4, 3], "type": "static"}}),
        json!({"bias": {"-2": null, "method": "max_min", "type": "dynamic"}}),
        json!({"rotate": {"enable": true, "mode": "rotate_back", "block_size": null}}),
        json!({"backend": "mine", "backend_extra_args": {"x": 1}, "num_bits": "mine", "effective_bits": null}),
        json!({"axis": [0, 1], "constant_amax": 2688.0, "type": "dynamic", "calibrator": "histogram"}),
    ] {
        assert_eq!(serde_json::to_value(attributes(value.clone())).unwrap(), value);
    }
}

#[test]
fn four_over_six_is_printed_as_a_number() {
    let value = attributes(json!({"block_sizes": {"-1": 16, "four_over_six": true}}));
    assert_eq!(serde_json::to_value(&value).unwrap(), json!({"block_sizes": {"-1": 16, "four_over_six": 1}}));
    assert!(value.block_sizes.map_or(false, BlockSizes::is_four_over_six));
}

#[test]
fn float_formats_have_their_rules() {
    for bits in [[5, 2], [3, 2], [2, 3], [1, 2]] {
        assert!(attributes(json!({"num_bits": bits})).check().is_err());
        assert!(
            attributes(json!({"num_bits": bits, "block_sizes": {"-1": 32, "type": "dynamic"}}))
                .check()
                .is_ok()
        );
        assert!(attributes(json!({"num_bits": bits, "backend": "mine"})).check().is_ok());
    }
    for bits in [[4, 3], [2, 1]] {
        assert!(attributes(json!({"num_bits": bits})).check().is_ok());
    }
    refused(json!({"num_bits": [0, 3]}), "num_bits", "E0M3 needs at least one bit of each");
    refused(
        json!({"num_bits": [4, 4]}),
        "num_bits",
        "E4M4 is not known: use e4m3, e5m2, e3m2, e2m3, e2m1 or e1m2",
    );
    refused(json!({"num_bits": 0}), "num_bits", "0 bits are not possible");
    refused(
        json!({"num_bits": "e4mx"}),
        "num_bits",
        "`e4mx` is neither a number of bits nor a float like `e4m3`",
    );
}

#[test]
fn what_excludes_each_other_is_refused() {
    refused(
        json!({"axis": 0, "block_sizes": {"-1": 16}}),
        "block_sizes",
        "`axis` and `block_sizes` exclude each other",
    );
    assert!(attributes(json!({"axis": null, "block_sizes": {"-1": 16}})).check().is_ok());
    refused(
        json!({"use_constant_amax": true, "constant_amax": 1.0}),
        "constant_amax",
        "`use_constant_amax` and `constant_amax` exclude each other",
    );
    refused(
        json!({"block_sizes": {"-1": 16, "-2": 16, "type": "dynamic"}}),
        "block_sizes",
        "blocks of `type: dynamic` run along exactly one axis",
    );
}

#[test]
fn numbers_have_bounds() {
    refused(
        json!({"effective_bits": 16.5}),
        "effective_bits",
        "`effective_bits` must be above 0 and at most 16",
    );
    refused(json!({"constant_amax": 0.0}), "constant_amax", "`constant_amax` must be positive");
    refused(json!({"block_sizes": {"-1": 0}}), "block_sizes", "a block of 0 elements is not possible");
    refused(json!({"bias": {"type": "static"}}), "bias", "`bias` names no axis to reduce, like `-2: null`");
    refused(json!({"rotate": {"block_size": 0}}), "rotate", "`block_size` of `rotate` must be positive");
    refused(
        json!({"calibrator": "min"}),
        "calibrator",
        "`calibrator` must be `max`, `histogram` or a constructor",
    );
    refused(json!({"learn_amax": true}), "learn_amax", "`learn_amax` was removed from ModelOpt");
    refused(json!({"enable": true}), "enable", "`enable: true` alone says nothing about the numerics");
}

#[test]
fn unknown_keys_and_values_are_refused() {
    for value in [
        json!({"num_bit": 8}),
        json!({"type": "sometimes"}),
        json!({"enable": null}),
        json!({"block_sizes": {"last": 16}}),
        json!({"block_sizes": {"type": "sometimes"}}),
        json!({"bias": {"axis": -1}}),
        json!({"rotate": {"mod": "rotate"}}),
        json!({"trt_high_precision_dtype": "Double"}),
    ] {
        assert!(serde_json::from_value::<QuantizerAttributes>(value.clone()).is_err(), "{value}");
    }
}

#[test]
fn a_summary_fits_a_table() {
    let nvfp4 =
        json!({"num_bits": [2, 1], "block_sizes": {"-1": 16, "type": "dynamic", "scale_bits": [4, 3]}});
    assert_eq!(attributes(nvfp4).summary(), "E2M1, dynamic blocks of 16 with E4M3 scales");
    assert_eq!(attributes(json!({"num_bits": 8, "axis": 0})).summary(), "INT8, a scale per channel");
    assert_eq!(QuantizerAttributes::default().summary(), "INT8");
    let per_token = json!({"num_bits": [4, 3], "type": "dynamic", "block_sizes": {"-1": null}});
    assert_eq!(attributes(per_token).summary(), "E4M3, static blocks of all, dynamic");
}
