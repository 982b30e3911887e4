#!/usr/bin/env python3
"""Damages an NVFP4 checkpoint in ways that engines do not notice by themselves: mutants.py CHECKPOINT OUT.

Prints one folder a line. Every one of them must be refused by `vllm_check.py`, or the check proves nothing.
"""

import os
import shutil
import sys

import torch
from safetensors.torch import load_file, save_file

SHARD = "model.layers.1.self_attn.k_proj"


def missing_shard_scale(tensors):
    """One of three fused shards has no block scales: vLLM leaves that part of the parameter uninitialised."""
    del tensors[f"{SHARD}.weight_scale"]


def unshared_global_scale(tensors):
    """One of three fused shards has another global scale: vLLM uses the largest for all."""
    tensors[f"{SHARD}.weight_scale_2"] = tensors[f"{SHARD}.weight_scale_2"] * 2


def scale_bits_as_integers(tensors):
    """Block scales stored as U8: vLLM converts 0x38 to 56.0, not to 1.0."""
    tensors[f"{SHARD}.weight_scale"] = tensors[f"{SHARD}.weight_scale"].view(torch.uint8)


def infinite_input_scale(tensors):
    """A scale that is no number a kernel can use."""
    tensors[f"{SHARD}.input_scale"] = torch.full_like(tensors[f"{SHARD}.input_scale"], float("inf"))


def swapped_nibbles(tensors):
    """Loads perfectly; only a run shows it."""
    for name, tensor in tensors.items():
        if tensor.dtype == torch.uint8 and name.endswith(".weight"):
            tensors[name] = (tensor << 4) | (tensor >> 4)


def taken_out(folder):
    """All tensors of a checkpoint, whose files are removed: it may have one for each layer."""
    tensors = {}
    for name in sorted(os.listdir(folder)):
        if name.endswith(".safetensors"):
            tensors |= load_file(os.path.join(folder, name))
        if name.endswith((".safetensors", ".safetensors.index.json")):
            os.remove(os.path.join(folder, name))
    return tensors


def main():
    checkpoint, out = sys.argv[1:]
    for damage in (missing_shard_scale, unshared_global_scale, scale_bits_as_integers, infinite_input_scale,
                   swapped_nibbles):
        folder = os.path.join(out, damage.__name__)
        shutil.copytree(checkpoint, folder)
        tensors = taken_out(folder)
        damage(tensors)
        save_file(tensors, os.path.join(folder, "model.safetensors"), metadata={"format": "pt"})
        print(folder)


if __name__ == "__main__":
    main()
