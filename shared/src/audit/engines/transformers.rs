//! Hugging Face transformers (`quantizers/auto.py`).

use super::{Answer, Offered};

/// The version that was read, and run.
pub(super) const VERSION: &str = "5.17.0";

pub(super) fn answer(offered: &Offered<'_>) -> Answer {
    let Some(config) = &offered.config else { return Answer::Loads };
    match config["quant_method"].as_str() {
        // FP8 weights are read as if they had no scales, NVFP4 ones do not fit.
        Some("modelopt") => Answer::refuses(
            "there must be a quantizer for the `quant_method`",
            "there is none for `modelopt`: FP8 loads without a word and computes garbage, packed weights do not fit",
        ),
        Some("bitsandbytes") => Answer::Loads,
        other => Answer::unknown(format!(
            "its rules for `quant_method: {}` were not read",
            other.unwrap_or("nothing")
        )),
    }
}
