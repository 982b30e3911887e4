//! Sessions on a SLURM whose clock is virtual: days in the queue, a limiter of calls, and a controller that is away for a
//! weekend, each in seconds.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use qlaunch_shared::protocol::{JobSpec, RunFolder, VERSION};
use qlaunch_shared::{Error, Result};
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::carry::{Carried, Opening, Setup};
use super::drive::Drive;
use super::listener::{Listener, Notice};
use super::site::{Pace, Site};
use crate::backend::Slurm;
use crate::config::{Kind, Notify, Overrides, Secrets, Settings, Surroundings, template};
use crate::engine::{Policy, Stage};
use crate::journal::Journal;
use crate::plan::{Extras, PlannedJob, PlannedRun};
use crate::transport::{Chunk, CommandOutput, Host, Local, Transport, Wanted};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);
/// How long SLURM remembers a job that is over (`MinJobAge`).
const MEMORY: Duration = Duration::from_secs(300);

/// How the controller takes a call.
enum Mood {
    /// It answers after a while, because the limiter has programs wait and ask again.
    Answers(Duration),
    /// It refuses, in these words.
    Refuses(&'static str),
}

/// A job as the scheduler knows it.
struct Queued {
    name: String,
    folder: PathBuf,
    begins: Duration,
    ends: Duration,
    /// When it was handed over, for those that wait for another job.
    after: Option<Duration>,
}

/// A cluster on which every job waits and runs for the same time.
struct World {
    began: Instant,
    waits: Duration,
    runs: Duration,
    mood: fn(Duration) -> Mood,
    jobs: RefCell<Vec<Queued>>,
    files: RefCell<BTreeMap<PathBuf, Vec<u8>>>,
    /// When it was asked.
    calls: RefCell<Vec<Duration>>,
}

impl World {
    fn of(waits: Duration, runs: Duration, mood: fn(Duration) -> Mood) -> Rc<Self> {
        let (jobs, files, calls) = (RefCell::default(), RefCell::default(), RefCell::default());
        Rc::new(Self { began: Instant::now(), waits, runs, mood, jobs, files, calls })
    }

    /// What jobs have left by now.
    fn settle(&self) {
        let now = self.began.elapsed();
        for job in self.jobs.borrow().iter().filter(|job| job.ends <= now) {
            let outcome = json!({
                "version": VERSION, "candidate": job.name, "status": "done", "worker": "0", "host": "n1",
            });
            self.files
                .borrow_mut()
                .entry(job.folder.join("outcome.json"))
                .or_insert(outcome.to_string().into());
        }
    }

    fn sbatch(&self, arguments: &[&str]) -> CommandOutput {
        let [name, folder, ..] = arguments else { return failed("no arguments") };
        let mut jobs = self.jobs.borrow_mut();
        let now = self.began.elapsed();
        let ids = arguments.iter().find_map(|argument| argument.strip_prefix("--dependency=afterok:"));
        let ids = ids.into_iter().flat_map(|ids| ids.split(':')).filter_map(|id| id.parse::<usize>().ok());
        let after = ids.filter_map(|id| Some(jobs.get(id - 1)?.ends)).max();
        let begins = after.unwrap_or_default().max(now) + self.waits;
        let (name, folder, ends) = ((*name).to_owned(), PathBuf::from(folder), begins + self.runs);
        jobs.push(Queued { name, folder, begins, ends, after });
        printed(format!("{}\n", jobs.len()))
    }

    /// Rows of the queue as `squeue` prints them.
    fn queue(&self) -> String {
        let now = self.began.elapsed();
        let row = |(index, job): (usize, &Queued)| {
            let (state, node, reason) = match now {
                _ if now >= job.ends + MEMORY => return None,
                _ if now >= job.ends => ("COMPLETED", "n1", "None"),
                _ if now >= job.begins => ("RUNNING", "n1", "None"),
                _ if job.after.is_some_and(|after| now < after) => ("PENDING", "", "Dependency"),
                _ => ("PENDING", "", "Priority"),
            };
            Some(format!("{}|{}|{state}|{node}|{reason}\n", index + 1, job.name))
        };
        self.jobs.borrow().iter().enumerate().filter_map(row).collect()
    }

    fn attempt(&self, folder: &str) -> &'static str {
        let outcome = Path::new(folder).join("outcome.json");
        if self.files.borrow().contains_key(&outcome) { "@attempt 0 yes\n" } else { "@attempt 0 no\n" }
    }
}

fn printed(stdout: String) -> CommandOutput {
    CommandOutput { code: Some(0), stdout, stderr: String::new() }
}

fn failed(why: &str) -> CommandOutput {
    CommandOutput { code: Some(90), stdout: String::new(), stderr: why.to_owned() }
}

/// The way to it.
#[derive(Clone)]
struct Far(Rc<World>);

