//! What a launcher costs by itself: scripts of a thousand candidates, and a run of ten thousand that is taken up again.
//! `benches/launch/run.sh` runs it beside NeMo-Run and submitit. Bounds: 50 µs a script, 200 ms to resume.

use std::error::Error;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

use qlaunch::config::{Overrides, Settings, Surroundings, template};
use qlaunch::engine::{Policy, decide, fold};
use qlaunch::journal::{Ending, Entry, Handle, JobName, Journal, Line, VERSION};
use qlaunch::plan::{Extras, Script, Task, Template};

const SCRIPTS: usize = 1000;
const JOBS: usize = 10_000;
const ROUNDS: usize = 7;

/// The median of some rounds, in seconds.
fn median(mut round: impl FnMut() -> Result<(), Box<dyn Error>>) -> Result<f64, Box<dyn Error>> {
    let mut times = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        round()?;
        times.push(begun.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    Ok(times[ROUNDS / 2])
}

/// Microseconds for the script of one candidate, and for its share of an array's.
fn render() -> Result<(f64, f64), Box<dyn Error>> {
    let (text, origin) = template("slurm.sh.j2", &Surroundings::default())?;
    let settings = Settings::load("slurm", &Surroundings::default(), &Overrides::default())?;
    let extras = Extras::of(&settings.profile);
    let folders: Vec<PathBuf> =
        (0..SCRIPTS).map(|index| format!("/runs/tiny-7f3a/c{index}").into()).collect();
    let script = |folder| Script {
        run: "tiny-7f3a",
        candidate: "a candidate",
        cluster: "hpc",
        folder,
        worker: Path::new("/home/me/qlaunch/workers/0/qlaunch-worker"),
        extras: &extras,
        needs: Some(Path::new("/runs/tiny-7f3a/reference.safetensors")),
        leaves: None,
        reads: Vec::new(),
        writes: Vec::new(),
        lead: 120,
        array: None,
    };
    let alone = median(|| {
        let template = Template::read(&text, &origin)?;
        for folder in &folders {
            template.render(&script(folder.as_path()))?;
        }
        Ok(())
    })?;
    let array = median(|| {
        let tasks = folders.iter().map(|folder| Task { folder: folder.clone(), attempt: 1 }).collect();
        Template::read(&text, &origin)?
            .render(&Script { array: Some(tasks), ..script(Path::new("/runs/a")) })?;
        Ok(())
    })?;
    let each = 1e6 / SCRIPTS as f64;
    Ok((alone * each, array * each))
}

/// The journal of a run of which half is done and half is in the queue.
fn write_journal(path: &Path) -> Result<usize, Box<dyn Error>> {
    let name = |index: usize| format!("candidate-{index:05}");
    let mut jobs = vec![JobName { name: "bf16".to_owned(), baseline: true }];
    jobs.extend((0..JOBS).map(|index| JobName { name: name(index), baseline: false }));
    let opened = Entry::Opened {
        version: VERSION,
        launcher: "bench".to_owned(),
        identity: "0".to_owned(),
        fresh: false,
        jobs: jobs.clone(),
    };
    let mut entries = vec![opened];
    for (index, JobName { name: job, .. }) in jobs.into_iter().enumerate() {
        let handle = Handle::Slurm { id: index.to_string(), name: format!("ql-0123456789ab-{job}-1") };
        entries.push(Entry::Submitting { job: job.clone(), attempt: 1, array: None });
        entries.push(Entry::Submitted { job: job.clone(), attempt: 1, handle });
        if index % 2 == 0 {
            entries.push(Entry::Ended { job: job.clone(), attempt: 1, restart: 0, ending: Ending::Done });
            entries.push(Entry::Accepting { job: job.clone(), attempt: 1 });
            entries.push(Entry::Accepted { job, attempt: 1 });
        }
    }
    let mut file = std::io::BufWriter::new(std::fs::File::create(path)?);
    for (at, entry) in (0..).zip(&entries) {
        serde_json::to_writer(&mut file, &Line { at, entry: entry.clone() })?;
        file.write_all(b"\n")?;
    }
    file.flush()?;
    Ok(entries.len())
}

fn main() -> Result<(), Box<dyn Error>> {
    let (alone, array) = render()?;
    let path = std::env::temp_dir().join(format!("qlaunch-launch-bench-{}.jsonl", std::process::id()));
    let records = write_journal(&path)?;
    let policy = Policy { jobs: 20_000, array: 1000, attempts: 3, grace: 1000, ahead: true, begin: None };
    let resume = median(|| {
        let (_journal, lines) = Journal::open(&path)?;
        let actions = decide(&fold(&lines), 0, &policy);
        if actions.is_empty() { Ok(()) } else { Err("all is done or in the queue".into()) }
    });
    std::fs::remove_file(&path)?;
    let result = serde_json::json!({
        "render_us_per_script": alone,
        "render_us_per_array_task": array,
        "resume_ms": resume? * 1e3,
        "resume": format!("{JOBS} candidates, {records} records: read, folded, decided"),
    });
    writeln!(std::io::stdout(), "{result:#}")?;
    if let Some(path) = std::env::args().skip(1).find(|argument| !argument.starts_with('-')) {
        std::fs::write(path, format!("{result:#}\n"))?;
    }
    Ok(())
}
