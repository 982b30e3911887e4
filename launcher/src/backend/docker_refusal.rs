//! What Docker and podman complain of, in words with a remedy: some refusals are final, some say nothing about the job.

use qlaunch_shared::{Error, ErrorKind};

/// Texts after which the container may or may not be there.
const UNKNOWN: [&str; 8] = [
    "Cannot connect to the Docker daemon",
    "error during connect",
    "unexpected EOF",
    "connection reset",
    "connection refused",
    "context deadline exceeded",
    "is already in use by container",
    "unable to connect to Podman",
];

/// Texts of final refusals, what they mean, and what to do there; `{}` stands for the image.
const FINAL: [(&str, &str, &str); 18] = [
    (
        "permission denied while trying to connect",
        "you may not use the Docker daemon",
        "`sudo usermod -aG docker $USER` and log in again, or set `docker.address` to a daemon of your own",
    ),
    ("No such image", "the image is not there", "`docker pull {}`; images are never pulled silently"),
    ("image not known", "the image is not there", "`podman pull {}`; images are never pulled silently"),
    (
        "could not select device driver",
        "Docker knows no NVIDIA GPUs",
        "install `nvidia-container-toolkit`, then `sudo nvidia-ctk runtime configure --runtime=docker && sudo systemctl restart docker`; without GPUs set `docker.gpus = 0`",
    ),
    (
        "unresolvable CDI devices",
        "podman knows no NVIDIA GPUs",
        "install `nvidia-container-toolkit`, then `sudo nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml`; without GPUs set `docker.gpus = 0`",
    ),
    (
        "nvidia.com/gpu",
        "podman knows no NVIDIA GPUs",
        "install `nvidia-container-toolkit`, then `sudo nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml`; without GPUs set `docker.gpus = 0`",
    ),
    (
        "nvidia-container-cli",
        "the NVIDIA runtime cannot reach a GPU",
        "`nvidia-smi` there tells whether its driver works",
    ),
    ("Unknown runtime specified", "the daemon does not know the runtime", "mend `docker.options`"),
    ("Range of CPUs", "the host has fewer CPUs", "set `docker.cpus` to less; `nproc` there tells how many"),
    ("Minimum memory limit", "no program fits into so little memory", "set `docker.memory` to more"),
    (
        "invalid argument",
        "a setting is not spelt as the program wants it",
        "mend `docker.memory` or `docker.options`",
    ),
    ("bind source path does not exist", "something that the job reads is not there", "check the path"),
    ("no such file or directory", "the image cannot start the worker", "use an image with glibc, or none"),
    (
        "unknown flag",
        "`docker.options` has something that this program does not know",
        "mend `docker.options`",
    ),
    (
        "unknown shorthand flag",
        "`docker.options` has something that this program does not know",
        "mend `docker.options`",
    ),
    (
        "network",
        "there is no such network",
        "set `docker.network = \"none\"`; `docker network ls` there lists them",
    ),
    (
        "no space left on device",
        "the disk of the images and containers is full",
        "`docker system df` there tells what takes the space, `docker system prune` frees some",
    ),
    (
        "not found",
        "containers cannot be made there",
        "install Docker or podman, or set `docker.runtime` to the one that is there",
    ),
];

/// Reads what Docker or podman printed to stderr when it failed. Kind `Unreachable` means that nobody knows.
pub fn refusal(stderr: &str, image: &str, cluster: &str) -> Error {
    let quoted = quote(stderr);
    if UNKNOWN.iter().any(|text| stderr.contains(text)) {
        return Error::new(ErrorKind::Unreachable, format!("the container daemon does not answer: {quoted}"))
            .hint(format!(
                "start it: `sudo systemctl start docker`; look at it: `qlaunch cluster check {cluster}`"
            ));
    }
    if let Some((_, meaning, remedy)) = FINAL.iter().find(|(text, ..)| stderr.contains(text)) {
        return Error::new(ErrorKind::Refused, format!("{meaning}: {quoted}"))
            .hint(format!("{}; the profile: `qlaunch cluster show {cluster}`", remedy.replace("{}", image)));
    }
    Error::new(ErrorKind::Refused, format!("the container was refused: {quoted}"))
        .hint(format!("try the script by hand; the profile: `qlaunch cluster show {cluster}`"))
}

/// What matters of it, on one line.
fn quote(stderr: &str) -> String {
    let noise = ["Run 'docker", "See 'docker", "See 'podman", "Usage:", "Error: failed to start containers"];
    let lines = stderr
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !noise.iter().any(|noise| line.starts_with(noise)));
    let lines: Vec<&str> = lines
        .map(|line| line.trim_start_matches("docker: ").trim_start_matches("Error response from daemon: "))
        .collect();
    match lines.is_empty() {
        true => "no reason given".to_owned(),
        false => lines[lines.len().saturating_sub(2)..].join("; "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_verbatim_refusal_says_what_to_do() {
        // Of Docker 20.10.24 and podman 4.3.1.
        let cases = [
            ("Error response from daemon: No such image: nosuch:1", "not there", "docker pull nosuch:1"),
            (
                "Error response from daemon: could not select device driver \"\" with capabilities: [[gpu]]\nError: failed to start containers: x",
                "no NVIDIA GPUs",
                "nvidia-ctk",
            ),
            (
                "Error response from daemon: Range of CPUs is from 0.01 to 2.00, as there are only 2 CPUs available",
                "fewer CPUs",
                "docker.cpus",
            ),
            ("Error response from daemon: Minimum memory limit allowed is 6MB", "so little", "docker.memory"),
            (
                "unknown flag: --bogus\n\nUsage:  docker create [OPTIONS] IMAGE",
                "does not know",
                "docker.options",
            ),
            ("Error: nosuch:1: image not known", "not there", "podman pull nosuch:1"),
            ("sh: 1: docker: not found", "cannot be made", "docker.runtime"),
        ];
        for (stderr, meaning, remedy) in cases {
            let error = refusal(stderr, "nosuch:1", "box");
            assert_eq!(error.exit_code(), 22, "{error}");
            assert!(error.message.contains(meaning), "{meaning}: {error}");
            assert!(error.hint.as_ref().unwrap().contains(remedy), "{remedy}: {error}");
            assert!(!error.message.contains("Usage") && !error.message.contains("from daemon:"), "{error}");
        }
    }

    #[test]
    fn a_daemon_that_is_away_has_neither_taken_nor_refused_the_container() {
        let text = "Cannot connect to the Docker daemon at unix:///x.sock. Is the docker daemon running?";
        assert_eq!(refusal(text, "", "box").exit_code(), 20);
        let text = "Error response from daemon: Conflict. The container name \"/a\" is already in use by container \"b\".";
        assert_eq!(refusal(text, "", "box").exit_code(), 20);
    }
}
