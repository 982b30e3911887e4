//! Tests of what is tracked, and of the lines that are said without a terminal.

use std::time::{Duration, Instant};

use qlaunch_shared::protocol::Unit;

use super::*;
use crate::ui::lines::Lines;

fn said(body: EventBody) -> Said {
    Said::Event(Box::new(Event { sequence: 0, at: 0, body }))
}

fn phase(phase: Phase, total: u64) -> Said {
    said(EventBody::Phase { phase, total, unit: Unit::TokenLayers })
}

fn progress(done: u64, layer: usize) -> Said {
    let (layer, layers, tokens_per_second) = (Some(layer), Some(8), Some(21_400.0));
    said(EventBody::Progress { phase: Phase::Calibrate, done, layer, layers, tokens_per_second })
}

fn track(begun: Instant) -> Track {
    Track::new(["bf16", "a", "b"].map(str::to_owned), begun)
}

#[test]
fn the_overall_words_tell_what_is_done_running_and_waiting() {
    let begun = Instant::now();
    let mut track = track(begun);
    track.take(&Notice::Accepted { job: "bf16" }, begun);
    track.take(&Notice::Started { job: "a", attempt: 1 }, begun);
    track.take(&Notice::Said { job: "a", said: &phase(Phase::Calibrate, 100) }, begun);
    track.take(&Notice::Said { job: "a", said: &progress(50, 3) }, begun);
    let later = begun + Duration::from_secs(10);
    assert_eq!(track.words(later), "1 of 3 done · 1 running (calibrate 3/8) · 1 waiting   about 14 s left");
    let at = track.jobs[1].phase.clone().unwrap();
    assert_eq!(at.words(), "layer 3/8   21,400 tok/s");
    assert_eq!(at.left(later), Some(Duration::from_secs(10)));
}

#[test]
fn a_job_that_is_tried_again_starts_from_nothing() {
    let begun = Instant::now();
    let mut track = track(begun);
    track.take(&Notice::Started { job: "a", attempt: 1 }, begun);
    track.take(&Notice::Said { job: "a", said: &phase(Phase::Evaluate, 100) }, begun);
    let lost = Ending::Lost { error: Error::bug("gone"), class: crate::journal::Loss::Infrastructure };
    track.take(&Notice::Ended { job: "a", ending: &lost }, begun);
    assert_eq!((track.jobs[1].standing, track.share()), (Standing::Waiting, 0.0));
}

#[test]
fn jobs_of_an_earlier_session_do_not_count_for_the_time_that_is_left() {
    let begun = Instant::now();
    let mut track = track(begun);
    for job in ["bf16", "a", "b"] {
        track.take(&Notice::Kept { job }, begun);
    }
    assert_eq!((track.share(), track.words(begun).as_str()), (1.0, "3 of 3 done"));
}

#[test]
fn lines_are_one_a_change_and_one_in_ten_seconds_for_a_phase() {
    let begun = Instant::now();
    let (mut track, mut lines) = (track(begun), Lines::default());
    let mut news = Vec::new();
    track.take(&Notice::Started { job: "a", attempt: 1 }, begun);
    track.take(&Notice::Said { job: "a", said: &phase(Phase::Calibrate, 800) }, begun);
    for second in 0..25_u64 {
        let now = begun + Duration::from_secs(second);
        track.take(&Notice::Said { job: "a", said: &progress(second * 20, 1 + second as usize / 4) }, now);
        news.extend(lines.news(&track, now));
    }
    track.take(&Notice::Accepted { job: "a" }, begun + Duration::from_secs(25));
    news.extend(lines.news(&track, begun + Duration::from_secs(25)));
    assert_eq!(
        news,
        [
            "a: calibrate",
            "a: calibrate layer 3/8   21,400 tok/s, about 30 s left",
            "a: calibrate layer 6/8   21,400 tok/s, about 20 s left",
            "a: done (1 of 3 done · 2 waiting   about 50 s left)",
        ]
    );
}
