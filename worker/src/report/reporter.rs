//! Events of one attempt: appended line by line, progress at most a few times a second.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use qlaunch_shared::protocol::{AttemptFolder, Event, EventBody, Level, Outcome, Phase, PhaseTime, Unit};
use qlaunch_shared::{Error, ErrorKind, Result};

use super::process::{cpu_seconds, stop_at_once, stop_requested};

/// How often progress is told.
const INTERVAL: Duration = Duration::from_millis(100);

/// A phase under way.
struct Running {
    phase: Phase,
    begun: Instant,
    cpu: f64,
    done: u64,
    told: Option<Instant>,
    layers: Option<usize>,
    unit: Unit,
}

/// Writes the events of one attempt, and its outcome.
pub struct Reporter {
    folder: AttemptFolder,
    events: File,
    sequence: u64,
    running: Option<Running>,
    /// Whether the layer at work is kept when it is done, so that SIGUSR2 waits for it.
    keeps_layers: bool,
    /// Phases that are over.
    pub phases: Vec<PhaseTime>,
}

impl Reporter {
    /// Begins the events of an attempt.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn create(folder: AttemptFolder) -> Result<Self> {
        std::fs::create_dir_all(&folder.0)
            .map_err(|e| Error::io("make the attempt's folder", &folder.0, &e))?;
        let path = folder.events();
        let events = File::create(&path).map_err(|e| Error::io("write events", &path, &e))?;
        Ok(Self { folder, events, sequence: 0, running: None, keeps_layers: false, phases: Vec::new() })
    }

    /// Appends an event. A full disk must not end the work: the outcome tells the same.
    pub fn tell(&mut self, body: EventBody) {
        let at = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
        let event = Event { sequence: self.sequence, at, body };
        self.sequence += 1;
        if let Ok(mut line) = serde_json::to_vec(&event) {
            line.push(b'\n');
            if let Err(error) = self.events.write_all(&line) {
                tracing::warn!("an event was lost: {error}");
            }
        }
    }

    /// Tells a person something.
    pub fn note(&mut self, level: Level, message: impl Into<String>) {
        self.tell(EventBody::Note { level, message: message.into() });
    }

    /// Begins a phase of `total` units; `layers` where it goes through decoder layers.
    pub fn begin(&mut self, phase: Phase, total: u64, unit: Unit, layers: Option<usize>) {
        self.end();
        self.tell(EventBody::Phase { phase, total, unit });
        let begun = Instant::now();
        self.running = Some(Running { phase, begun, cpu: cpu_seconds(), done: 0, told: None, layers, unit });
    }

    /// Adds to what is done of the current phase.
    ///
    /// # Errors
    /// Somebody asked to stop.
    pub fn advance(&mut self, done: u64, layer: Option<usize>) -> Result<()> {
        if stop_at_once() || (stop_requested() && !self.keeps_layers) {
            return Err(stopped());
        }
        let Some(running) = &mut self.running else { return Ok(()) };
        running.done += done;
        let now = Instant::now();
        if running.told.is_some_and(|told| now - told < INTERVAL) {
            return Ok(());
        }
        running.told = Some(now);
        let event = progress(running, layer, now);
        self.tell(event);
        Ok(())
    }

    /// Says that layers of this phase are kept one by one: SIGUSR2 is answered by [`Reporter::layer_kept`] alone.
    pub const fn keep_layers(&mut self) {
        self.keeps_layers = true;
    }

    /// Says that a layer was kept, and everything before it.
    ///
    /// # Errors
    /// Somebody asked to stop.
    pub fn layer_kept() -> Result<()> {
        if stop_requested() { Err(stopped()) } else { Ok(()) }
    }

    /// Ends the current phase, if there is one.
    pub fn end(&mut self) {
        self.keeps_layers = false;
        if let Some(running) = self.running.take() {
            let seconds = running.begun.elapsed().as_secs_f64();
            let cpu_seconds = cpu_seconds() - running.cpu;
            self.phases.push(PhaseTime { phase: running.phase, seconds, cpu_seconds });
            self.tell(EventBody::PhaseDone { phase: running.phase, seconds });
        }
    }

    /// Writes the outcome, by temp file and rename, and the last event.
    ///
    /// # Errors
    /// The outcome cannot be written.
    pub fn finish(mut self, outcome: &Outcome) -> Result<()> {
        write_outcome(&self.folder, outcome)?;
        self.tell(match &outcome.error {
            Some(error) => EventBody::Failed { error: error.clone() },
            None => EventBody::Finished,
        });
        Ok(())
    }
}

fn progress(running: &Running, layer: Option<usize>, now: Instant) -> EventBody {
    let seconds = (now - running.begun).as_secs_f64().max(1e-6);
    let tokens = match running.unit {
        Unit::TokenLayers => Some(running.done as f64 / running.layers.unwrap_or(1) as f64),
        Unit::Bytes | Unit::Steps => None,
    };
    EventBody::Progress {
        phase: running.phase,
        done: running.done,
        layer,
        layers: running.layers,
        tokens_per_second: tokens.map(|tokens| tokens / seconds),
    }
}

/// What ends a worker that was asked to stop.
pub fn stopped() -> Error {
    Error::new(ErrorKind::Resumable, "stopped at a safe point, as asked")
        .hint("submit the sweep again: it goes on with what is missing")
}

/// Writes an attempt's outcome: a reader sees all of the file or nothing.
///
/// # Errors
/// The disk fails.
pub fn write_outcome(folder: &AttemptFolder, outcome: &Outcome) -> Result<()> {
    let path: &Path = &folder.outcome();
    let failed = |e: std::io::Error| Error::io("write the outcome", path, &e);
    let text =
        serde_json::to_vec_pretty(outcome).map_err(|e| Error::bug(format!("cannot write JSON: {e}")))?;
    let part = path.with_extension("partial");
    let mut file = File::create(&part).map_err(failed)?;
    file.write_all(&text).map_err(failed)?;
    file.sync_all().map_err(failed)?;
    std::fs::rename(&part, path).map_err(failed)
}
