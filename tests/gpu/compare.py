"""Compares two checkpoints, or puts figures of a GPU together; Python's own library is enough.

usage: compare.py close CPU GPU       weights and their scales are equal, scales of activations within 2%
       compare.py equal ONE TWO       every byte of every tensor is equal
       compare.py results MEASURED BESIDE FAILED
"""

import json
import os
import struct
import sys

# Sums of products run in another order, and every layer rounds to bf16.
TOLERANCE = 0.02
LEARNT = ("input_scale", "k_scale", "v_scale")


def tensors(folder):
    """Every tensor's bytes, by name."""
    found = {}
    for name in sorted(os.listdir(folder)):
        if not name.endswith(".safetensors"):
            continue
        with open(os.path.join(folder, name), "rb") as file:
            header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
            rest = file.read()
        for tensor, about in header.items():
            if tensor != "__metadata__":
                begin, end = about["data_offsets"]
                found[tensor] = rest[begin:end]
    return found


def scalar(data):
    """A scale in f32 or bf16."""
    return struct.unpack("<f", data if len(data) == 4 else b"\0\0" + data)[0]


def compare(how, one, two):
    left, right = tensors(one), tensors(two)
    if not left or left.keys() != right.keys():
        sys.exit(f"error: {one} and {two} have other tensors: {sorted(left.keys() ^ right.keys())[:5]}")
    for name, data in left.items():
        if data == right[name]:
            continue
        if how == "close" and name.endswith(LEARNT) and abs(scalar(data) - scalar(right[name])) <= TOLERANCE * scalar(data):
            continue
        sys.exit(f"error: {name} differs between {one} and {two}")
    print(f"{len(left)} tensors are {how}")


def results(measured, beside, failed):
    read = lambda path: json.load(open(path, encoding="utf-8")) if os.path.exists(path) and os.path.getsize(path) else None
    ours, theirs = read(measured), read(beside)
    report = {"bench": "gpu", "command": "tests/gpu/run.sh", "failed": failed.split("\n") if failed else [], "ours": ours,
              "transformers": theirs}
    if ours:
        codecs = ours["codecs"]
        slow = {name: kernel["of_copy"] for name, kernel in codecs["kernels"].items() if kernel["of_copy"] < codecs["target_of_copy"]}
        report["codecs_below_target"] = slow
    if ours and theirs:
        report["times_transformers"] = round(ours["forward"]["tokens_per_second"] / theirs["tokens_per_second"], 3)
        report["target_times_transformers"] = 1.0
    print(json.dumps(report, indent=2))


def main():
    if sys.argv[1] == "results":
        results(*sys.argv[2:])
    else:
        compare(*sys.argv[1:])


main()
