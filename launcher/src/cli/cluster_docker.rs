//! Steps of `qlaunch cluster check` for Docker and podman: the daemon, what it would do to jobs, and a container.

use qlaunch_shared::{Error, ErrorKind};

use super::cluster_step::{Step, Verdict, failed, step};
use crate::backend::docker_refusal;
use crate::config::ContainerRuntime;
use crate::session::Setup;
use crate::transport::Transport;

/// Facts of the daemon, one a line.
const FACTS: &str = r#"
[ -z "$2" ] || export DOCKER_HOST="$2" CONTAINER_HOST="$2"
case $1 in
podman) podman info -f 'podman {{.Version.Version}}, storage {{.Store.GraphDriverName}}|{{.Host.CPUs}}|{{.Host.MemTotal}}||rootless={{.Host.Security.Rootless}}' ;;
*) docker info -f 'Docker {{.ServerVersion}}, storage {{.Driver}}|{{.NCPU}}|{{.MemTotal}}|live={{.LiveRestoreEnabled}}|{{.SecurityOptions}}' ;;
esac
nvidia-smi --query-gpu=name --format=csv,noheader 2>/dev/null | sort | uniq -c | sed 's/^/@gpu /'
"#;

/// What the daemon is, and whether the worker runs in a container as jobs would.
pub async fn docker(setup: &Setup) -> Vec<Step> {
    let settings = &setup.extras.docker;
    let arguments = [settings.runtime.name(), settings.address.as_deref().unwrap_or_default()];
    let output = match setup.site.host.shell(FACTS, &arguments).await {
        Ok(output) => output,
        Err(error) => return vec![failed("containers", &error)],
    };
    let first = output.stdout.lines().next().unwrap_or_default();
    let fields: Vec<&str> = first.split('|').collect();
    // A client without its daemon prints empty fields.
    let [version, cpus, memory, live, security] = fields[..] else {
        return vec![failed("containers", &docker_refusal(&output.stderr, &settings.image, &setup.cluster))];
    };
    if cpus.is_empty() || cpus == "0" {
        return vec![failed("containers", &docker_refusal(&output.stderr, &settings.image, &setup.cluster))];
    }
    let memory = crate::ui::bytes(memory.parse().unwrap_or(0));
    let rootless = if security.contains("rootless=true") || security.contains("name=rootless") {
        ", without root"
    } else {
        ""
    };
    let mut steps =
        vec![step("containers", Verdict::Pass, format!("{version}, {cpus} CPUs, {memory}{rootless}"))];
    if settings.runtime == ContainerRuntime::Docker && live != "live=true" {
        steps.push(
            step("restarts", Verdict::Note, "containers end with their daemon, and jobs are tried again")
                .hinted("`\"live-restore\": true` in /etc/docker/daemon.json keeps them"),
        );
    }
    let gpus: Vec<&str> = output.stdout.lines().filter_map(|line| line.strip_prefix("@gpu ")).collect();
    match (settings.gpus, gpus.is_empty()) {
        (0, _) => {}
        (wanted, true) => steps.push(failed(
            "gpus",
            &Error::new(ErrorKind::Refused, format!("jobs ask for {wanted}, and `nvidia-smi` finds none"))
                .hint("install NVIDIA's driver there, or set `docker.gpus = 0`"),
        )),
        (_, false) => steps.push(step("gpus", Verdict::Pass, gpus.join(", "))),
    }
    let made = if settings.own { "made of what the worker needs" } else { "from the profile" };
    steps.push(step("image", Verdict::Pass, format!("{}, {made}; the worker starts in it", settings.image)));
    steps
}
