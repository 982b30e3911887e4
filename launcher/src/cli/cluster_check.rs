//! `qlaunch cluster check`: whether jobs would run on a cluster, step by step, each with a verdict and a remedy.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};

use anstyle::Style;
use qlaunch_shared::{Error, ErrorKind, Result};
use serde_json::json;

use super::cluster_docker::docker;
use super::cluster_hosts::hosts;
use super::cluster_step::{Step, Verdict, failed, step, word};
use super::main::Context;
use crate::config::{Kind, Settings};
use crate::plan::Extras;
use crate::session::{Opening, Setup, Site, block_on};
use crate::transport::{Host, Transport};
use crate::ui::{Column, Table, bytes};

/// Facts of SLURM that the launcher lives by, as `KEY=VALUE` lines.
const FACTS: &str = r#"
sbatch --version || exit 1
scontrol ping
scontrol show config | sed -n 's/^\(MaxArraySize\|MinJobAge\|MaxJobCount\|AccountingStorageType\|JobRequeue\|KillWait\|ClusterName\) *= */\1=/p'
echo "@nodes"
sinfo -h -o '%P|%a|%l|%D|%c|%m|%G'
"#;

/// Time that a compute node has to start the worker.
const NODE: Duration = Duration::from_secs(90);

/// Runs the command: 0 if nothing failed, else the code of the first failure.
pub fn run(settings: &Settings, context: &mut Context) -> Result<u8> {
    let (steps, code) = block_on(async { Ok(steps(settings, context).await) })?;
    if context.screen.json {
        let rows: Vec<serde_json::Value> = steps
            .iter()
            .map(|step| json!({"step": step.name, "verdict": word(step.verdict), "text": step.text, "hint": step.hint}))
            .collect();
        context.screen.document(&rows)?;
        return Ok(code);
    }
    let mut table = Table::new(vec![Column::left("step"), Column::left(""), Column::left("found")]);
    for step in &steps {
        let hint = step.hint.as_ref().map_or(String::new(), |hint| format!(" · hint: {hint}"));
        table.row(
            vec![step.name.to_owned(), word(step.verdict).to_owned(), format!("{}{hint}", step.text)],
            Style::new(),
        );
    }
    context.screen.data(&table.draw(None).text)?;
    Ok(code)
}

/// Everything that is found until a step on which the rest depends fails.
async fn steps(settings: &Settings, context: &Context) -> (Vec<Step>, u8) {
    let mut steps = Vec::new();
    let begun = Instant::now();
    let opened = Site::open(settings, &context.around).await;
    let site = match opened {
        Ok(site) => site,
        Err(error) => {
            let name = if error.kind == ErrorKind::Input { "workspace" } else { "connection" };
            steps.push(failed(name, &error));
            return (steps, error.exit_code());
        }
    };
    let host = settings.profile.ssh.as_ref();
    let host = host.map_or("this machine".to_owned(), |ssh| ssh.hosts().collect::<Vec<_>>().join(", "));
    steps.push(step("connection", Verdict::Pass, format!("{host}, {} ms", begun.elapsed().as_millis())));
    steps.extend(workspace(&site).await);
    steps.push(clock(&site.host).await);
    let setup = match Setup::prepare(settings, &context.around, site, Opening::Attach) {
        Ok(setup) => setup,
        Err(error) => {
            steps.push(failed("worker", &error));
            return (steps, error.exit_code());
        }
    };
    match setup.ship().await {
        Ok(()) => steps.push(step(
            "worker",
            Verdict::Pass,
            match settings.profile.kind {
                Kind::Slurm => format!("starts on the login host: {}", setup.worker.display()),
                _ => format!("starts there: {}", setup.worker.display()),
            },
        )),
        Err(error) => {
            let name = if settings.profile.kind == Kind::Docker { "containers" } else { "worker" };
            steps.push(failed(name, &error));
            return (steps, error.exit_code());
        }
    }
    if settings.profile.kind == Kind::Docker {
        steps.extend(docker(&setup).await);
    }
    if settings.profile.kind == Kind::Ssh {
        steps.extend(hosts(&setup).await);
    }
    if settings.profile.kind == Kind::Slurm {
        steps.extend(slurm(&setup.site.host).await);
        if !steps.iter().any(|step| step.verdict == Verdict::Fail) {
            steps.push(node(&setup, settings).await);
        }
    }
    let bad = steps.iter().any(|step| step.verdict == Verdict::Fail);
    (steps, if bad { ErrorKind::Refused.exit_code() } else { 0 })
}

async fn workspace(site: &Site) -> Option<Step> {
    let workspace = site.workspace.as_ref()?.display().to_string();
    let output = site
        .host
        .shell("df -P -k -- \"$1\" | awk 'NR == 2 { print $4 * 1024 }'", &[&workspace])
        .await
        .ok()?;
    let free = output.stdout.trim().parse::<f64>().unwrap_or(0.0);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "free bytes for the eye")]
    let text = format!("{workspace}, {} free", bytes(free as u64));
    Some(step("workspace", Verdict::Pass, text))
}

