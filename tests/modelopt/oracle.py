"""What ModelOpt makes of a model: digests of the tensors that it exports, and perplexities before and after its export shares scales.

Usage: oracle.py MODEL CALIB.npy EVAL.npy OUT RECIPE[+CACHE]...

`RECIPE` is a preset of ModelOpt's library (`nvfp4`), a recipe of it (`general/ptq/…`) or a file; `CACHE` a KV cache (`fp8`). Writes
`OUT/RECIPE-kv_CACHE/tensors.json` and `OUT/results.json`, where `calibrated` is the perplexity of the fake-quantized model, and
`exported` that of the same model with what its export makes of it: fused linears (q/k/v, gate/up) have common scales, by
ModelOpt's own code, and NVFP4 weights are those of the exported file. The first 32 windows of 512 tokens count; logits in the model's type, losses in f32.

Needs what `benches/modelopt/requirements.txt` names; `benches/modelopt/install.sh` prints a python that has it.
"""

import copy
import hashlib
import json
import math
import os
import sys
import tempfile

import numpy
import torch

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, f"{ROOT}/benches/modelopt")

import modelopt.torch.quantization as mtq  # noqa: E402
import shim  # noqa: E402, F401  (stands in for the CUDA kernels)
from modelopt.torch.export import export_hf_checkpoint  # noqa: E402
from modelopt.torch.export.unified_export_hf import requantize_resmooth_fused_llm_layers  # noqa: E402
from modelopt_jobs import configuration, forward_loop  # noqa: E402
from safetensors import safe_open  # noqa: E402
from transformers import AutoModelForCausalLM  # noqa: E402

WINDOWS, TOKENS, TOGETHER, BATCH = 32, 512, 4, 8
# Larger tensors are told by their digest alone.
SMALL = 1


@torch.no_grad()
def perplexity(model, ids):
    windows = torch.from_numpy(ids[: WINDOWS * TOKENS].astype(numpy.int64)).reshape(WINDOWS, TOKENS)
    loss = 0.0
    for part in windows.split(TOGETHER):
        logits = model(input_ids=part, use_cache=False).logits.float()[:, :-1]
        losses = torch.nn.functional.cross_entropy(logits.flatten(0, 1), part[:, 1:].flatten(), reduction="sum")
        loss += losses.double().item()
    return math.exp(loss / (WINDOWS * (TOKENS - 1)))


def with_cache(config, cache):
    """The recipe with ModelOpt's preset of a KV cache behind it."""
    entries = copy.deepcopy(list(getattr(mtq, f"{cache.upper()}_KV_CFG")["quant_cfg"])) if cache else []
    return {**config, "quant_cfg": [*config["quant_cfg"], *entries]}


def describe(path):
    """Every tensor of a file: type, shape, digest, and the value of a scalar."""
    described = {}
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        for name, entry in sorted(header.items()):
            begin, end = entry["data_offsets"]
            file.seek(8 + length + begin)
            digest = hashlib.sha256(file.read(end - begin)).hexdigest()
            described[name] = {"dtype": entry["dtype"], "shape": entry["shape"], "sha256": digest}
    with safe_open(path, "pt") as file:
        for name, entry in described.items():
            if math.prod(entry["shape"]) == SMALL:
                entry["value"] = file.get_tensor(name).float().item()
    return described


def store(model, path):
    """Puts the NVFP4 weights of an exported file in the places of those that the model would round itself."""
    values = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6])
    values = torch.cat([values, -values])
    with safe_open(path, "pt") as file:
        names = set(file.keys())
        for name, module in model.named_modules():
            if f"{name}.weight_scale_2" not in names or file.get_slice(f"{name}.weight").get_dtype() != "U8":
                continue
            codes, scales, top = (file.get_tensor(f"{name}.{part}") for part in ("weight", "weight_scale", "weight_scale_2"))
            weight = values[torch.stack([codes & 15, codes >> 4], -1).flatten(1).long()]
            scales = (scales.float() * top).repeat_interleave(weight.shape[1] // scales.shape[1], 1)
            module.weight.data = (weight * scales).to(module.weight.dtype)
            module.weight_quantizer.disable()


def make(folder, calibration, ids, recipe, cache, out):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).eval()
    model.config.use_cache = False
    model = mtq.quantize(model, with_cache(configuration(recipe), cache), forward_loop(calibration, BATCH))
    found = {"calibrated": perplexity(model, ids)}
    shared = copy.deepcopy(model)
    requantize_resmooth_fused_llm_layers(shared)
    with tempfile.TemporaryDirectory() as work:
        export_hf_checkpoint(model, export_dir=work)
        store(shared, f"{work}/model.safetensors")
        os.makedirs(out, exist_ok=True)
        with open(f"{out}/tensors.json", "w") as file:
            json.dump(describe(f"{work}/model.safetensors"), file, indent=1)
            file.write("\n")
    found["exported"] = perplexity(shared, ids)
    return found


def main():
    folder, calibration, evaluation, out, *recipes = sys.argv[1:]
    torch.set_num_threads(1)
    ids = numpy.load(evaluation)
    results = {}
    if os.path.exists(f"{out}/results.json"):
        with open(f"{out}/results.json") as file:
            results = json.load(file)["perplexity"]
    for text in recipes:
        recipe, _, cache = text.partition("+")
        name = os.path.basename(recipe).removesuffix(".yaml") + (f"-kv_{cache}" if cache else "")
        results[name] = make(folder, calibration, ids, recipe, cache, f"{out}/{name}")
        print(name, results[name], file=sys.stderr, flush=True)
        with open(f"{out}/results.json", "w") as file:
            json.dump({"windows": WINDOWS, "window_tokens": TOKENS, "perplexity": results}, file, indent=1)
            file.write("\n")


if __name__ == "__main__":
    main()
