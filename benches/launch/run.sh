#!/usr/bin/env bash
# What a launcher costs: start-up, scripts of 1000 candidates, a run of 10,000 taken up again, and 100 jobs handed to a real SLURM
# (with accounts, which the others need) and followed to their end; beside NeMo-Run and submitit from PyPI, in the same minutes on
# the same machine. Results: benches/results/launch.json. Needs root, as the cluster lane does.
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
cd "$here/../.."
venv=$("$here/install.sh")
cargo build -q --release --locked -p qlaunch --bins
work=$(mktemp -d /var/tmp/qlaunch-launch.XXXXXX)
chmod 755 "$work"
cargo bench -q --locked -p qlaunch --bench launch -- "$work/own.json"
tests/cluster/install.sh --accounting
trap 'tests/cluster/down.sh "$work/cluster" --wipe; rm -rf "$work"' EXIT
ACCOUNTING=1 PORT=$((${PORT:-16817} + 200)) NODES=2 CPUS=50 tests/cluster/up.sh "$work/cluster"
. "$work/cluster/env.sh"
# The account that jobs of this user are of.
sacctmgr -i add account bench Description=bench Organization=qlaunch >/dev/null
sacctmgr -i add user "$(id -un)" Account=bench DefaultAccount=bench >/dev/null
"$venv/bin/python" "$here/measure.py" target/release/qlaunch "$work" benches/results/launch.json
