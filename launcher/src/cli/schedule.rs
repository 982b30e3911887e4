//! `qlaunch schedule`: sweeps that run again and again, by timers of systemd, cron or SLURM.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command as Process;

use anstyle::Style;
use clap::{Args, Subcommand, ValueEnum};
use qlaunch_shared::yaml::did_you_mean;
use qlaunch_shared::{Error, Result};
use serde_json::json;

use super::main::Context;
use super::schedule_run::{Asked, run_now};
use super::submission::read_sweep_file;
use crate::config::{Kind, Overrides, Settings};
use crate::plan::absolute;
use crate::schedule::{Civil, Every, SCHEDULE_VERSION, Schedule, Timer, units};
use crate::ui::{Column, Table};

const EXAMPLES: &str = "\
Examples:
  qlaunch schedule add sweep.yaml --cluster hpc --every \"Mon..Fri 02:00\"
  qlaunch schedule add sweep.yaml --every \"Sun 03:30\" --timer cron
  qlaunch schedule list
  qlaunch schedule run-now sweep            at once, whatever the clock says
  qlaunch schedule pause sweep

A timer of your choice calls `qlaunch schedule run-now NAME --due`. That runs the sweep once for each moment of the schedule, not while
the last run still goes on, and ends with 10 where something got worse. See docs/schedules.md.";

/// Adds, shows, runs and removes schedules.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct ScheduleArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Lets a sweep run again and again.
    Add(Add),
    /// All schedules, with their last and next runs.
    List,
    /// One schedule: what came of it, and the files of its timer.
    Show(Named),
    /// The next moment of a schedule.
    Next(Named),
    /// Runs a schedule's sweep now.
    RunNow(RunNow),
    /// Keeps a schedule without running it.
    Pause(Named),
    /// Lets a paused schedule run again.
    Resume(Named),
    /// Forgets a schedule. Its runs stay.
    Remove(Named),
}

/// A schedule to add.
#[derive(Debug, Args)]
struct Add {
    /// The sweep file.
    sweep: PathBuf,
    /// Days and times, on this machine's clock: "Mon..Fri 02:00", "daily 02:00,14:00", "Sat,Sun 03:30".
    #[arg(long, value_name = "WHEN")]
    every: String,
    /// Name of the cluster.
    #[arg(long, value_name = "NAME", default_value = "local")]
    cluster: String,
    /// Name of the schedule [default: the sweep's].
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Whose timer will call [default: systemd; on a login host of SLURM its scrontab, or begin where that is switched off].
    #[arg(long, value_enum)]
    timer: Option<Clock>,
    /// Folder of all runs [default: runs, or QLAUNCH_RUNS].
    #[arg(long, value_name = "DIR")]
    runs: Option<PathBuf>,
}

/// A schedule by its name.
#[derive(Debug, Args)]
struct Named {
    /// Name of the schedule.
    name: String,
}

/// A schedule to run.
#[derive(Debug, Args)]
struct RunNow {
    /// Name of the schedule.
    name: String,
    /// Only if a moment of the schedule has come that it has not run for: what timers say.
    #[arg(long)]
    due: bool,
}

/// Whose timer calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Clock {
    /// A timer of systemd for this user.
    Systemd,
    /// A line of the crontab.
    Cron,
    /// A line of SLURM's scrontab.
    Scrontab,
    /// A job of SLURM that queues itself again for the next moment.
    Begin,
}

/// The timer where nobody chooses one. `here` says that jobs go to the SLURM of this machine.
fn usual_clock(here: bool) -> Clock {
    if !here {
        return Clock::Systemd;
    }
    let asked = Process::new("scrontab").arg("-l").output();
    let works = asked.is_ok_and(|output| !String::from_utf8_lossy(&output.stderr).contains("disabled"));
    if works { Clock::Scrontab } else { Clock::Begin }
}

/// Runs the command.
pub fn run(args: ScheduleArgs, context: &mut Context) -> Result<u8> {
    match args.action {
        Action::Add(add) => add_schedule(add, context),
        Action::List => list(context),
        Action::Show(named) => show(&folder(&named.name, context)?, context),
        Action::Next(named) => next(&folder(&named.name, context)?, context),
        Action::RunNow(args) => {
            let asked = if args.due { Asked::ByTimer } else { Asked::ByPerson };
            run_now(&folder(&args.name, context)?, asked, context)
        }
        Action::Pause(named) => set_paused(&named.name, true, context),
        Action::Resume(named) => set_paused(&named.name, false, context),
        Action::Remove(named) => remove(&named.name, context),
    }
}

