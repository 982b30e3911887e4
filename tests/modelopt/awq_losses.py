"""Makes `losses.json`: the exponents that ModelOpt's `awq_lite` chooses, and what each exponent costs in f32.

Usage: awq_losses.py MODEL CALIB.npy NAME_OF_CONFIG OUT.json

The choices are those of the model in its own type. Their losses are noisy there: outputs, factors and means are rounded to
bf16, and a factor that falls on the other side of a rounding moves a loss by up to some per cent. So the losses are those of the
same search on the same weights in f32, where nothing is rounded but the weight to its format.

Needs from PyPI nvidia-modelopt==0.47.0, torch==2.15.0, transformers==5.14.1 and accelerate: 4 GB with all that they need. The
goldens took a quarter of an hour each on one thread.
"""

import copy
import json
import sys

import numpy
import torch
import modelopt.torch.kernels.quantization.gemm as kernels
import modelopt.torch.quantization as quantization
from modelopt.torch.quantization import tensor_quant
from transformers import AutoModelForCausalLM

BATCH = 8
BLOCK = 16


def round_to_e2m1(magnitudes):
    """The nearest of 0, 0.5, 1, 1.5, 2, 3, 4, 6; ties to the even code."""
    step = torch.where(magnitudes < 2, 0.5, torch.where(magnitudes < 4, 1.0, 2.0))
    return (torch.round(magnitudes / step) * step).clamp(max=6.0)


def nvfp4(values, amax, *_):
    """Rounds blocks of 16 to E2M1 under scales in E4M3. ModelOpt does this on CUDA alone; exported bytes agree with it."""
    scale_2 = amax.float() / (6 * 448)
    blocks = values.float().reshape(-1, BLOCK)
    largest = blocks.abs().amax(-1, keepdim=True)
    scale = (largest / (6 * scale_2)).clamp(max=448.0).to(torch.float8_e4m3fn).float() * scale_2
    scale = torch.where(scale >= 1e-5, scale, torch.ones_like(scale))
    rounded = torch.copysign(round_to_e2m1(blocks.abs() / scale) * scale, blocks)
    return rounded.reshape(values.shape).to(values.dtype)


def dynamic_block_quantize(values, block, amax, bits, exponent_bits, scale_bits, scale_exponent_bits):
    """Stands in for the CUDA kernel, for NVFP4 alone."""
    if (block, bits, exponent_bits, scale_bits, scale_exponent_bits) != (BLOCK, 4, 2, 8, 4):
        raise NotImplementedError("only NVFP4 in blocks of 16 is stood in for")
    return nvfp4(values, amax)


def search(folder, dtype, config, samples):
    """Runs the search on the model in a type: by module, the exponent and the loss of each."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()
    config = copy.deepcopy(getattr(quantization, config))
    algorithm = config["algorithm"]
    algorithm = {"method": algorithm} if isinstance(algorithm, str) else dict(algorithm)
    config["algorithm"] = {**algorithm, "debug": True}

    def calibrate(model):
        with torch.no_grad():
            for batch in samples.split(BATCH):
                model(input_ids=batch, use_cache=False)

    model = quantization.quantize(model, config, calibrate)
    helpers = {name: getattr(module, "awq_lite", None) for name, module in model.named_modules()}
    return {
        name: (helper.best_alpha, list(helper.loss.values())) for name, helper in helpers.items() if helper is not None
    }


def main():
    folder, data, config, out = sys.argv[1:]
    torch.set_num_threads(1)
    tensor_quant.dynamic_block_quantize_op = dynamic_block_quantize
    kernels.IS_AVAILABLE = True
    samples = torch.from_numpy(numpy.load(data).astype(numpy.int64))
    chosen = search(folder, torch.bfloat16, config, samples)
    in_f32 = search(folder, torch.float32, config, samples)
    content = {
        name: {"alpha": round(alpha, 6), "losses": [float(f"{loss:.7g}") for loss in in_f32[name][1]]}
        for name, (alpha, _) in sorted(chosen.items())
    }
    with open(out, "w", encoding="utf-8") as file:
        lines = [f' {json.dumps(name)}: {json.dumps(entry)}' for name, entry in content.items()]
        file.write("{\n" + ",\n".join(lines) + "\n}\n")


main()
