//! Steps of `qlaunch cluster check` for hosts without a scheduler: what each has, and whether the worker starts there.

use qlaunch_shared::{Error, ErrorKind};

use super::cluster_step::{Step, Verdict, failed, step};
use crate::session::Setup;
use crate::transport::Transport;

/// Prints CPUs, GPUs and processes of qlaunch of this user, then what the worker `$1` says of itself.
const FACTS: &str = r#"
jobs=0
for file in $(grep -lza '^QLAUNCH_ATTEMPT=' /proc/[0-9]*/environ 2>/dev/null); do [ ! -O "${file%/environ}" ] || jobs=$((jobs + 1)); done
echo "@facts $(nproc) $(nvidia-smi --query-gpu=index --format=csv,noheader 2>/dev/null | wc -l) $jobs"
command -v setsid flock >/dev/null || echo "@missing util-linux (setsid, flock)"
"$1" --version || exit 3
"#;

/// A step for each host.
pub async fn hosts(setup: &Setup) -> Vec<Step> {
    let mut steps = Vec::new();
    for host in setup.site.host.each() {
        let called = |text: &str| host.name().map_or(text.to_owned(), |name| format!("`{name}` {text}"));
        let output = match host.shell(FACTS, &[&setup.worker.display().to_string()]).await {
            Ok(output) => output,
            Err(error) => {
                steps.push(failed("host", &error));
                continue;
            }
        };
        let facts = output.stdout.lines().find_map(|line| line.strip_prefix("@facts ")).unwrap_or_default();
        let numbers: Vec<u32> = facts.split(' ').filter_map(|word| word.parse().ok()).collect();
        let [cpus, gpus, jobs] = numbers[..] else {
            let error = Error::new(ErrorKind::Refused, called("does not say what it has"));
            steps.push(failed("host", &error));
            continue;
        };
        if output.code != Some(0) {
            let why = output.stderr.lines().last().unwrap_or("no reason given").trim();
            let error = Error::new(ErrorKind::Refused, called(&format!("does not start the worker: {why}")));
            steps.push(failed(
                "host",
                &error.hint("hosts of one cluster are alike: make another cluster of it"),
            ));
            continue;
        }
        if let Some(missing) = output.stdout.lines().find_map(|line| line.strip_prefix("@missing ")) {
            let error = Error::new(ErrorKind::Refused, called(&format!("lacks {missing}")));
            steps.push(failed("host", &error.hint("install it there")));
            continue;
        }
        let wanted = setup.extras.process.gpus;
        if wanted > gpus {
            let message = called(&format!("has {gpus} GPUs that nvidia-smi finds, and a job wants {wanted}"));
            let hint = "install NVIDIA's driver there, or lower `process.gpus`";
            steps.push(failed("host", &Error::new(ErrorKind::Refused, message).hint(hint)));
            continue;
        }
        let busy = if jobs > 0 { ", jobs of qlaunch run there" } else { "" };
        let text = called(&format!("has {cpus} CPUs, {gpus} GPUs, and starts the worker{busy}"));
        steps.push(step("host", Verdict::Pass, text));
    }
    steps
}