/// The clock of the wall, by the system's own rules for zones and daylight saving.
///
/// # Errors
/// No `date` on this machine.
pub fn wall_clock() -> Result<Civil> {
    let output = Process::new("date").arg("+%Y-%m-%dT%H:%M").output();
    let text = output.map_err(|error| Error::bug(format!("cannot ask `date` for the time: {error}")))?;
    String::from_utf8_lossy(&text.stdout).parse()
}

fn all(context: &Context) -> Result<PathBuf> {
    let user = context.around.user.as_ref();
    let user = user.ok_or_else(|| Error::input("there is no home folder for schedules").hint("set HOME"))?;
    Ok(Schedule::folder(user))
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let with_file = entries.filter(|entry| Schedule::path(&entry.path()).exists());
    let mut names: Vec<String> = with_file.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    names
}

/// The folder of a schedule that is there.
fn folder(name: &str, context: &Context) -> Result<PathBuf> {
    let all = all(context)?;
    let known = names(&all);
    if known.iter().any(|other| other == name) {
        return Ok(all.join(name));
    }
    let known: Vec<&str> = known.iter().map(String::as_str).collect();
    let hint = if known.is_empty() {
        "add one: `qlaunch schedule add SWEEP --every \"Mon..Fri 02:00\"`".to_owned()
    } else {
        did_you_mean(name, &known)
    };
    Err(Error::input(format!("there is no schedule `{name}`")).at(all).hint(hint))
}

fn add_schedule(add: Add, context: &mut Context) -> Result<u8> {
    let every: Every = add.every.parse()?;
    let (_, sweep) = read_sweep_file(&add.sweep)?;
    let overrides = Overrides { runs: add.runs.clone(), ..Overrides::default() };
    let settings = Settings::load(&add.cluster, &context.around, &overrides)?;
    let here = settings.profile.kind == Kind::Slurm && settings.profile.ssh.is_none();
    let name = add.name.clone().unwrap_or(sweep.name);
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if name.is_empty() || name.starts_with(['.', '-']) || !name.chars().all(plain) {
        return Err(Error::usage(format!("`{name}` cannot be the name of a schedule"))
            .hint("use letters, digits, `-`, `_` and `.`"));
    }
    let folder = all(context)?.join(&name);
    if Schedule::path(&folder).exists() {
        return Err(Error::usage(format!("there is a schedule `{name}` already"))
            .hint(format!("choose another `--name`, or first `qlaunch schedule remove {name}`")));
    }
    let program = context.around.executable.clone();
    let schedule = Schedule {
        version: SCHEDULE_VERSION,
        name,
        sweep: absolute(&add.sweep)?,
        cluster: add.cluster,
        project: context.around.project.clone(),
        runs: settings.runs,
        program: program.ok_or_else(|| Error::bug("this program does not know where it lies"))?,
        variables: context.around.variables.clone(),
        every,
        added: wall_clock()?,
        paused: false,
        firings: Vec::new(),
    };
    schedule.write(&folder)?;
    for timer in Timer::ALL {
        for unit in units(&schedule, &folder, timer) {
            let path = folder.join(&unit.name);
            fs::write(&path, &unit.text).map_err(|error| Error::io("write", &path, &error))?;
        }
    }
    let next = schedule.every.next(schedule.added).map(|moment| moment.to_string());
    let clock = add.timer.unwrap_or_else(|| usual_clock(here));
    let (timer, start) = start(&schedule, &folder, clock);
    if context.screen.json {
        context.screen.document(&json!({"schedule": schedule, "next": next, "start": start}))?;
        return Ok(0);
    }
    for unit in units(&schedule, &folder, timer) {
        context.screen.data(&format!("# {}\n{}", folder.join(&unit.name).display(), unit.text))?;
    }
    context.screen.say(&format!(
        "added `{}`, next due {}; nothing calls it yet. Let the timer begin:\n  {start}",
        schedule.name,
        next.unwrap_or_default()
    ));
    Ok(0)
}

