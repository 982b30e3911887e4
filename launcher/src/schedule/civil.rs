//! A moment as a clock on the wall shows it: no zone, so that a schedule means what people read.

use std::fmt;
use std::str::FromStr;

use qlaunch_shared::{Error, Result};
use serde::{Deserialize, Serialize};

/// A date and a time to the minute. Ordered as calendars are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Civil {
    /// Year.
    pub year: i64,
    /// Month, from 1.
    pub month: u8,
    /// Day of the month, from 1.
    pub day: u8,
    /// Hour, 0 to 23.
    pub hour: u8,
    /// Minute.
    pub minute: u8,
}

impl Civil {
    /// Day of the week, Monday 0.
    pub const fn weekday(self) -> usize {
        // The first of January 1970 was a Thursday.
        (self.days() + 3).rem_euclid(7) as usize
    }

    /// The same time so many days later.
    #[must_use]
    pub const fn plus_days(self, days: i64) -> Self {
        let (year, month, day) = date(self.days() + days);
        Self { year, month, day, ..self }
    }

    /// The same day at another time.
    #[must_use]
    pub const fn at(self, (hour, minute): (u8, u8)) -> Self {
        Self { hour, minute, ..self }
    }

    /// Days since the first of January 1970, in the Gregorian calendar.
    const fn days(self) -> i64 {
        // Years begin in March, so that the leap day is the last.
        let year = if self.month <= 2 { self.year - 1 } else { self.year };
        let era = year.div_euclid(400);
        let of_era = year.rem_euclid(400);
        let month = (self.month as i64 + 9) % 12;
        let of_year = (153 * month + 2) / 5 + self.day as i64 - 1;
        era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
    }
}

/// The date so many days after the first of January 1970.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "months and days are small")]
const fn date(days: i64) -> (i64, u8, u8) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year + era * 400 + if month <= 2 { 1 } else { 0 }, month as u8, day as u8)
}

impl fmt::Display for Civil {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { year, month, day, hour, minute } = self;
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}")
    }
}

impl FromStr for Civil {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let read = || {
            let (date, time) = text.trim().split_once('T')?;
            let mut date = date.splitn(3, '-');
            let (hour, minute) = time.split_once(':')?;
            let civil = Self {
                year: date.next()?.parse().ok()?,
                month: date.next()?.parse().ok()?,
                day: date.next()?.parse().ok()?,
                hour: hour.parse().ok()?,
                minute: minute.parse().ok()?,
            };
            let is_date = (civil.plus_days(0).month, civil.plus_days(0).day) == (civil.month, civil.day);
            (is_date && civil.hour < 24 && civil.minute < 60).then_some(civil)
        };
        read().ok_or_else(|| Error::input(format!("`{text}` is no moment such as 2026-11-21T02:00")))
    }
}

impl TryFrom<String> for Civil {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Civil> for String {
    fn from(civil: Civil) -> Self {
        civil.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_and_weekdays_are_those_of_the_calendar() {
        // Of `date -d … +%u`.
        for (text, weekday) in [
            ("1970-01-01T00:00", 3),
            ("2026-11-21T16:48", 5),
            ("2024-02-29T12:00", 3),
            ("2000-03-01T00:00", 2),
        ] {
            let civil: Civil = text.parse().unwrap();
            assert_eq!((civil.weekday(), civil.to_string().as_str()), (weekday, text));
        }
        let eve: Civil = "2023-12-31T23:59".parse().unwrap();
        assert_eq!(eve.plus_days(1).to_string(), "2024-01-01T23:59");
        assert_eq!(eve.plus_days(60).to_string(), "2024-02-29T23:59");
        for wrong in ["2026-02-29T00:00", "2026-11-21T24:00", "2026-13-01T00:00", "today"] {
            assert!(wrong.parse::<Civil>().is_err(), "{wrong}");
        }
    }
}
