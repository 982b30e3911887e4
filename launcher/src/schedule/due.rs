//! Whether a schedule has to run now. Timers only knock; this decides.
//!
//! Runs are keyed by the moment of the schedule that they stand for, on the clock of the wall. A timer that knocks twice, as some do
//! when the clock is put back, finds the moment taken; one that knocks late, because the machine was off or the
//! hour does not exist when the clock is put forward, runs once for the latest moment.

use super::civil::Civil;
use super::every::Every;

/// Whether it has to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// It runs, for this moment.
    Run(Civil),
    /// It has run for this moment.
    Done(Civil),
    /// Nothing has been due since it was added.
    NotYet,
    /// Somebody paused it.
    Paused,
}

/// Decides at a moment on the clock of the wall, given when the schedule was added and the last moment that it ran for.
pub fn due(every: &Every, now: Civil, added: Civil, last: Option<Civil>, paused: bool) -> Due {
    if paused {
        return Due::Paused;
    }
    match every.latest(now) {
        Some(moment) if last.is_some_and(|last| last >= moment) => Due::Done(moment),
        Some(moment) if moment >= added => Due::Run(moment),
        _ => Due::NotYet,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Civil {
        text.parse().unwrap()
    }

    /// Knocks at each moment on the wall; the moments that are run for.
    fn ran(every: &str, knocks: &[&str]) -> Vec<String> {
        let every: Every = every.parse().unwrap();
        let (mut last, mut ran) = (None, Vec::new());
        for knock in knocks {
            if let Due::Run(moment) = due(&every, at(knock), at("2026-01-01T00:00"), last, false) {
                last = Some(moment);
                ran.push(moment.to_string());
            }
        }
        ran
    }

    #[test]
    fn midnight_belongs_to_the_new_day_and_a_late_knock_to_the_old_one() {
        let knocks = ["2026-11-20T00:00", "2026-11-20T00:01", "2026-11-21T00:00"];
        assert_eq!(ran("daily 00:00", &knocks), ["2026-11-20T00:00", "2026-11-21T00:00"]);
        let knocks = ["2026-11-21T00:01", "2026-11-21T23:59", "2026-11-22T00:00"];
        assert_eq!(ran("daily 23:59", &knocks), ["2026-11-20T23:59", "2026-11-21T23:59"]);
    }

    #[test]
    fn an_hour_that_does_not_exist_is_run_once_and_one_that_comes_twice_is_run_once() {
        // Berlin, 29 March 2026: 01:59 is followed by 03:00. Timers knock at 03:00, or not before the next day.
        let knocks = ["2026-03-28T02:30", "2026-03-29T03:00", "2026-03-29T03:30", "2026-03-30T02:30"];
        let expected = ["2026-03-28T02:30", "2026-03-29T02:30", "2026-03-30T02:30"];
        assert_eq!(ran("daily 02:30", &knocks), expected);
        assert_eq!(ran("daily 02:30", &["2026-03-28T02:30", "2026-03-30T02:30"]).len(), 2);
        // 25 October 2026: 02:59 is followed by 02:00, and 02:30 comes again.
        let knocks = ["2026-10-25T02:30", "2026-10-25T02:10", "2026-10-25T02:30", "2026-10-26T02:30"];
        assert_eq!(ran("daily 02:30", &knocks), ["2026-10-25T02:30", "2026-10-26T02:30"]);
        let knocks = ["2026-10-25T01:30", "2026-10-25T02:30", "2026-10-25T02:00", "2026-10-25T02:30"];
        assert_eq!(ran("daily 01:30,02:30", &knocks), ["2026-10-25T01:30", "2026-10-25T02:30"]);
    }

    #[test]
    fn what_was_missed_is_caught_up_once() {
        let knocks = ["2026-11-16T02:00", "2026-11-20T09:00", "2026-11-20T09:01", "2026-11-23T02:00"];
        let expected = ["2026-11-16T02:00", "2026-11-20T02:00", "2026-11-23T02:00"];
        assert_eq!(ran("Mon..Fri 02:00", &knocks), expected);
    }

    #[test]
    fn a_schedule_that_is_new_or_paused_waits() {
        let every: Every = "daily 02:00".parse().unwrap();
        let (now, added) = (at("2026-11-21T16:00"), at("2026-11-21T15:00"));
        assert_eq!(due(&every, now, added, None, false), Due::NotYet);
        assert_eq!(due(&every, now, at("2026-11-20T15:00"), None, true), Due::Paused);
        let moment = at("2026-11-21T02:00");
        assert_eq!(due(&every, now, at("2026-11-20T15:00"), Some(moment), false), Due::Done(moment));
    }
}