/// The command that lets a timer begin.
fn start(schedule: &Schedule, folder: &Path, clock: Clock) -> (Timer, String) {
    let at = |name: String| crate::plan::quote(&folder.join(name).display().to_string());
    match clock {
        Clock::Systemd => {
            let (service, timer) =
                (format!("qlaunch-{}.service", schedule.name), format!("qlaunch-{}.timer", schedule.name));
            let start = format!(
                "systemctl --user link {} && systemctl --user enable --now {}",
                at(service),
                at(timer)
            );
            (Timer::Systemd, start)
        }
        Clock::Cron => (Timer::Cron, format!("(crontab -l; cat {}) | crontab -", at("crontab".to_owned()))),
        Clock::Begin => (Timer::Begin, format!("sbatch {}", at("begin.sh".to_owned()))),
        Clock::Scrontab => {
            (Timer::Scrontab, format!("(scrontab -l; cat {}) | scrontab -", at("scrontab".to_owned())))
        }
    }
}

fn list(context: &mut Context) -> Result<u8> {
    let (all, now) = (all(context)?, wall_clock()?);
    let titles = ["schedule", "every", "cluster", "last", "run", "code", "next"];
    let mut table = Table::new(titles.map(Column::left).to_vec());
    let mut documents = Vec::new();
    for name in names(&all) {
        let schedule = Schedule::read(&all.join(&name))?;
        let last = schedule.firings.last();
        let next = match schedule.paused {
            true => "paused".to_owned(),
            false => schedule.every.next(now).map(|moment| moment.to_string()).unwrap_or_default(),
        };
        table.row(
            vec![
                name,
                schedule.every.to_string(),
                schedule.cluster.clone(),
                last.map_or("–".to_owned(), |firing| firing.moment.to_string()),
                last.and_then(|firing| firing.run.clone()).unwrap_or_else(|| "–".to_owned()),
                last.map_or("–".to_owned(), |firing| firing.code.to_string()),
                next.clone(),
            ],
            Style::new(),
        );
        documents.push(json!({"schedule": schedule, "next": next}));
    }
    match context.screen.json {
        true => context.screen.document(&documents)?,
        false => context.screen.data(&table.draw(context.screen.width).text)?,
    }
    Ok(0)
}

fn show(folder: &Path, context: &mut Context) -> Result<u8> {
    let schedule = Schedule::read(folder)?;
    if context.screen.json {
        context.screen.document(&schedule)?;
        return Ok(0);
    }
    let mut lines = vec![
        format!(
            "{}: {} on {}, {}",
            schedule.name,
            schedule.sweep.display(),
            schedule.cluster,
            schedule.every
        ),
        format!("  in {}, runs in {}", schedule.project.display(), schedule.runs.display()),
    ];
    if schedule.paused {
        lines.push(format!("  paused: `qlaunch schedule resume {}`", schedule.name));
    }
    for firing in schedule.firings.iter().rev().take(10) {
        let run = firing.run.as_deref().unwrap_or("no run");
        lines.push(format!(
            "  {}  code {:<2}  {run}  {}",
            firing.moment,
            firing.code,
            firing.notes.join("; ")
        ));
    }
    for timer in Timer::ALL {
        for unit in units(&schedule, folder, timer) {
            lines.push(format!("\n# {}\n{}", folder.join(&unit.name).display(), unit.text.trim_end()));
        }
    }
    context.screen.data(&lines.join("\n"))?;
    Ok(0)
}

fn next(folder: &Path, context: &mut Context) -> Result<u8> {
    let schedule = Schedule::read(folder)?;
    let moment = schedule.every.next(wall_clock()?).map(|moment| moment.to_string());
    match context.screen.json {
        true => context.screen.document(&json!({"schedule": schedule.name, "next": moment}))?,
        false => context.screen.data(&moment.unwrap_or_default())?,
    }
    Ok(0)
}

fn set_paused(name: &str, paused: bool, context: &mut Context) -> Result<u8> {
    let folder = folder(name, context)?;
    let mut schedule = Schedule::read(&folder)?;
    schedule.paused = paused;
    schedule.write(&folder)?;
    context
        .screen
        .say(&format!("`{name}` {}", if paused { "is paused" } else { "runs again when it is due" }));
    Ok(0)
}

fn remove(name: &str, context: &mut Context) -> Result<u8> {
    let folder = folder(name, context)?;
    fs::remove_dir_all(&folder).map_err(|error| Error::io("remove", &folder, &error))?;
    context.screen.say(&format!(
        "`{name}` is removed; its runs stay. If a timer still calls it: `systemctl --user disable --now qlaunch-{name}.timer`, `scancel --name=qlaunch-{name}`, or take its lines out by `crontab -e` or `scrontab -e`"
    ));
    Ok(0)
}
