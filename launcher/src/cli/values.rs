//! Values of flags that have a grammar of their own.

use qlaunch_shared::Error;
use qlaunch_shared::protocol::{DeviceChoice, NumericPath, SilentExperts};

/// Reads a size: plain bytes, or with `kB`, `MB`, `GB`, `TB` (powers of 1000) or `KiB`, `MiB`, `GiB`, `TiB`.
pub fn size(text: &str) -> Result<u64, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (figure, unit) = text.split_at(digits);
    let factor: f64 = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1.0,
        "kb" | "k" => 1e3,
        "mb" | "m" => 1e6,
        "gb" | "g" => 1e9,
        "tb" | "t" => 1e12,
        "kib" => 1024.0,
        "mib" => 1_048_576.0,
        "gib" => 1_073_741_824.0,
        "tib" => 1_099_511_627_776.0,
        _ => {
            return Err(format!("`{unit}` is no unit of size: use kB, MB, GB, TB, KiB, MiB, GiB or TiB"));
        }
    };
    let bytes = figure.parse::<f64>().map_err(|_| format!("`{text}` is no size"))? * factor;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked to be in range")]
    match (1.0..1e18).contains(&bytes) {
        true => Ok(bytes as u64),
        false => Err(format!("`{text}` is no size that a file can have")),
    }
}

/// Reads a count of at least one.
pub fn count(text: &str) -> Result<usize, String> {
    match text.parse::<usize>() {
        Ok(0) => Err("must be at least 1".to_owned()),
        Ok(count) => Ok(count),
        Err(_) => Err(format!("`{text}` is no count")),
    }
}

/// Reads the name of a numeric path.
pub fn numeric_path(text: &str) -> Result<NumericPath, String> {
    text.parse::<NumericPath>().map_err(told)
}

/// Reads where the work is done.
pub fn device(text: &str) -> Result<DeviceChoice, String> {
    text.parse::<DeviceChoice>().map_err(told)
}

fn told(error: Error) -> String {
    match error.hint {
        Some(hint) => format!("{}: {hint}", error.message),
        None => error.message,
    }
}

/// Reads what stands in for experts that saw no token.
pub fn silent_experts(text: &str) -> Result<SilentExperts, String> {
    let known = SilentExperts::ALL.iter().find(|(name, _)| *name == text);
    known.map(|(_, policy)| *policy).ok_or_else(|| {
        let names: Vec<&str> = SilentExperts::ALL.iter().map(|(name, _)| *name).collect();
        format!("there is no policy `{text}`: use {}", names.join(", "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_decimal_and_binary_units() {
        assert_eq!(size("10GB"), Ok(10_000_000_000));
        assert_eq!(size("1.5 MB"), Ok(1_500_000));
        assert_eq!(size("2GiB"), Ok(2 << 30));
        assert_eq!(size("512"), Ok(512));
        for wrong in ["", "GB", "0", "-1GB", "1 parsec", "1e30TB"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_count_is_at_least_one() {
        assert_eq!(count("3"), Ok(3));
        assert!(count("0").is_err() && count("-1").is_err());
        assert!(numeric_path("avx3").unwrap_err().contains("avx2"));
    }
}
