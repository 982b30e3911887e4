//! `qlaunch fetch`: brings checkpoints home, in pieces that a lost link does not cost, each file held against its digest.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use clap::Args;
use qlaunch_shared::digest::sha256_of_file;
use qlaunch_shared::protocol::RunFolder;
use qlaunch_shared::{Error, ErrorKind, Result};

use super::main::Context;
use super::runs::{KnownRun, RunChoice};
use super::watch::check_names;
use crate::engine::{Stage, fold};
use crate::session::{Site, block_on};
use crate::transport::{Host, Transport};
use crate::ui::bytes;

/// Bytes that are fetched at a time.
const CHUNK: u64 = 8 << 20;
/// Tries in a row that a link may fail.
const TRIES: u32 = 8;
/// Prints `SHA256 SIZE NAME` of each file below `$1`.
const LIST: &str = r#"
cd -- "$1" || exit 1
find . -type f ! -name '.*' | LC_ALL=C sort | while IFS= read -r file; do
  digest=$(sha256sum < "$file") && printf '%s %s %s\n' "${digest%% *}" "$(wc -c < "$file")" "${file#./}"
done
"#;

const EXAMPLES: &str = "\
Examples:
  qlaunch fetch                                  every checkpoint of the newest run
  qlaunch fetch tiny-llama-7f3a/fp8_default-kv_fp8 --to models

A fetch that was stopped goes on where it stopped; each file is held against its digest.";

/// Brings the checkpoints of a run to this machine: all of them, or that of `RUN/CANDIDATE`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct FetchArgs {
    #[command(flatten)]
    choice: RunChoice,
    /// Candidates to fetch; all that are done if none is named.
    #[arg(long = "candidate", value_name = "NAME")]
    candidates: Vec<String>,
    /// Folder to put them in, one folder for each; the run's own folder if not given.
    #[arg(long, value_name = "DIR")]
    to: Option<PathBuf>,
}

/// Runs the command.
pub fn run(args: &FetchArgs, context: &mut Context) -> Result<u8> {
    let (choice, job) = args.choice.with_job(&context.around)?;
    let known = choice.open(&context.around)?;
    let named: Vec<String> = args.candidates.iter().cloned().chain(job).collect();
    check_names(&named, &known)?;
    let state = fold(&known.journal()?);
    let made =
        |name: &str| known.saved.run.jobs.iter().any(|job| job.name == name && job.spec.quantize.is_some());
    let done = |name: &str| state.job(name).is_some_and(|job| job.stage == Stage::Accepted);
    if let Some(name) = named.iter().find(|name| !done(name) || !made(name)) {
        return Err(Error::input(format!("`{name}` has no checkpoint yet"))
            .at(&known.saved.run.folder)
            .hint(format!("see `qlaunch status {}`", known.saved.run.name)));
    }
    let names: Vec<String> = match named.is_empty() {
        true => {
            state.jobs.iter().map(|job| job.name.clone()).filter(|name| done(name) && made(name)).collect()
        }
        false => named,
    };
    let target = args.to.as_ref().map(|to| context.around.project.join(to));
    let here = target.clone().unwrap_or_else(|| known.saved.run.folder.clone());
    let site = block_on(Site::open(&known.settings, &context.around))?;
    for name in names {
        let from = RunFolder(known.saved.run.site.clone()).job(&name).checkpoint();
        let to = match &target {
            Some(folder) => folder.join(&name),
            None => RunFolder(here.clone()).job(&name).checkpoint(),
        };
        if from == to {
            context.screen.say(&format!("{name} is here already: {}", to.display()));
            continue;
        }
        let size = block_on(fetch(&site.host, &from, &to, &known))?;
        context.screen.data(&format!("{} · {}", context.screen.path(&to), bytes(size)))?;
    }
    Ok(0)
}

async fn fetch(host: &Host, from: &Path, to: &Path, known: &KnownRun) -> Result<u64> {
    let output =
        host.shell_within(std::time::Duration::from_secs(3600), LIST, &[&from.display().to_string()]).await?;
    if output.code != Some(0) || output.stdout.trim().is_empty() {
        return Err(Error::input("the checkpoint is not there any more")
            .at(from)
            .hint(format!("make it again: `qlaunch rerun {}`", known.saved.run.name)));
    }
    let mut files: Vec<(&str, u64, &str)> = output.stdout.lines().filter_map(line).collect();
    // A checkpoint looks whole only when it is: its config comes last.
    files.sort_by_key(|(_, _, name)| *name == "config.json");
    let mut total = 0;
    for (digest, size, name) in files {
        fetch_file(host, &from.join(name), &to.join(name), (digest, size)).await?;
        total += size;
    }
    Ok(total)
}

fn line(line: &str) -> Option<(&str, u64, &str)> {
    let mut fields = line.splitn(3, ' ');
    let (digest, size, name) = (fields.next()?, fields.next()?.parse().ok()?, fields.next()?);
    // A host does not say where files go here.
    let tame = Path::new(name).components().all(|part| matches!(part, std::path::Component::Normal(_)));
    tame.then_some((digest, size, name))
}

async fn fetch_file(host: &Host, from: &Path, to: &Path, (digest, size): (&str, u64)) -> Result<()> {
    if to.is_file() && sha256_of_file(to)?.0 == digest {
        return Ok(());
    }
    let fault = |error: std::io::Error| Error::io("write", to, &error);
    let folder = to.parent().unwrap_or(to);
    fs::create_dir_all(folder).map_err(fault)?;
    let mut part = to.as_os_str().to_owned();
    part.push(format!(".{}.part", digest.get(..16).unwrap_or_default()));
    let part = PathBuf::from(part);
    let mut file = OpenOptions::new().create(true).append(true).open(&part).map_err(fault)?;
    let mut there = file.metadata().map_err(fault)?.len();
    let mut failures = 0;
    while there < size {
        match host.read(from, there, CHUNK).await {
            Ok(Some(bytes)) if !bytes.is_empty() => {
                file.write_all(&bytes).map_err(fault)?;
                there += bytes.len() as u64;
                failures = 0;
            }
            Ok(_) => return Err(Error::input("the file became shorter").at(from).hint("fetch it again")),
            Err(error) if error.kind == ErrorKind::Unreachable && failures < TRIES => {
                failures += 1;
                tokio::time::sleep(std::time::Duration::from_millis(250 << failures)).await;
            }
            Err(error) => return Err(error),
        }
    }
    file.sync_all().map_err(fault)?;
    drop::<File>(file);
    if sha256_of_file(&part)?.0 != digest {
        fs::remove_file(&part).map_err(fault)?;
        return Err(Error::input("the file did not arrive whole").at(from).hint("fetch it again"));
    }
    fs::rename(&part, to).map_err(fault)
}
