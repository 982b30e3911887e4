//! Plain lines where there is no terminal: one a change, at most one in ten seconds for each job's phase.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use qlaunch_shared::protocol::Phase;

use super::figures::roughly;
use super::track::{Standing, Track};

/// Shortest time between two lines about one phase.
const QUIET: Duration = Duration::from_secs(10);

/// What has been said so far.
#[derive(Debug, Default)]
pub struct Lines {
    said: HashMap<String, (Phase, Instant)>,
    standings: HashMap<String, Standing>,
}

impl Lines {
    /// What is worth a line now.
    pub fn news(&mut self, track: &Track, now: Instant) -> Vec<String> {
        let mut news = Vec::new();
        for job in &track.jobs {
            let label = track.label(&job.name).map_or(String::new(), |name| format!("{name}: "));
            let before = self.standings.insert(job.name.clone(), job.standing).unwrap_or(Standing::Waiting);
            if before != job.standing
                && let Some(word) = word(job.standing)
            {
                let all = if label.is_empty() { String::new() } else { format!(" ({})", track.words(now)) };
                news.push(format!("{label}{word}{all}"));
            }
            let Some(at) = job.phase.as_ref().filter(|_| job.standing == Standing::Running) else {
                continue;
            };
            let new = match self.said.get(&job.name) {
                Some((phase, when)) => *phase != at.phase || now.saturating_duration_since(*when) >= QUIET,
                None => true,
            };
            if new {
                self.said.insert(job.name.clone(), (at.phase, now));
                let left =
                    at.left(now).map_or(String::new(), |left| format!(", about {} left", roughly(left)));
                let words = if at.done == 0 { String::new() } else { format!(" {}{left}", at.words()) };
                news.push(format!("{label}{}{words}", at.phase.name()));
            }
        }
        news
    }
}

fn word(standing: Standing) -> Option<&'static str> {
    match standing {
        Standing::Done => Some("done"),
        Standing::Kept => Some("done before"),
        // Why it failed has a line of its own.
        Standing::Failed | Standing::Waiting | Standing::Running => None,
    }
}
