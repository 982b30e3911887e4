"""Takes the cheapest round of each engine and prints the comparison as JSON.

usage: compare.py LINES    (one JSON object per line, from worker/examples/layer.rs and torch_layer.py)
"""

import json
import os
import platform
import sys

TARGET = 1.0


def cpu_name():
    with open("/proc/cpuinfo") as lines:
        names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
        return next(names, platform.processor())


def best(rounds, dtype):
    """The cheapest layer and the fastest product of all rounds; they need not come from the same one."""
    layer = min((r[dtype] for r in rounds), key=lambda r: r["layer_cpu_s"])
    fastest = max(r[dtype]["gemm_gflop_per_cpu_s"] for r in rounds)
    return {**{key: round(layer[key], 4) for key in ("layer_cpu_s", "layer_wall_s")},
            "gemm_gflop_per_cpu_s": round(fastest, 1)}


def main():
    with open(sys.argv[1]) as lines:
        rounds = [json.loads(line) for line in lines]
    ours = [r for r in rounds if r["engine"] == "qlaunch"]
    torch = [r for r in rounds if r["engine"] == "torch"]
    report = {
        "what": "one Llama layer, [8, 512] tokens, hidden 2048, intermediate 5632, 32/4 heads, 2 threads; "
                "one 2048x2048x2048 product, 1 thread",
        "cpu": cpu_name(),
        "load_average": round(os.getloadavg()[0], 1),
        "path": ours[0]["path"],
        "torch": torch[0]["version"],
        "rounds": len(ours),
        "target_ratio": TARGET,
    }
    for dtype in ("f32", "bf16"):
        mine, theirs = best(ours, dtype), best(torch, dtype)
        ratio = mine["layer_cpu_s"] / theirs["layer_cpu_s"]
        report[dtype] = {"qlaunch": mine, "torch": theirs, "layer_cpu_ratio": round(ratio, 3), "met": ratio <= TARGET}
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
