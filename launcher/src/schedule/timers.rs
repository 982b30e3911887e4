//! A schedule as the timers of other programs: systemd, cron, SLURM's scrontab.

use std::path::Path;

use super::every::{DAYS, Every};
use super::saved::Schedule;
use crate::plan::quote;

/// A program that knocks at given times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Timer {
    /// Units of systemd, for one user.
    Systemd,
    /// Lines of a crontab.
    Cron,
    /// Lines of SLURM's scrontab.
    Scrontab,
    /// A job of SLURM that puts the next one into the queue, where a site has no scrontab.
    Begin,
}

impl Timer {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Systemd, Self::Cron, Self::Scrontab, Self::Begin];
}

/// A file for a timer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit {
    /// Name of the file.
    pub name: String,
    /// Its text.
    pub text: String,
}

/// The files of a timer, which lie in the schedule's folder.
pub fn units(schedule: &Schedule, folder: &Path, timer: Timer) -> Vec<Unit> {
    let unit = |name: String, text: String| Unit { name, text };
    match timer {
        Timer::Systemd => vec![
            unit(format!("qlaunch-{}.service", schedule.name), service(schedule)),
            unit(format!("qlaunch-{}.timer", schedule.name), timer_unit(schedule)),
        ],
        Timer::Cron => vec![unit("crontab".to_owned(), crontab(schedule, ""))],
        Timer::Scrontab => {
            // A job that only drives: it needs one CPU, and as long as the sweep takes.
            let options =
                format!("#SCRON --job-name=qlaunch-{} --cpus-per-task=1 --time=1-00:00:00\n", schedule.name);
            vec![unit("scrontab".to_owned(), crontab(schedule, &options))]
        }
        Timer::Begin => vec![unit("begin.sh".to_owned(), begin(schedule, folder))],
    }
}

fn service(schedule: &Schedule) -> String {
    // systemd reads `%` and `$` as the beginning of something of its own.
    let word = |text: String| {
        format!(
            "\"{}\"",
            text.replace('\\', "\\\\").replace('"', "\\\"").replace('%', "%%").replace('$', "$$")
        )
    };
    let program = word(schedule.program.display().to_string());
    let folder = schedule.project.display().to_string().replace('%', "%%");
    format!(
        "[Unit]\nDescription=qlaunch: {name} on {cluster}\n\n[Service]\nType=oneshot\nWorkingDirectory={folder}\n\
         ExecStart={program} schedule run-now {name} --due\n",
        name = schedule.name,
        cluster = schedule.cluster
    )
}

fn timer_unit(schedule: &Schedule) -> String {
    let Every { days, times, .. } = &schedule.every;
    let names: Vec<&str> = DAYS.iter().zip(days).filter(|(_, on)| **on).map(|(day, _)| *day).collect();
    let lines: Vec<String> = times
        .iter()
        .map(|(hour, minute)| format!("OnCalendar={} *-*-* {hour:02}:{minute:02}:00\n", names.join(",")))
        .collect();
    format!(
        "[Unit]\nDescription=qlaunch: {name}, {every}\n\n[Timer]\n{lines}\
         # A machine that was off runs what it missed, once.\nPersistent=true\n\n[Install]\nWantedBy=timers.target\n",
        name = schedule.name,
        every = schedule.every,
        lines = lines.concat()
    )
}

/// A job that first queues the next one, then knocks. One that SLURM starts again finds the next one in the queue.
fn begin(schedule: &Schedule, folder: &Path) -> String {
    let Schedule { name, every, .. } = schedule;
    let program = quote(&schedule.program.display().to_string());
    let script = quote(&folder.join("begin.sh").display().to_string());
    // SLURM reads `%` as the beginning of a pattern.
    let log = folder.join("begin.log").display().to_string().replace('%', "%%");
    format!(
        r#"#!/bin/sh
# qlaunch {name}: {every}. `sbatch {script}` lets it begin, `scancel --name=qlaunch-{name}` ends it.
#SBATCH --job-name=qlaunch-{name}
#SBATCH --cpus-per-task=1
#SBATCH --time=1-00:00:00
#SBATCH --output="{log}"
#SBATCH --open-mode=append
# A schedule that was removed ends here.
next=$({program} schedule next {name}) || exit
queued() {{ squeue -h -u "$(id -un)" -n qlaunch-{name} -t PENDING -o %i; }}
tries=0
until [ -n "$(queued)" ] || sbatch --begin="$next" {script}; do
    [ "$tries" -lt 60 ] || break
    tries=$((tries + 1))
    sleep 60
done
exec {program} schedule run-now {name} --due
"#
    )
}

