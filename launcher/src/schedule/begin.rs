//! When the jobs of a submission may begin, as people write it.

use std::str::FromStr;
use std::time::Duration;

use qlaunch_shared::{Error, Result};

use super::civil::Civil;

/// When jobs may begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begin {
    /// After so much time.
    After(Duration),
    /// At a moment of this machine's clock.
    At(Civil),
    /// When this machine's clock next shows an hour and a minute.
    Next((u8, u8)),
}

impl Begin {
    /// The moment on a clock that shows `now`; none for one that is told by the time until then.
    pub fn moment(self, now: Civil) -> Option<Civil> {
        match self {
            Self::After(_) => None,
            Self::At(moment) => Some(moment),
            Self::Next(time) if now.at(time) > now => Some(now.at(time)),
            Self::Next(time) => Some(now.at(time).plus_days(1)),
        }
    }
}

impl FromStr for Begin {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let time = |text: &str| {
            let (hour, minute) = text.split_once(':')?;
            let time: (u8, u8) = (hour.parse().ok()?, minute.parse().ok()?);
            (time.0 < 24 && time.1 < 60).then_some(time)
        };
        let after = |text: &str| {
            let rest = text.strip_prefix("now+")?;
            let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
            let seconds = match &rest[end..] {
                "" | "s" | "seconds" => 1,
                "m" | "minutes" => 60,
                "h" | "hours" => 3600,
                "d" | "days" => 86_400,
                _ => return None,
            };
            Some(Duration::from_secs(rest[..end].parse::<u32>().ok()?.into()).saturating_mul(seconds))
        };
        let read = || {
            let at = || text.parse::<Civil>().ok().map(Self::At);
            after(text).map(Self::After).or_else(|| time(text).map(Self::Next)).or_else(at)
        };
        read().ok_or_else(|| {
            Error::usage(format!("`{text}` does not say when jobs may begin"))
                .hint("write `--begin 22:00`, `--begin 2026-11-22T02:00` or `--begin now+90m`")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moment(text: &str, now: &str) -> String {
        let begin: Begin = text.parse().unwrap();
        begin.moment(now.parse().unwrap()).unwrap().to_string()
    }

    #[test]
    fn a_time_without_a_date_is_the_next_one() {
        assert_eq!(moment("22:00", "2026-12-31T21:59"), "2026-12-31T22:00");
        assert_eq!(moment("22:00", "2026-12-31T22:00"), "2027-01-01T22:00");
        assert_eq!(moment("2028-02-29T02:30", "2026-12-31T22:00"), "2028-02-29T02:30");
    }

    #[test]
    fn times_from_now_have_the_units_of_sbatch() {
        for (text, seconds) in [("now+90", 90), ("now+2m", 120), ("now+3hours", 10_800), ("now+1d", 86_400)] {
            assert_eq!(text.parse::<Begin>().unwrap(), Begin::After(Duration::from_secs(seconds)), "{text}");
        }
    }

    #[test]
    fn what_is_no_time_is_refused_with_an_example() {
        for text in
            ["", "soon", "24:00", "12:60", "now+", "now+2weeks", "2026-02-30T10:00", "now+99999999999d"]
        {
            let error = text.parse::<Begin>().unwrap_err();
            assert!(error.exit_code() == 2 && error.hint.is_some(), "{text}");
        }
    }
}