impl Transport for Far {
    async fn read_many(&self, wanted: &[Wanted]) -> Result<Vec<Option<Chunk>>> {
        self.0.settle();
        let files = self.0.files.borrow();
        let read = |wanted: &Wanted| {
            let bytes = files.get(&wanted.path)?;
            let rest = bytes.get(wanted.from as usize..).unwrap_or_default();
            let piece = &rest[..rest.len().min(wanted.limit as usize)];
            Some(Chunk { bytes: piece.to_vec(), size: bytes.len() as u64, inode: 1 })
        };
        Ok(wanted.iter().map(read).collect())
    }

    async fn write(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        self.0.files.borrow_mut().insert(path.to_owned(), bytes.to_vec());
        Ok(())
    }

    async fn write_private(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        self.write(path, bytes).await
    }

    async fn append(&self, _path: &Path, _size: u64, _bytes: &[u8]) -> Result<u64> {
        Err(Error::bug("a session appends nothing"))
    }

    async fn make_folder(&self, _path: &Path) -> Result<()> {
        Ok(())
    }

    async fn exists(&self, path: &Path) -> Result<bool> {
        self.0.settle();
        Ok(self.0.files.borrow().contains_key(path))
    }

    async fn rename(&self, _from: &Path, _to: &Path) -> Result<()> {
        Err(Error::bug("these jobs leave nothing to be moved"))
    }

    async fn remove(&self, path: &Path) -> Result<()> {
        self.0.files.borrow_mut().remove(path);
        Ok(())
    }

    async fn shell_within(&self, _: Duration, script: &str, arguments: &[&str]) -> Result<CommandOutput> {
        let now = self.0.began.elapsed();
        self.0.calls.borrow_mut().push(now);
        let refused = match (self.0.mood)(now) {
            Mood::Refuses(why) => Some(why),
            Mood::Answers(after) => {
                sleep(after).await;
                None
            }
        };
        self.0.settle();
        if script.contains("sbatch --parsable") {
            return Ok(refused.map_or_else(|| self.0.sbatch(arguments), failed));
        }
        if script.contains("@queue") {
            let queue = match refused {
                None => self.0.queue() + "@queue 0\n",
                Some(_) => "@queue 1\n".to_owned(),
            };
            let seen: String = arguments[1..].iter().map(|folder| self.0.attempt(folder)).collect();
            return Ok(printed(queue + &seen));
        }
        Ok(failed("this cluster keeps no accounts"))
    }
}

/// What a session said.
#[derive(Default)]
struct Heard(Vec<String>);

impl Listener for Heard {
    fn notice(&mut self, notice: &Notice<'_>) {
        match notice {
            Notice::Held { why } => self.0.push(format!("held: {why}")),
            Notice::Waiting { job, reason } => self.0.push(format!("{job}: {reason:?}")),
            Notice::LinkLost { error } => self.0.push(format!("lost: {error}")),
            Notice::GivenUp { job, error } => self.0.push(format!("{job} was given up: {error}")),
            _ => {}
        }
    }
}

/// A baseline and candidates that leave nothing but their outcome.
fn planned(folder: &Path, candidates: usize) -> PlannedRun {
    let job = |name: String, recipe: Option<&str>| {
        let spec = json!({ "version": VERSION, "run": "r", "candidate": name, "model": "/models/m" });
        let spec: JobSpec = serde_json::from_value(spec).unwrap();
        PlannedJob { name, recipe: recipe.map(str::to_owned), plan: None, spec }
    };
    let candidates = (0..candidates).map(|index| job(format!("c{index}"), Some("fp8")));
    let jobs = std::iter::once(job("bf16".to_owned(), None)).chain(candidates).collect();
    let (name, site) = ("r".to_owned(), "/cluster/runs/r".into());
    PlannedRun { name, folder: folder.to_owned(), site, identity: "0".to_owned(), jobs }
}

fn setup() -> Setup {
    let settings = Settings::load("slurm", &Surroundings::default(), &Overrides::default()).unwrap();
    let (template, template_origin) = template("slurm.sh.j2", &Surroundings::default()).unwrap();
    Setup {
        cluster: "hpc".to_owned(),
        kind: Kind::Slurm,
        site: Site { host: Host::Here(Local), workspace: Some("/cluster".into()) },
        template,
        template_origin,
        extras: Extras::of(&settings.profile),
        worker: "/cluster/worker".into(),
        shipping: None,
        secrets: (Vec::new(), Secrets::default()),
        policy: Policy { jobs: 1000, array: 0, attempts: 3, grace: 120_000, ahead: true, begin: None },
        array_size: 0,
        pace: Pace::of(&settings),
        lag: SECOND * 60,
        opening: Opening::Retry,
        again: Vec::new(),
        notify: Notify::default(),
        begin: None,
    }
}

/// Carries out a sweep, and gives what became of it, what was said, and how long it took on the cluster's clock.
fn carried_out(
    candidates: usize,
    world: impl FnOnce() -> Rc<World>,
) -> (Carried, Heard, Rc<World>, Duration) {
    let folder = tempfile::tempdir().unwrap();
    let (run, setup) = (planned(folder.path(), candidates), setup());
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let world = world();
        let (journal, lines) = Journal::open(&RunFolder(run.folder.clone()).journal()).unwrap();
        let mut heard = Heard::default();
        let far = Far(Rc::clone(&world));
        let backend = Slurm::over(far.clone(), "hpc", setup.lag);
        let mut drive = Drive::new(&run, &setup, (journal, &lines), (backend, far), &mut heard);
        drive.open().await.unwrap();
        drive.work().await.unwrap();
        let carried = drive.into_carried();
        let took = world.began.elapsed();
        (carried, heard, world, took)
    })
}

