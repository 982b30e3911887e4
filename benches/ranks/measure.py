"""Quantizes models with one rank and with two, one thread each, and compares wall time, memory and bytes.

usage: measure.py QLAUNCH MODEL:SAMPLES...    (prints JSON)
"""

import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time

import numpy as np

LENGTH = 512
BATCH = 8
RECIPE = "general/ptq/nvfp4_default-kv_fp8"


def tokens(path, samples, vocabulary):
    """Writes random token ids: what they are costs nothing and saves nothing."""
    ids = np.random.default_rng(1).integers(3, vocabulary, size=(samples, LENGTH), dtype=np.int32)
    np.save(path, ids)


def bound(config, samples):
    """Activations + three of the largest layers (or embedding or head) + 512 MiB, in bytes.

    Activations are the hidden states of all samples, and what one batch becomes inside a layer, in bf16.
    """
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    queries, keys = (config[name] * config["head_dim"] for name in ("num_attention_heads", "num_key_value_heads"))
    layer = 2 * (2 * hidden * queries + 2 * hidden * keys + 3 * hidden * inner)
    head = 2 * hidden * config["vocab_size"]
    activations = 2 * samples * LENGTH * hidden + 2 * BATCH * LENGTH * (3 * hidden + 2 * queries + 2 * keys + 3 * inner)
    return activations + 3 * max(layer, head) + (512 << 20), layer, head


def run(qlaunch, model, data, ranks):
    """Wall time, outcome and digest of the weights of one quantization."""
    with tempfile.TemporaryDirectory(dir=os.path.dirname(model)) as work:
        out = os.path.join(work, "out")
        command = [qlaunch, "quantize", model, "--recipe", RECIPE, "--calib", data, "--out", out, "--yes",
                   "--format", "json", "--threads", "1", "--ranks", str(ranks), "--batch-size", str(BATCH)]
        begun = time.monotonic()
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
        wall = time.monotonic() - begun
        digest = hashlib.sha256()
        for name in sorted(name for name in os.listdir(out) if name.endswith(".safetensors")):
            with open(os.path.join(out, name), "rb") as file:
                while piece := file.read(1 << 24):
                    digest.update(piece)
    return wall, json.loads(done.stdout), digest.hexdigest()


def measure(qlaunch, model, samples):
    with open(os.path.join(model, "config.json"), encoding="utf-8") as file:
        config = json.load(file)
    limit, layer, head = bound(config, samples)
    with tempfile.TemporaryDirectory() as work:
        data = os.path.join(work, "tokens.npy")
        tokens(data, samples, config["vocab_size"])
        load = os.getloadavg()[0]
        one, alone, digest = run(qlaunch, model, data, 1)
        two, shared, other = run(qlaunch, model, data, 2)
    if digest != other:
        sys.exit("two ranks made other bytes than one")
    share = (config["num_hidden_layers"] * layer + 2 * head) // 2
    return {
        "model": os.path.basename(model), "layers": config["num_hidden_layers"], "samples": samples, "tokens": LENGTH,
        "load_before": round(load, 2), "seconds_1_rank": round(one, 1), "seconds_2_ranks": round(two, 1),
        "ratio": round(two / one, 3), "target_ratio": 0.6,
        "cpu_seconds_1_rank": round(alone["cpu_seconds"], 1), "cpu_seconds_2_ranks": round(shared["cpu_seconds"], 1),
        "peak_bytes": {"1 rank": alone["peak_memory"], **{f"rank {rank['rank']} of 2": rank["peak_memory"] for rank in shared["ranks"]}},
        "bound_bytes": limit, "share_bytes": share, "share_over_bound": round(share / limit, 2),
        "within_bound": max(rank["peak_memory"] for rank in shared["ranks"]) <= limit,
    }


def main():
    qlaunch, *wanted = sys.argv[1:]
    wanted = [entry.rsplit(":", 1) for entry in wanted]
    results = [measure(qlaunch, model, int(samples)) for model, samples in wanted]
    print(json.dumps({"bench": "ranks", "command": "benches/ranks/run.sh", "cpus": os.cpu_count(), "results": results}, indent=2))


main()
