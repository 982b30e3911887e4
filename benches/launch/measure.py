"""Times launchers on one cluster, and counts how often each asks the scheduler: every call of SLURM's programs is noted on its way."""

import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
JOBS = 100
BOUNDS = {"start_ms": 5, "render_us": 50, "calls_per_tick": 2, "resume_ms": 200}


def start_up(command: list[str], rounds: int) -> float:
    """Median milliseconds of a program's whole life."""
    times = []
    for _ in range(rounds):
        begun = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        times.append((time.perf_counter() - begun) * 1e3)
    return statistics.median(times)


def watched(work: Path) -> dict[str, str]:
    """An environment in which every call of the scheduler leaves a line with its time."""
    folder = work / "watched"
    folder.mkdir(exist_ok=True)
    for name in ("sbatch", "squeue", "sacct", "scontrol", "scancel", "sinfo", "srun"):
        real = shutil.which(name)
        program = folder / name
        program.write_text(f'#!/bin/sh\n[ -n "$SLURM_JOB_ID" ] || echo "$(date +%s.%N) {name}" >> {work}/calls\nexec {real} "$@"\n')
        program.chmod(0o755)
    return {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}


def followed(name: str, command: list[str], work: Path, env: dict[str, str]) -> dict[str, object]:
    """Hands over all jobs and waits for their end."""
    calls = work / "calls"
    calls.unlink(missing_ok=True)
    begun = time.time()
    done = subprocess.run(command, env=env, cwd=work, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    seconds = time.time() - begun
    (work / f"{name}.log").write_text(done.stdout + done.stderr)
    if done.returncode != 0:
        sys.exit(f"{name} ended with {done.returncode}:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
    lines = [line.split() for line in calls.read_text().splitlines()]
    times = sorted(float(at) for at, _ in lines)
    by_name: dict[str, int] = {}
    for _, program in lines:
        by_name[program] = by_name.get(program, 0) + 1
    submitted = max(float(at) for at, program in lines if program == "sbatch") - begun
    following = max(seconds - submitted, 1e-9)
    later = sum(1 for at in times if at - begun > submitted)
    return {
        "seconds": round(seconds, 2),
        "last_sbatch_after_seconds": round(submitted, 2),
        "calls": by_name,
        "calls_per_minute_while_following": round(later * 60 / following, 1),
    }


def sweep(work: Path) -> Path:
    """As many jobs as the others have: a baseline and candidates, whose worker only pretends to work for a second."""
    folder = work / "sweep"
    (folder / "clusters").mkdir(parents=True)
    model = ROOT / "examples/models/tiny-llama"
    data = ROOT / "examples/data/heldout.txt"
    text = f"version: 1\nname: bench\nmodel: {model}\nobjective: memory\nacceptance: {{ratio: {{max: 1}}}}\n"
    text += f"calibration: {{data: {data}}}\nevaluate: {{data: {data}, samples: 1}}\nbaselines: [bf16]\ncandidates:\n"
    for index in range(JOBS - 1):
        text += f"  - {{name: c{index:02}, recipe: general/ptq/fp8_default-kv_fp8}}\n"
    (folder / "sweep.yaml").write_text(text)
    profile = f'kind = "slurm"\nworker_build = "host"\nworkspace = "{folder}/qlaunch"\n[slurm]\ntime = "00:05:00"\naccount = "bench"\n'
    (folder / "clusters/bench.toml").write_text(profile)
    worker = (ROOT / "launcher/tests/fake/worker.sh").read_text().replace("say '\"event\":\"phase\"", "sleep 1; say '\"event\":\"phase\"", 1)
    (folder / "worker.sh").write_text(worker)
    (folder / "worker.sh").chmod(0o755)
    (folder / "fake").mkdir()
    return folder


def main() -> None:
    program, work, target = Path(sys.argv[1]).resolve(), Path(sys.argv[2]), Path(sys.argv[3])
    python = sys.executable
    own = json.loads((work / "own.json").read_text())
    others = {name: [python, str(HERE / f"with_{name}.py")] for name in ("nemo_run", "submitit")}
    start = {"qlaunch": start_up([str(program), "--help"], 50)}
    start |= {name: start_up([python, "-c", f"import {name}"], 5) for name in others}
    render = {"qlaunch": own["render_us_per_script"], "qlaunch_array_task": own["render_us_per_array_task"]}
    for name, command in others.items():
        out = subprocess.run([*command, "render", str(work)], check=True, capture_output=True, text=True)
        render[name] = float(out.stdout.splitlines()[-1])
    env = watched(work)
    folder = sweep(work)
    submit = [str(program), "submit", "--cluster", "bench", "--yes", "--format", "json", "sweep.yaml"]
    mine = {**env, "QLAUNCH_WORKER": str(folder / "worker.sh"), "FAKE": str(folder / "fake"), "HOME": str(folder)}
    jobs = {"qlaunch": followed("qlaunch", ["sh", "-c", 'cd "$1" && shift && exec "$@"', "sh", str(folder), *submit], work, mine)}
    for name, command in others.items():
        jobs[name] = followed(name, [*command, "jobs", str(work)], work, env)
    ratio = lambda figures, key=None: {  # noqa: E731
        name: round((figures[name][key] if key else figures[name]) / (figures["qlaunch"][key] if key else figures["qlaunch"]), 1)
        for name in others
    }
    result = {
        "bench": f"start-up, scripts of 1000 candidates, {JOBS} jobs of a second on a real SLURM of 2 nodes of 50 slots with accounts",
        "processors": os.cpu_count(),
        "load_at_the_end": os.getloadavg(),
        "start_ms": start,
        "render_us_per_candidate": render,
        "resume_ms": own["resume_ms"],
        "resume": own["resume"],
        "jobs": jobs,
        "times_of_qlaunch": {
            "start": ratio(start),
            "render": ratio(render),
            "jobs_seconds": ratio(jobs, "seconds"),
            "calls_per_minute": ratio(jobs, "calls_per_minute_while_following"),
        },
        "bounds": BOUNDS,
        "within_bounds": start["qlaunch"] <= BOUNDS["start_ms"] and render["qlaunch"] <= BOUNDS["render_us"] and own["resume_ms"] <= BOUNDS["resume_ms"],
    }
    target.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