/// Times of two machines are never compared, but a person reads both.
async fn clock(host: &Host) -> Step {
    let Ok(output) = host.shell("date +%s", &[]).await else {
        return step("clock", Verdict::Note, "the host does not tell its time");
    };
    let here = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let there = output.stdout.trim().parse::<u64>().unwrap_or(here);
    match here.abs_diff(there) {
        0..=5 => step("clock", Verdict::Pass, "agrees with this machine's"),
        offset => step("clock", Verdict::Note, format!("differs from this machine's by {offset} seconds")),
    }
}

async fn slurm(host: &Host) -> Vec<Step> {
    let output = match host.shell(FACTS, &[]).await {
        Ok(output) if output.code == Some(0) => output,
        Ok(output) => {
            let error = Error::new(
                ErrorKind::Refused,
                format!("SLURM does not answer: {}", output.stderr.trim()),
            )
            .hint(
                "set `[ssh] host` to a login host, or load SLURM's module in the shell's startup file there",
            );
            return vec![failed("slurm", &error)];
        }
        Err(error) => return vec![failed("slurm", &error)],
    };
    let (facts, nodes) = output.stdout.split_once("@nodes\n").unwrap_or((&output.stdout, ""));
    let version =
        facts.lines().find(|line| line.starts_with("slurm")).unwrap_or("an unknown version").to_owned();
    let values: BTreeMap<&str, &str> = facts.lines().filter_map(|line| line.split_once('=')).collect();
    let value = |key: &str| values.get(key).copied().unwrap_or("?").trim();
    let mut steps = Vec::new();
    if facts.contains("is DOWN") {
        let error =
            Error::new(ErrorKind::Unreachable, "its controller is down").hint("ask the cluster's operators");
        steps.push(failed("slurm", &error));
        return steps;
    }
    steps.push(step("slurm", Verdict::Pass, format!("{version}, cluster {}", value("ClusterName"))));
    steps.push(match value("AccountingStorageType") {
        "accounting_storage/none" | "(null)" => step(
            "accounting",
            Verdict::Note,
            format!(
                "none: what became of a job is known for {} after its end, and for ever from its own folder",
                value("MinJobAge")
            ),
        ),
        kind => step("accounting", Verdict::Pass, kind),
    });
    let limits = format!(
        "MaxArraySize {}, MaxJobCount {}, KillWait {}",
        value("MaxArraySize"),
        value("MaxJobCount"),
        value("KillWait")
    );
    steps.push(step("limits", Verdict::Pass, limits));
    for line in nodes.lines() {
        let fields: Vec<&str> = line.split('|').collect();
        if let [partition, state, time, count, cpus, memory, gres] = fields[..] {
            let text = format!(
                "{partition} {state}: {count} nodes, {cpus} CPUs, {memory} MB, {gres}, at most {time}"
            );
            steps.push(step("partition", Verdict::Pass, text));
        }
    }
    steps
}

/// Lets a compute node start the worker, by a job with the resources that every job asks for.
async fn node(setup: &Setup, settings: &Settings) -> Step {
    let options: Vec<String> = Extras::of(&settings.profile).slurm.options;
    let script = r#"
worker=$1; shift
folder=$(dirname "$worker")
timeout 100 sbatch --wait --parsable --time=1 --job-name=qlaunch-check --output="$folder/check.log" "$@" --wrap "hostname; $worker --version" >/dev/null
code=$?
cat "$folder/check.log" 2>/dev/null; rm -f "$folder/check.log"
exit $code
"#;
    let worker = setup.worker.display().to_string();
    let mut arguments = vec![worker.as_str()];
    let options: Vec<&str> =
        options.iter().map(String::as_str).filter(|option| !option.starts_with("--time")).collect();
    arguments.extend(options);
    match setup.site.host.shell_within(NODE + Duration::from_secs(30), script, &arguments).await {
        Ok(output) if output.code == Some(0) => {
            let words: Vec<&str> = output.stdout.split_whitespace().collect();
            step("compute node", Verdict::Pass, format!("the worker starts there: {}", words.join(" ")))
        }
        Ok(output) if output.code == Some(124) => {
            step("compute node", Verdict::Note, "no node was free in time; jobs will wait in the queue")
        }
        Ok(output) => {
            let why = format!("{} {}", output.stderr.trim(), output.stdout.trim());
            let error = Error::new(
                ErrorKind::Refused,
                format!("a job with this profile does not run: {}", why.trim()),
            )
            .hint(format!("mend the profile: `qlaunch cluster show {}`", settings.cluster));
            failed("compute node", &error)
        }
        Err(error) => failed("compute node", &error),
    }
}