fn assert_each_done_once(carried: &Carried, world: &World) {
    assert!(carried.state.jobs.iter().all(|job| job.stage == Stage::Accepted), "{:?}", carried.state.jobs);
    assert_eq!(world.jobs.borrow().len(), carried.state.jobs.len(), "handed over once each");
}

/// Most calls within any stretch of so much time.
fn most_calls(calls: &[Duration], within: Duration) -> usize {
    let begun =
        |call: &Duration| calls.iter().filter(|other| **other >= *call && **other < *call + within).count();
    calls.iter().map(begun).max().unwrap_or(0)
}

const GENEROUS: fn(Duration) -> Mood = |_| Mood::Answers(Duration::from_millis(50));

#[test]
fn two_days_in_the_queue_cost_one_question_in_half_a_minute_for_all_jobs() {
    let (carried, heard, world, took) = carried_out(20, || World::of(DAY, HOUR, GENEROUS));
    assert_each_done_once(&carried, &world);
    // The candidates queue behind the baseline.
    assert!(took >= (DAY + HOUR) * 2 && took < (DAY + HOUR) * 2 + SECOND * 120, "{took:?}");
    let calls = world.calls.borrow();
    let handed_over = carried.state.jobs.len();
    // Thirty seconds between two questions at most, and often ones only around what changes.
    let bound = took.as_secs() as usize / 30 + handed_over + 100;
    assert!(calls.len() <= bound, "{} calls, {bound} are allowed", calls.len());
    let later = calls.iter().copied().filter(|call| *call > SECOND * 60).collect::<Vec<_>>();
    assert!(most_calls(&later, SECOND * 2) <= 2, "at most two calls in a tick");
    assert!(heard.0.iter().any(|said| said.contains("other jobs go first")), "{:?}", heard.0);
}

#[test]
fn a_limiter_that_makes_callers_wait_is_not_pressed_harder() {
    // For six hours an answer takes twenty seconds.
    let mood: fn(Duration) -> Mood =
        |now| Mood::Answers(if now < HOUR * 6 { SECOND * 20 } else { Duration::from_millis(50) });
    let (carried, _, world, _) = carried_out(5, || World::of(HOUR * 4, HOUR, mood));
    assert_each_done_once(&carried, &world);
    let calls = world.calls.borrow();
    let overlapping = calls.windows(2).filter(|pair| pair[0] < HOUR * 5 && pair[1] - pair[0] < SECOND * 20);
    assert_eq!(overlapping.count(), 0, "one question at a time");
    let later = calls.iter().copied().filter(|call| *call > HOUR && *call < HOUR * 4).collect::<Vec<_>>();
    assert!(later.len() <= 3 * 3600 / 50 + 2, "{} calls in three hours", later.len());
}

#[test]
fn a_limiter_that_drops_calls_for_hours_loses_no_job_and_ends_none() {
    // As SLURM 23.02 and newer say it (`SlurmctldParameters=rl_enable`).
    let mood: fn(Duration) -> Mood = |now| match now {
        _ if now < HOUR * 2 || (now > HOUR * 5 && now < HOUR * 7) => Mood::Refuses(
            "sbatch: error: Batch job submission failed: Rate limit exceeded, please retry later",
        ),
        _ => Mood::Answers(Duration::from_millis(50)),
    };
    let (carried, heard, world, took) = carried_out(5, || World::of(HOUR, HOUR, mood));
    assert_each_done_once(&carried, &world);
    assert!(
        heard.0.iter().any(|said| said.starts_with("held") && said.contains("Rate limit")),
        "{:?}",
        heard.0
    );
    let calls = world.calls.borrow();
    assert!(calls.len() <= took.as_secs() as usize / 15 + 100, "{} calls in {took:?}", calls.len());
}

#[test]
fn a_weekend_without_a_controller_ends_no_job_and_the_forgotten_ones_tell_how_they_ended() {
    // It goes away once all jobs are handed over, and comes back when it has forgotten them.
    let mood: fn(Duration) -> Mood = |now| match now > SECOND * 90 && now < DAY * 2 {
        true => {
            Mood::Refuses("sbatch: error: Batch job submission failed: Unable to contact slurm controller")
        }
        false => Mood::Answers(Duration::from_millis(50)),
    };
    let (carried, heard, world, took) = carried_out(3, || World::of(HOUR, HOUR, mood));
    assert_each_done_once(&carried, &world);
    assert!(!heard.0.iter().any(|said| said.contains("given up")), "{:?}", heard.0);
    // What is done is seen although nobody answers.
    assert!(took < DAY, "{took:?}");
}