fn crontab(schedule: &Schedule, options: &str) -> String {
    let Every { days, times, .. } = &schedule.every;
    // cron counts from Sunday.
    let numbers: Vec<String> =
        (0..7).filter(|day| days[*day]).map(|day| ((day + 1) % 7).to_string()).collect();
    let days = if numbers.len() == 7 { "*".to_owned() } else { numbers.join(",") };
    let program = quote(&schedule.program.display().to_string());
    // cron reads `%` as the end of the line.
    let command = format!("{program} schedule run-now {} --due", schedule.name).replace('%', "\\%");
    let lines = times.iter().map(|(hour, minute)| format!("{options}{minute} {hour} * * {days} {command}\n"));
    format!("# qlaunch {}: {}\n{}", schedule.name, schedule.every, lines.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(every: &str) -> Schedule {
        Schedule {
            version: 1,
            name: "nightly".into(),
            sweep: "/p/sweep.yaml".into(),
            cluster: "hpc".into(),
            project: "/home/me/50% work".into(),
            runs: "/p/runs".into(),
            program: "/opt/my tools/qlaunch".into(),
            variables: std::collections::BTreeMap::new(),
            every: every.parse().unwrap(),
            added: "2026-11-21T12:00".parse().unwrap(),
            paused: false,
            firings: Vec::new(),
        }
    }

    fn files(every: &str, timer: Timer) -> Vec<Unit> {
        units(&schedule(every), Path::new("/home/me/50% work"), timer)
    }

    #[test]
    fn a_job_queues_the_next_one_before_it_knocks() {
        let text = &files("daily 02:00", Timer::Begin)[0].text;
        let at = |words: &str| text.find(words).unwrap_or_else(|| panic!("no `{words}` in {text}"));
        assert!(
            at("sbatch --begin=\"$next\" '/home/me/50% work/begin.sh'")
                < at("exec '/opt/my tools/qlaunch' schedule run-now nightly --due")
        );
        assert!(text.contains("#SBATCH --output=\"/home/me/50%% work/begin.log\""), "{text}");
        // Lines behind the first command are none of sbatch's.
        assert!(text.rfind("#SBATCH").unwrap() < at("next="));
    }

    #[test]
    fn crontabs_have_a_line_for_each_time() {
        let text = &files("Mon..Fri 02:00,14:30", Timer::Cron)[0].text;
        let command = "'/opt/my tools/qlaunch' schedule run-now nightly --due";
        let expected = format!(
            "# qlaunch nightly: Mon..Fri 02:00,14:30\n0 2 * * 1,2,3,4,5 {command}\n30 14 * * 1,2,3,4,5 {command}\n"
        );
        assert_eq!(*text, expected);
        assert!(files("daily 00:00", Timer::Cron)[0].text.contains("\n0 0 * * * "));
        assert!(files("Sat,Sun 03:05", Timer::Cron)[0].text.contains("\n5 3 * * 6,0 "));
    }

    #[test]
    fn scrontabs_put_their_options_before_each_line() {
        let text = &files("Sun 03:30", Timer::Scrontab)[0].text;
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[1].starts_with("#SCRON --job-name=qlaunch-nightly"), "{text}");
        assert!(lines[2].starts_with("30 3 * * 0 '/opt/my tools/qlaunch'"), "{text}");
    }

    #[test]
    fn systemd_finds_nothing_wrong_with_its_units() {
        let work = tempfile::tempdir().unwrap();
        std::fs::create_dir(work.path().join("my tools")).unwrap();
        let program = work.path().join("my tools/qlaunch");
        std::fs::copy("/bin/true", &program).unwrap();
        let schedule = Schedule { program, ..schedule("Fri..Mon 02:00,23:59") };
        let mut paths = Vec::new();
        for unit in units(&schedule, work.path(), Timer::Systemd) {
            let path = work.path().join(&unit.name);
            std::fs::write(&path, &unit.text).unwrap();
            paths.push(path);
        }
        let timer = std::fs::read_to_string(&paths[1]).unwrap();
        assert!(timer.contains(
            "OnCalendar=Mon,Fri,Sat,Sun *-*-* 02:00:00\nOnCalendar=Mon,Fri,Sat,Sun *-*-* 23:59:00\n"
        ));
        let mut verify = std::process::Command::new("systemd-analyze");
        let Ok(output) =
            verify.args(["--user", "verify"]).args(&paths).env("XDG_RUNTIME_DIR", work.path()).output()
        else {
            return;
        };
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success() && !said.contains("qlaunch-nightly"), "{said}");
    }
}
