//! Watches a session for a person: bars on a terminal, lines elsewhere.

use std::time::Instant;

use super::bars::Bars;
use super::errors::note;
use super::lines::Lines;
use super::screen::Screen;
use super::track::{Track, line};
use crate::session::{Listener, Notice};

/// A watcher of one session.
pub struct Watch<'a> {
    screen: &'a mut Screen,
    track: Track,
    view: View,
}

enum View {
    Bars(Bars),
    Lines(Lines),
}

impl<'a> Watch<'a> {
    /// Watches jobs by their names, in the run's order.
    pub fn new(screen: &'a mut Screen, names: impl IntoIterator<Item = String>) -> Self {
        let track = Track::new(names, Instant::now());
        let view = if screen.live { View::Bars(Bars::new(&track)) } else { View::Lines(Lines::default()) };
        Self { screen, track, view }
    }

    fn say(&mut self, text: &str) {
        match &self.view {
            View::Bars(bars) => bars.say(text),
            View::Lines(_) => self.screen.say(text),
        }
    }
}

impl Listener for Watch<'_> {
    fn notice(&mut self, notice: &Notice<'_>) {
        let now = Instant::now();
        self.track.take(notice, now);
        if let Some((level, text)) = line(notice, &self.track) {
            self.say(&note(level, &text));
        }
        // Lines are told at once, so that a phase shorter than a tick is not missed.
        if let View::Lines(lines) = &mut self.view {
            for text in lines.news(&self.track, now) {
                self.screen.say(&text);
            }
        }
    }

    fn tick(&mut self) {
        if let View::Bars(bars) = &mut self.view {
            bars.draw(&self.track, Instant::now());
        }
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        if let View::Bars(bars) = &self.view {
            bars.end();
        }
    }
}
