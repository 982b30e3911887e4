"""Reads an NF4 checkpoint with bitsandbytes on the CPU, and compares every weight with what qlaunch made of it.

Usage: compare.py SOURCE CHECKPOINT

1. bitsandbytes' `dequantize_4bit` of our tensors equals `quantile * magnitude`, computed here with torch alone, bit for bit.
2. Quantizing the source with bitsandbytes gives the same codes; magnitudes may differ by one step of their code book, or
   by 1e-4 of its scale, because bitsandbytes' kernel does not always find the nearest.
"""

import json
import sys
from pathlib import Path

import torch
from safetensors import safe_open

import bitsandbytes.functional as bnb
from bitsandbytes.functional import QuantState


def tensors(folder):
    """All tensors of a folder, by name."""
    found = {}
    for path in sorted(Path(folder).glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            found.update({name: file.get_tensor(name) for name in file.keys()})
    return found


def plain(codes, parts, shape, dtype):
    """The values that the tensors stand for, without bitsandbytes."""
    state = json.loads(bytes(parts["quant_state.bitsandbytes__nf4"].tolist()))
    absmax = parts["nested_quant_map"][parts["absmax"].long()]
    absmax = absmax * parts["nested_absmax"].repeat_interleave(256)[: len(absmax)]
    absmax = absmax + torch.tensor(float(state["nested_offset"]))
    flat = codes.reshape(-1)
    both = torch.stack([flat >> 4, flat & 15], dim=1).reshape(-1).long()
    count = shape[0] * shape[1]
    values = parts["quant_map"][both[:count]] * absmax.repeat_interleave(64)[:count]
    return values.to(dtype).reshape(shape)


def main():
    """Compares; prints one line."""
    source, ours = tensors(sys.argv[1]), tensors(sys.argv[2])
    config = json.loads((Path(sys.argv[2]) / "config.json").read_text())["quantization_config"]
    assert config["quant_method"] == "bitsandbytes" and config["bnb_4bit_quant_type"] == "nf4", config
    marker = ".weight.quant_state.bitsandbytes__nf4"
    owners = [name.removesuffix(marker) for name in ours if name.endswith(marker)]
    assert owners, "the checkpoint holds no NF4 weight"
    codes_same = codes_all = steps = 0
    for owner in owners:
        prefix = f"{owner}.weight."
        parts = {name.removeprefix(prefix): tensor for name, tensor in ours.items() if name.startswith(prefix)}
        weight = source[f"{owner}.weight"]
        codes = ours[f"{owner}.weight"]
        state = QuantState.from_dict({f"weight.{name}": tensor for name, tensor in parts.items()}, device="cpu")
        assert tuple(state.shape) == tuple(weight.shape) and state.dtype == weight.dtype, owner
        theirs = bnb.dequantize_4bit(codes, state)
        expected = plain(codes, parts, tuple(weight.shape), weight.dtype)
        assert torch.equal(theirs.view(torch.int16), expected.view(torch.int16)), f"{owner}: other values"
        made, made_state = bnb.quantize_4bit(weight, compress_statistics=True, quant_type="nf4", blocksize=64)
        codes_same += int((made.reshape(-1) == codes.reshape(-1)).sum())
        codes_all += codes.numel()
        assert torch.equal(made_state.state2.code, parts["nested_quant_map"]), "another dynamic map"
        assert torch.equal(made_state.code, parts["quant_map"]), "another set of quantiles"
        assert abs(made_state.offset.item() - state.offset.item()) <= 1e-6 * abs(state.offset.item())
        distance = (made_state.absmax.int() - parts["absmax"].int()).abs()
        # bitsandbytes' kernel finds codes by a table that is coarse around zero: there it misses the nearest by 1e-5.
        book, scales = parts["nested_quant_map"], parts["nested_absmax"].repeat_interleave(256)[: len(distance)]
        apart = ((book[made_state.absmax.long()] - book[parts["absmax"].long()]) * scales).abs()
        strange = (distance > 1) & (apart > 1e-4 * scales)
        assert not bool(strange.any()), f"{owner}: {int(strange.sum())} magnitudes differ by more than a step"
        steps += int((distance > 0).sum())
    assert codes_same == codes_all, f"{codes_all - codes_same} of {codes_all} bytes differ"
    print(f"bitsandbytes: {len(owners)} weights dequantize to the same bits; all {codes_all} bytes of codes are "
          f"bitsandbytes' own; {steps} magnitudes a step apart")


if __name__ == "__main__":
    main()
