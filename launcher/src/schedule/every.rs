//! How often a sweep runs: days of the week and times of the day, as in `Mon..Fri 02:00`.

use std::fmt;
use std::str::FromStr;

use qlaunch_shared::{Error, Result};
use serde::{Deserialize, Serialize};

use super::civil::Civil;

/// Names of the days, as systemd, cron and people write them.
pub const DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];

/// Days of the week and times of the day.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Every {
    /// Which days, Monday first.
    pub days: [bool; 7],
    /// Hours and minutes, in order.
    pub times: Vec<(u8, u8)>,
    text: String,
}

impl Every {
    /// The latest moment of the schedule that is not after `now`. There is one in every week.
    pub fn latest(&self, now: Civil) -> Option<Civil> {
        self.moments((-7..=0).rev(), now).into_iter().filter(|moment| *moment <= now).max()
    }

    /// The first moment of the schedule after `now`.
    pub fn next(&self, now: Civil) -> Option<Civil> {
        self.moments(0..=7, now).into_iter().filter(|moment| *moment > now).min()
    }

    fn moments(&self, days: impl Iterator<Item = i64>, now: Civil) -> Vec<Civil> {
        let days = days.map(|days| now.plus_days(days)).filter(|day| self.days[day.weekday()]);
        days.flat_map(|day| self.times.iter().map(move |time| day.at(*time))).collect()
    }
}

impl FromStr for Every {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = |what: String| {
            Error::usage(format!("`{text}` is no schedule: {what}")).hint(
                "write days and times, as in \"Mon..Fri 02:00\", \"daily 02:00,14:00\" or \"Sat,Sun 03:30\"",
            )
        };
        let (days, times) = match text.trim().rsplit_once(' ') {
            Some((days, times)) => (days.trim(), times),
            None => ("daily", text.trim()),
        };
        let mut every = Self { days: [false; 7], times: Vec::new(), text: text.trim().to_owned() };
        for part in days.split(',').map(str::trim) {
            let (from, to) = match part.to_ascii_lowercase().as_str() {
                "daily" => (0, 6),
                "weekdays" => (0, 4),
                _ => {
                    let (from, to) = part.split_once("..").unwrap_or((part, part));
                    let day = |name: &str| {
                        let found = DAYS.iter().position(|day| name.trim().eq_ignore_ascii_case(day));
                        found.ok_or_else(|| wrong(format!("there is no day `{}`", name.trim())))
                    };
                    (day(from)?, day(to)?)
                }
            };
            // `Fri..Mon` goes over the weekend.
            let count = (to + 7 - from) % 7;
            (0..=count).for_each(|step| every.days[(from + step) % 7] = true);
        }
        for part in times.split(',').map(str::trim) {
            let time = part.split_once(':').and_then(|(hour, minute)| {
                let (hour, minute) = (hour.parse::<u8>().ok()?, minute.parse::<u8>().ok()?);
                (hour < 24 && minute < 60).then_some((hour, minute))
            });
            every.times.push(time.ok_or_else(|| wrong(format!("there is no time `{part}`")))?);
        }
        every.times.sort_unstable();
        every.times.dedup();
        Ok(every)
    }
}

impl TryFrom<String> for Every {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Every> for String {
    fn from(every: Every) -> Self {
        every.text
    }
}

impl fmt::Display for Every {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Civil {
        text.parse().unwrap()
    }

    #[test]
    fn days_and_times_are_read_as_people_write_them() {
        let days = |text: &str| {
            let every: Every = text.parse().unwrap();
            let days = DAYS.iter().zip(every.days).filter(|(_, on)| *on).map(|(day, _)| *day);
            (days.collect::<Vec<_>>().join(" "), every.times)
        };
        assert_eq!(days("Mon..Fri 02:00"), ("Mon Tue Wed Thu Fri".to_owned(), vec![(2, 0)]));
        assert_eq!(days("Sat..Mon,Wed 23:59"), ("Mon Wed Sat Sun".to_owned(), vec![(23, 59)]));
        assert_eq!(days("14:30,2:00").1, [(2, 0), (14, 30)]);
        for wrong in ["", "Mon", "Mon..Fry 02:00", "daily 24:00", "daily 2", "daily 02:60"] {
            assert_eq!(wrong.parse::<Every>().unwrap_err().exit_code(), 2, "{wrong}");
        }
    }

    #[test]
    fn the_latest_and_the_next_moment_are_found_across_weekends_and_years() {
        let every: Every = "Mon..Fri 02:00,14:00".parse().unwrap();
        // A Saturday.
        assert_eq!(every.latest(at("2026-11-21T16:48")), Some(at("2026-11-20T14:00")));
        assert_eq!(every.next(at("2026-11-21T16:48")), Some(at("2026-11-23T02:00")));
        assert_eq!(every.latest(at("2026-11-23T02:00")), Some(at("2026-11-23T02:00")));
        assert_eq!(every.next(at("2026-11-23T02:00")), Some(at("2026-11-23T14:00")));
        let weekly: Every = "Thu 23:00".parse().unwrap();
        assert_eq!(weekly.latest(at("2027-01-01T00:00")), Some(at("2026-12-31T23:00")));
        assert_eq!(weekly.latest(at("2026-12-31T22:59")), Some(at("2026-12-24T23:00")));
        assert_eq!(weekly.next(at("2026-12-31T23:00")), Some(at("2027-01-07T23:00")));
    }
}
