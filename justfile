# The lanes; .ci/run runs the same commands. `just` without a name lists them.

default:
    @just --list

# Formatting, lints, house rules: a minute.
check:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets --locked -- -D warnings
    cargo test -q --locked -p qlaunch-tests --lib --test house

# Every test of the workspace, through the real programs.
test:
    cargo build --workspace --locked
    cargo test --workspace --locked

# The main job as a person sees it, then vLLM and llama.cpp on what we export.
real *FLAGS:
    cargo build --workspace --locked
    target/debug/qlaunch submit --cluster local --yes examples/sweeps/tiny-llama.yaml
    tests/serving/run.sh {{FLAGS}}

# Sixty seconds of fuzzing for each target, or as many as asked for.
fuzz *SECONDS:
    tests/fuzz/run.sh {{SECONDS}}

# The recipe folder of ModelOpt 0.47, from PyPI, against ModelOpt's own answers.
modelopt:
    cargo build --workspace --locked
    tests/modelopt/run.sh

# Our NF4 checkpoints in the bitsandbytes package, on the CPU.
bitsandbytes:
    cargo build --workspace --locked
    tests/bitsandbytes/run.sh

# A real SLURM behind a real jump host, on this machine.
cluster *FLAGS:
    cargo build --workspace --locked
    tests/cluster/run.sh {{FLAGS}}

# A real Docker daemon, podman, and an sshd, on this machine.
docker *FLAGS:
    cargo build --workspace --locked
    tests/docker/run.sh {{FLAGS}}

# Speed, against torch and memcpy in the same run.
bench:
    for bench in benches/*/run.sh; do $bench; done

# Rustdoc without a warning.
docs:
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked

# Licences, advisories, sources of the dependencies.
deny:
    cargo deny check licenses bans sources

# Everything, on a fresh machine too.
ci *FLAGS:
    .ci/run {{FLAGS}}
