"""Measures a sweep of twelve with a store against twelve cold runs: measure.py QLAUNCH MODEL SAMPLES SINGLE, JSON to stdout.

SINGLE is a model of which one cold candidate is measured with a store and without, or empty.
"""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

RECIPES = [
    "general/ptq/fp8_default-kv_fp8",
    "general/ptq/fp8_default-kv_fp8_cast",
    "general/ptq/nvfp4_default-kv_fp8",
    "general/ptq/nvfp4_default-kv_fp8_cast",
    "general/ptq/nvfp4_mlp_only-kv_fp8",
    "general/ptq/nvfp4_mlp_only-kv_fp8_cast",
    "general/ptq/nvfp4_omlp_only-kv_fp8",
    "general/ptq/nvfp4_default-kv_nvfp4_cast",
    "general/ptq/nvfp4_weight_only-kv_fp16",
    "configs/ptq/presets/model/w4a8_nvfp4_fp8",
    "configs/ptq/presets/model/int8",
    "configs/ptq/presets/model/fp8",
]
# Evaluation is left out on both sides.
MAKING = {"load", "calibrate", "quantize", "audit"}


def cpu(outcome):
    """CPU-seconds that an attempt spent on making."""
    return sum(phase["cpu_seconds"] for phase in outcome["phases"] if phase["phase"] in MAKING)


def disk(folders):
    """Bytes of all files below some folders, hard links counted once."""
    seen = {}
    for folder in folders:
        for path in folder.rglob("*"):
            if path.is_file():
                found = path.stat()
                seen[found.st_dev, found.st_ino] = found.st_size
    return sum(seen.values())


def single(qlaunch, model, work):
    """CPU-seconds of one cold candidate without a store and with an empty one, the cheapest of three rounds in turn."""
    tokens = pathlib.Path(model) / "tokens.npy"
    rounds = {False: [], True: []}
    for turn in range(3):
        for has_store in (False, True):
            folder = work / f"single-{turn}-{has_store}"
            call = [qlaunch, "quantize", model, "--recipe", RECIPES[0], "--calib", tokens,
                    "--out", folder / "checkpoint", "--threads", "1", "--yes", "--format", "json"]
            call += ["--store", folder / "store"] if has_store else ["--no-digests"]
            done = subprocess.run(call, stdout=subprocess.PIPE, check=True, env={**os.environ, "HOME": str(work)})
            rounds[has_store].append(cpu(json.loads(done.stdout)))
            shutil.rmtree(folder)
    without, with_store = min(rounds[False]), min(rounds[True])
    return {"model": pathlib.Path(model).name, "cpu_seconds": {"without": rounds[False], "with_empty_store": rounds[True]},
            "store_over_none": with_store / without}


def main(qlaunch, model, samples, one):
    """One comparison."""
    root = pathlib.Path.cwd()
    worker = pathlib.Path(qlaunch).with_name("qlaunch-worker")
    with tempfile.TemporaryDirectory() as work:
        work = pathlib.Path(work)
        data = str(root / "examples/data/calib_tokens.npy")
        sweep = {
            "version": 1, "name": "twelve", "model": str((root / model).resolve()), "objective": "memory",
            "acceptance": {"perplexity": {"within": "90%", "of": "bf16"}},
            "calibration": {"data": data, "samples": int(samples), "batch_size": 8},
            "evaluate": {"data": str(root / "examples/data/eval_tokens.npy"), "samples": 1, "seq_len": 16},
            "baselines": ["bf16"], "candidates": RECIPES,
        }
        (work / "sweep.yaml").write_text(json.dumps(sweep))
        call = [qlaunch, "submit", "--cluster", "local", "--yes", "--format", "json", "sweep.yaml"]
        done = subprocess.run(call, cwd=work, env={**os.environ, "HOME": str(work)}, stdout=subprocess.PIPE)
        run = work / "runs" / json.loads(done.stdout)["run"]
        jobs = [path.parent for path in run.glob("*/spec.json")]
        warm = {job.name: cpu(json.loads((job / "attempts/1/outcome.json").read_text())) for job in jobs}
        checkpoints = [job / "checkpoint" for job in jobs if (job / "checkpoint").exists()]
        distinct = disk(path for path in (work / "runs/.store/objects").glob("*/*")
                        if json.loads((path / "manifest.json").read_text())["origin"]["step"] == "layer")
        cold, with_store = {}, {}
        for job in jobs:
            spec = json.loads((job / "spec.json").read_text())
            if "quantize" not in spec:
                continue
            spec["evaluate"] = None
            for sums, store in (cold, None), (with_store, str(work / "stores" / job.name)):
                attempt = work / "attempts" / f"{job.name}-{store is not None}"
                spec["store"] = store
                (work / "spec.json").write_text(json.dumps(spec))
                subprocess.run([worker, "run", "--spec", work / "spec.json", "--attempt", attempt], check=True)
                sums[job.name] = cpu(json.loads((attempt / "outcome.json").read_text()))
        result = {
            "model": model, "samples": int(samples), "candidates": len(cold), "cores": os.cpu_count(),
            "load_average": os.getloadavg()[0],
            "cpu_seconds": {"sweep": sum(warm.values()), "cold_runs": sum(cold.values()),
                            "cold_runs_with_empty_stores": sum(with_store.values())},
            "cold_runs_over_sweep": sum(cold.values()) / sum(warm.values()),
            "store_over_none": sum(with_store.values()) / sum(cold.values()),
            "bytes": {"checkpoints": disk(checkpoints), "distinct_pieces": distinct},
            "checkpoints_over_distinct_pieces": disk(checkpoints) / distinct,
        }
        if one:
            result["single_candidate"] = single(qlaunch, one, work)
        print(json.dumps(result, indent=2))


main(*sys.argv[1:])
