//! Figures as people read them. One way to write each kind, everywhere.

use std::time::Duration;

/// What stands where a figure was not measured.
pub const NONE: &str = "–";

/// Bytes in decimal units with three significant digits or more: `7.62 MB`.
pub fn bytes(bytes: u64) -> String {
    let (figure, unit) = scaled(bytes);
    format!("{figure} {unit}B").replace("  ", " ")
}

/// The same for a narrow column: `7.62M`.
pub fn short_bytes(bytes: u64) -> String {
    let (figure, unit) = scaled(bytes);
    format!("{figure}{unit}")
}

#[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
fn scaled(bytes: u64) -> (String, &'static str) {
    const UNITS: [(u64, &str); 4] =
        [(1_000_000_000_000, "T"), (1_000_000_000, "G"), (1_000_000, "M"), (1_000, "k")];
    match UNITS.iter().find(|(size, _)| bytes >= *size) {
        Some((size, unit)) => (format!("{:.2}", bytes as f64 / *size as f64), unit),
        None => (bytes.to_string(), ""),
    }
}

/// Bytes as megabytes for the column `MB/token`.
#[expect(clippy::cast_precision_loss, reason = "two digits are shown")]
pub fn megabytes(bytes: u64) -> String {
    let megabytes = bytes as f64 / 1e6;
    match megabytes {
        small if small < 0.1 => format!("{small:.3}"),
        large if large >= 1000.0 => grouped(large.round()),
        other => format!("{other:.1}"),
    }
}

/// A count with thousands apart: `21,400`.
pub fn count(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A whole float with thousands apart; not a number stays what it is.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked to be a count")]
pub fn grouped(value: f64) -> String {
    match value.is_finite() && (0.0..1e18).contains(&value) {
        true => count(value.round() as u64),
        false => value.to_string(),
    }
}

/// Parameters: `8.1 M parameters`.
#[expect(clippy::cast_precision_loss, reason = "two digits are shown")]
pub fn parameters(parameters: u64) -> String {
    let value = parameters as f64;
    match parameters {
        0..1_000_000 => format!("{:.1} k parameters", value / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} M parameters", value / 1e6),
        _ => format!("{:.1} B parameters", value / 1e9),
    }
}

/// A change relative to a baseline: `+1.8%`.
pub fn change(delta: f64) -> String {
    match delta.is_finite() {
        true => format!("{:+.1}%", delta * 100.0),
        false => delta.to_string(),
    }
}

/// A perplexity with two decimals, or whole where it is large.
pub fn perplexity(value: f64) -> String {
    match value {
        finite if finite.is_finite() && finite < 100_000.0 => format!("{finite:.2}"),
        finite if finite.is_finite() => format!("{finite:.2e}"),
        other => other.to_string(),
    }
}

/// Hours, minutes and seconds: `0:01:23`.
pub fn clock(time: Duration) -> String {
    let seconds = time.as_secs();
    format!("{}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

/// A time to wait, roughly: `14 s`, `3 min`, `2 h`.
pub fn roughly(time: Duration) -> String {
    match time.as_secs() {
        seconds @ 0..100 => format!("{seconds} s"),
        seconds @ 100..6000 => format!("{} min", (seconds + 30) / 60),
        seconds => format!("{} h", (seconds + 1800) / 3600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_written_one_way() {
        assert_eq!(bytes(7_620_000), "7.62 MB");
        assert_eq!(bytes(999), "999 B");
        assert_eq!(short_bytes(16_270_000), "16.27M");
        assert_eq!(short_bytes(12), "12");
        assert_eq!(megabytes(14_100_000), "14.1");
        assert_eq!(megabytes(2_000_000_000), "2,000");
        assert_eq!(count(21_400), "21,400");
        assert_eq!((count(7), count(100), count(1_000_000)), ("7".into(), "100".into(), "1,000,000".into()));
        assert_eq!(parameters(8_134_000), "8.1 M parameters");
        assert_eq!(
            (change(0.018), change(-0.001), change(f64::NAN)),
            ("+1.8%".into(), "-0.1%".into(), "NaN".into())
        );
        assert_eq!((perplexity(139.074), perplexity(f64::INFINITY)), ("139.07".into(), "inf".into()));
        assert_eq!(clock(Duration::from_secs(3723)), "1:02:03");
        assert_eq!(
            (roughly(Duration::from_secs(14)), roughly(Duration::from_secs(170))),
            ("14 s".into(), "3 min".into())
        );
    }
}
