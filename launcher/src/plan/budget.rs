//! The most GPU-hours that a run may take: what a person should know before the cluster is paid for.

use std::time::Duration;

use qlaunch_shared::{Error, Result};

use crate::config::{Kind, Profile};

/// What each job of a run holds at most.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Budget {
    jobs: usize,
    gpus: u32,
    time: Duration,
}

impl Budget {
    /// The budget of so many jobs, each tried once; none where jobs have no GPUs or no time limit.
    ///
    /// # Errors
    /// A time limit that SLURM would not understand.
    pub fn of(profile: &Profile, jobs: usize) -> Result<Option<Self>> {
        let slurm = &profile.slurm;
        let gpus = slurm.gpus * slurm.nodes;
        match (profile.kind, gpus, &slurm.time) {
            (Kind::Slurm, 1.., Some(time)) => Ok(limit(time)?.map(|time| Self { jobs, gpus, time })),
            _ => Ok(None),
        }
    }

    /// GPU-hours of all jobs together.
    pub fn hours(self) -> f64 {
        let jobs = u32::try_from(self.jobs).unwrap_or(u32::MAX);
        f64::from(jobs) * f64::from(self.gpus) * self.time.as_secs_f64() / 3600.0
    }

    /// The sum as a sentence.
    pub fn words(self) -> String {
        let hours = self.time.as_secs_f64() / 3600.0;
        let Self { jobs, gpus, .. } = self;
        format!("at most {:.1} GPU-hours: {jobs} jobs, {gpus} GPUs each, {hours:.1} hours each", self.hours())
    }
}

/// A time limit in seconds; none where there is none, or none that SLURM would understand.
pub fn seconds(text: &str) -> Option<u32> {
    u32::try_from(limit(text).ok()??.as_secs()).ok()
}

/// A time limit as SLURM spells it: minutes, `MM:SS`, `HH:MM:SS`, `D-HH`, `D-HH:MM` or `D-HH:MM:SS`; none for no limit.
fn limit(text: &str) -> Result<Option<Duration>> {
    if ["UNLIMITED", "INFINITE"].contains(&text.to_ascii_uppercase().as_str()) {
        return Ok(None);
    }
    let read = || {
        let numbers = |text: &str| -> Option<Vec<u64>> {
            text.split(':').map(|part| u64::from(part.parse::<u32>().ok()?).into()).collect()
        };
        let seconds = match text.split_once('-') {
            Some((days, rest)) => {
                let days = u64::from(days.parse::<u32>().ok()?) * 86_400;
                days + match numbers(rest)?[..] {
                    [hours] => hours * 3600,
                    [hours, minutes] => hours * 3600 + minutes * 60,
                    [hours, minutes, seconds] => hours * 3600 + minutes * 60 + seconds,
                    _ => return None,
                }
            }
            None => match numbers(text)?[..] {
                [minutes] => minutes * 60,
                [minutes, seconds] => minutes * 60 + seconds,
                [hours, minutes, seconds] => hours * 3600 + minutes * 60 + seconds,
                _ => return None,
            },
        };
        Some(Duration::from_secs(seconds))
    };
    let time = read().ok_or_else(|| {
        Error::input(format!("`{text}` is no time limit of SLURM"))
            .key("slurm.time")
            .hint("write `04:00:00` or `1-12:00:00`")
    })?;
    // SLURM reads 0 as no limit.
    Ok((!time.is_zero()).then_some(time))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_limits_are_read_as_slurm_reads_them() {
        let seconds = |text: &str| limit(text).unwrap().map(|time| time.as_secs());
        for (text, expected) in [
            ("90", 5400),
            ("90:30", 5430),
            ("04:00:00", 14_400),
            ("2-12", 216_000),
            ("1-00:30", 88_200),
            ("1-00:00:05", 86_405),
        ] {
            assert_eq!(seconds(text), Some(expected), "{text}");
        }
        assert_eq!((seconds("UNLIMITED"), seconds("0")), (None, None));
        for text in ["", "soon", "1:2:3:4", "1-", "-5", "1.5"] {
            assert_eq!(limit(text).unwrap_err().exit_code(), 3, "{text}");
        }
    }
}
