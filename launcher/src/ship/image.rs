//! The image that the worker runs in: one that a person names, or one made on the spot of the libraries that it needs.
//!
//! The worker is linked against glibc. An image of exactly the libraries that the host's own loader resolves (`ldd`) is a few
//! megabytes, needs no registry, gives the host's arithmetic to the bit, and does not change under a running sweep when
//! the host is updated. Mounting the host's `/lib*` instead would show the container everything that is installed there,
//! and breaks where those folders are links.

use std::time::Duration;

use qlaunch_shared::{Error, ErrorKind, Result};

use crate::plan::DockerExtras;
use crate::transport::Transport;

/// Longest that the making of an image may take.
const DEADLINE: Duration = Duration::from_secs(300);

/// What podman says of limits that it does not keep.
const UNLIMITED: &str = "Resource limits are not supported and ignored";

/// Makes the image `$3` of what the worker `$4` needs if `$5` is `own`, unless it is there; then lets the worker say its
/// version in a container with the options `$6…` that every job has. Ends with 91 where the daemon does not answer.
const PREPARE: &str = r#"
run=$1 image=$3 worker=$4 own=$5
[ -z "$2" ] || export DOCKER_HOST="$2" CONTAINER_HOST="$2"
shift 5
"$run" version >/dev/null || exit 91
if [ "$own" = own ] && ! "$run" image inspect "$image" >/dev/null 2>&1; then
  tree=$(mktemp -d) || exit 1
  trap 'rm -rf "$tree"' EXIT
  chmod 755 "$tree"; mkdir -p "$tree/tmp" "$tree/etc"
  libraries=$(ldd "$worker" 2>/dev/null | awk '{ for (i = 1; i <= NF; i++) if ($i ~ /^\//) print $i }')
  for library in $libraries; do
    mkdir -p "$tree${library%/*}" && cp -L -- "$library" "$tree$library" || exit 1
  done
  path=$(for library in $libraries; do printf '%s\n' "${library%/*}"; done | sort -u | paste -s -d :)
  tar -C "$tree" -c . | "$run" import -c "ENV LD_LIBRARY_PATH=$path" - "$image" >/dev/null || exit 1
fi
# Tells a missing image, a worker that does not fit it, and options that the daemon does not take, before any job does.
"$run" run --rm --pull never --read-only --tmpfs /tmp --user "$(id -u):$(id -g)" --mount "type=bind,\"src=$worker\",\"dst=$worker\",readonly" \
  "$@" --entrypoint "$worker" "$image" --version
"#;

/// Makes sure that the worker runs in its image on the host. `explain` puts a refusal in words.
///
/// # Errors
/// A daemon that does not answer, an image that is not there, a worker that does not run in it, options that are refused.
pub async fn prepare_image(
    host: &impl Transport,
    settings: &DockerExtras,
    worker: &str,
    explain: impl Fn(&str) -> Error,
) -> Result<()> {
    let (run, address) = (settings.runtime.name(), settings.address.as_deref().unwrap_or_default());
    let own = if settings.own { "own" } else { "named" };
    let mut arguments = vec![run, address, &settings.image, worker, own];
    let gpus = settings.any_gpus();
    arguments.extend(settings.options.iter().chain(&gpus).map(String::as_str));
    let output = host.shell_within(DEADLINE, PREPARE, &arguments).await?;
    match output.code {
        // Podman without root on old cgroups: a limit that is not kept would be found when the host is out of memory.
        Some(0) if output.stderr.contains(UNLIMITED) => {
            let message = "podman cannot keep limits on memory and CPUs here: it runs without root on cgroups of version 1";
            Err(Error::new(ErrorKind::Refused, message)
                .hint("take `docker.memory` and `docker.cpus` away, run as root, or boot the host with cgroups of version 2"))
        }
        Some(0) => Ok(()),
        Some(91) => {
            let mut error = explain(&output.stderr);
            if error.kind == ErrorKind::Refused && !output.stderr.contains("permission denied") {
                error.kind = if output.stderr.contains("not found") {
                    ErrorKind::Refused
                } else {
                    ErrorKind::Unreachable
                };
            }
            Err(error)
        }
        _ if output.stderr.contains("GLIBC_") || output.stderr.contains("shared librar") => {
            let why = output.stderr.lines().last().unwrap_or_default().trim().to_owned();
            Err(Error::new(ErrorKind::Refused, format!("the worker does not run in `{}`: {why}", settings.image))
                .hint("use an image with glibc as new as the worker's, or take `docker.image` away: one is made that fits"))
        }
        _ => Err(explain(&output.stderr)),
    }
}
