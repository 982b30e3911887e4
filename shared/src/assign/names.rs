//! Names of quantizers that stand in lists (modelopt.md §2.2.4).

/// Takes the index out of a name of a list, as in `…weight_quantizers.7`, which becomes `…weight_quantizer`; `None` where
/// there is none. ModelOpt matches patterns against both, so children of a sequence (`…weight_quantizer.0`) are found by
/// their parent's patterns too.
pub(super) fn without_index(name: &str) -> Option<String> {
    let mut out = String::new();
    let mut rest = name;
    while let Some((before, behind)) = cut_list(rest) {
        out.push_str(before);
        rest = behind;
    }
    if out.is_empty() {
        return None;
    }
    out.push_str(rest);
    Some(out)
}

/// The text up to the first list in its singular, and what follows the index.
fn cut_list(text: &str) -> Option<(&str, &str)> {
    const KINDS: [&str; 2] = ["weight_quantizer", "input_quantizer"];
    let mut from = 0;
    loop {
        let found =
            KINDS.iter().filter_map(|kind| Some(from + text[from..].find(kind)? + kind.len())).min()?;
        let behind = text[found..].strip_prefix('s').unwrap_or(&text[found..]);
        if let Some(digits) = behind.strip_prefix('.') {
            let count = digits.bytes().take_while(u8::is_ascii_digit).count();
            let rest = &digits[count..];
            if count > 0 && (rest.is_empty() || rest.starts_with('.')) {
                return Some((&text[..found], rest));
            }
        }
        from = found;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Expected values are what ModelOpt 0.47's regular expression gives.
    #[test]
    fn indexes_of_lists_are_taken_out_and_nothing_else() {
        let cases = [
            ("m.experts.gate_up_proj_weight_quantizers.7", Some("m.experts.gate_up_proj_weight_quantizer")),
            ("m.weight_quantizer.0", Some("m.weight_quantizer")),
            ("m.input_quantizers.12", Some("m.input_quantizer")),
            ("m.weight_quantizers.3.1", Some("m.weight_quantizer.1")),
            ("m.weight_quantizer", None),
            ("m.weight_quantizers", None),
            ("m.weight_quantizer.7x", None),
            ("m.output_quantizer.0", None),
            ("layers.3.input_quantizer", None),
            ("weight_quantizer.1.input_quantizers.2", Some("weight_quantizer.input_quantizer")),
        ];
        for (name, expected) in cases {
            assert_eq!(without_index(name).as_deref(), expected, "{name}");
        }
    }
}
