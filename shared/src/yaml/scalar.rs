//! What a scalar means: the implicit types of PyYAML's safe loader, which are YAML 1.1's with PyYAML's own patterns.
//!
//! The traps are kept on purpose, since users bring files that ModelOpt has read so far: `1e-3` and `1.0e3` are text
//! (a float needs a dot, and an exponent needs a sign), `010` is eight, `1:30` is ninety, `on` is true.

use serde_json::Number;

use super::node::Content;

/// Which spellings of a float are understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Floats {
    /// PyYAML's: a dot is needed, and a sign in the exponent.
    PyYaml,
    /// OmegaConf's, which ModelOpt uses for `a.b=value` overrides: `1e-3` and `1e3` as well.
    OmegaConf,
}

/// The value of a plain scalar, or why it cannot be one.
pub fn resolve(text: &str, floats: Floats) -> Result<Content, String> {
    if let Some(content) = word(text) {
        return Ok(content);
    }
    if let Some(digits) = Integer::recognise(text) {
        return digits.value();
    }
    if is_float(text, floats) {
        return float(text);
    }
    Ok(Content::Text(text.to_owned()))
}

/// The value of a scalar with an explicit core tag (`!!str`, `!!int`, …), or why it cannot be one.
pub fn resolve_tagged(text: &str, tag: &str) -> Result<Content, String> {
    let wrong = || format!("`{text}` is not of type `!!{tag}`");
    let plain = resolve(text, Floats::PyYaml)?;
    match (tag, plain) {
        ("str", _) => Ok(Content::Text(text.to_owned())),
        ("null", content @ Content::Null) | ("bool", content @ Content::Bool(_)) => Ok(content),
        ("int", Content::Number(number)) if !number.is_f64() => Ok(Content::Number(number)),
        ("float", _) => match text.replace('_', "").parse::<f64>() {
            Ok(value) => finite(text, value),
            Err(_) => Err(wrong()),
        },
        ("null" | "bool" | "int", _) => Err(wrong()),
        _ => Err(format!("the tag `!!{tag}` is not supported")),
    }
}

fn word(text: &str) -> Option<Content> {
    Some(match text {
        "" | "~" | "null" | "Null" | "NULL" => Content::Null,
        "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => Content::Bool(true),
        "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => Content::Bool(false),
        _ => return None,
    })
}

/// An integer literal, taken apart.
struct Integer<'a> {
    negative: bool,
    digits: &'a str,
    radix: Radix,
}

#[derive(Clone, Copy)]
enum Radix {
    Of(u32),
    /// Groups of base 60: `1:30`.
    Sexagesimal,
}

impl<'a> Integer<'a> {
    fn recognise(text: &'a str) -> Option<Self> {
        let (negative, rest) = sign(text);
        let all = |digits: &str, set: &dyn Fn(char) -> bool| {
            !digits.is_empty() && digits.chars().all(|c| c == '_' || set(c))
        };
        let (digits, radix) = if let Some(digits) = rest.strip_prefix("0b") {
            (digits, all(digits, &|c| matches!(c, '0' | '1')).then_some(Radix::Of(2))?)
        } else if let Some(digits) = rest.strip_prefix("0x") {
            (digits, all(digits, &|c| c.is_ascii_hexdigit()).then_some(Radix::Of(16))?)
        } else if rest == "0" {
            (rest, Radix::Of(10))
        } else if let Some(digits) = rest.strip_prefix('0') {
            (digits, all(digits, &|c| matches!(c, '0'..='7')).then_some(Radix::Of(8))?)
        } else if !rest.starts_with(|c: char| c.is_ascii_digit()) {
            return None;
        } else if all(rest, &|c| c.is_ascii_digit()) {
            (rest, Radix::Of(10))
        } else {
            (rest, is_sexagesimal(rest).then_some(Radix::Sexagesimal)?)
        };
        Some(Self { negative, digits, radix })
    }

    fn value(&self) -> Result<Content, String> {
        let digits = self.digits.replace('_', "");
        let magnitude = match self.radix {
            Radix::Of(radix) if digits.is_empty() => (radix == 8).then_some(0),
            Radix::Of(radix) => u64::from_str_radix(&digits, radix).ok(),
            Radix::Sexagesimal => digits
                .split(':')
                .try_fold(0_u64, |sum, group| sum.checked_mul(60)?.checked_add(group.parse().ok()?)),
        };
        let number = magnitude.and_then(|magnitude| match self.negative {
            false => Some(Number::from(magnitude)),
            true => 0_i64.checked_sub_unsigned(magnitude).map(Number::from),
        });
        number.map(Content::Number).ok_or_else(|| format!("the integer `{digits}` does not fit in 64 bits"))
    }
}

fn sign(text: &str) -> (bool, &str) {
    match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    }
}

/// `[1-9][0-9_]*(:[0-5]?[0-9])+` after the sign; the first group may start with zero when it is a float's.
fn is_sexagesimal(text: &str) -> bool {
    let mut groups = text.split(':');
    let first = groups.next().unwrap_or_default();
    let rest: Vec<&str> = groups.collect();
    digits_or_underscores(first)
        && !rest.is_empty()
        && rest.iter().all(|group| match group.as_bytes() {
            [unit] => unit.is_ascii_digit(),
            [ten, unit] => matches!(ten, b'0'..=b'5') && unit.is_ascii_digit(),
            _ => false,
        })
}

fn digits_or_underscores(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_digit()) && text.chars().all(|c| c.is_ascii_digit() || c == '_')
}

/// Whether a scalar looks like a float to the given loader.
pub fn is_float(text: &str, floats: Floats) -> bool {
    if matches!(text, ".nan" | ".NaN" | ".NAN") {
        return true;
    }
    let (_, unsigned) = sign(text);
    if matches!(unsigned, ".inf" | ".Inf" | ".INF") {
        return true;
    }
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (unsigned, None),
    };
    let exponent_fits = exponent.is_none_or(|exponent| {
        let signed = exponent.strip_prefix(['+', '-']);
        let digits = signed.unwrap_or(exponent);
        (signed.is_some() || floats == Floats::OmegaConf)
            && !digits.is_empty()
            && digits.chars().all(|c| c.is_ascii_digit())
    });
    let fraction_fits = |fraction: &str| fraction.chars().all(|c| c.is_ascii_digit() || c == '_');
    exponent_fits
        && match mantissa.split_once('.') {
            // `.5` has no sign in PyYAML's pattern: `-.5` is text.
            Some(("", fraction)) => {
                unsigned.len() == text.len()
                    && fraction.starts_with(|c: char| c.is_ascii_digit())
                    && fraction_fits(fraction)
            }
            Some((whole, fraction)) => {
                fraction_fits(fraction)
                    && (digits_or_underscores(whole) || (exponent.is_none() && is_sexagesimal(whole)))
            }
            None => floats == Floats::OmegaConf && exponent.is_some() && digits_or_underscores(mantissa),
        }
}

fn float(text: &str) -> Result<Content, String> {
    let bare = text.replace('_', "");
    let (negative, unsigned) = sign(&bare);
    let magnitude = unsigned.split(':').try_fold(0.0_f64, |sum, group| {
        group.trim_end_matches('.').parse::<f64>().ok().map(|value| sum * 60.0 + value)
    });
    match magnitude {
        Some(magnitude) => finite(text, if negative { -magnitude } else { magnitude }),
        None => Err(format!("`{text}` is not a finite number")),
    }
}

fn finite(text: &str, value: f64) -> Result<Content, String> {
    Number::from_f64(value).map(Content::Number).ok_or_else(|| format!("`{text}` is not a finite number"))
}
