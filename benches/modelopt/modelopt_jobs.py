"""Makes checkpoints by ModelOpt on one thread, one for each line of standard input; answers each with a line of JSON.

A line is {"model", "recipe", "tokens", "samples", "batch", "out", "most_cpu_s"}: `recipe` is a preset of ModelOpt's library, a recipe
of it (`general/ptq/…`) or a file; `tokens` an .npy file of which so many samples are taken, or null for a recipe without a forward
pass; a job that takes `most_cpu_s` is stopped there, and its answer says so: {"stopped": true}.
ModelOpt is imported once. Every job is a fork of the process that did so, so that its CPU-seconds hold no imports and
its peak memory is its own (somewhat below that of a fresh process: libraries that it does not touch are not counted).
"""

import gc
import json
import os
import resource
import signal
import sys
import time
import traceback
import warnings

warnings.filterwarnings("ignore")
# What libraries print, already while they are imported, is no answer.
ANSWERS = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)

import modelopt  # noqa: E402  (after the filter, which silences its imports)
import modelopt.torch.quantization as mtq  # noqa: E402
import numpy as np  # noqa: E402
import shim  # noqa: E402, F401
import torch  # noqa: E402
import transformers  # noqa: E402
import transformers.models.llama.modeling_llama  # noqa: E402  (transformers imports models late)
from modelopt.recipe import load_recipe  # noqa: E402
from modelopt.torch.export import export_hf_checkpoint  # noqa: E402
from modelopt.torch.opt.config_loader import load_config  # noqa: E402
from modelopt.torch.quantization.config import QuantizeConfig  # noqa: E402


def configuration(recipe):
    if "/" in recipe:
        return load_recipe(recipe).quantize.model_dump()
    preset = load_config(f"configs/ptq/presets/model/{recipe}", schema_type=QuantizeConfig)
    return preset.model_dump(exclude_unset=True)


def forward_loop(tokens, samples, batch):
    """What `mtq.quantize` calls to calibrate; none for a recipe without a forward pass."""
    if tokens is None:
        return None
    ids = torch.from_numpy(np.load(tokens)[:samples].astype(np.int64))

    def run(model):
        with torch.no_grad():
            for part in ids.split(batch):
                model(input_ids=part, use_cache=False)

    return run


def make(job):
    """One checkpoint; returns CPU-seconds by phase."""
    phases, last = {}, time.process_time()

    def mark(phase):
        nonlocal last
        phases[phase], last = round(time.process_time() - last, 2), time.process_time()

    model = transformers.AutoModelForCausalLM.from_pretrained(job["model"], dtype=torch.bfloat16).eval()
    model.config.use_cache = False
    mark("load")
    model = mtq.quantize(model, configuration(job["recipe"]), forward_loop(job["tokens"], job["samples"], job["batch"]))
    mark("quantize")
    export_hf_checkpoint(model, export_dir=job["out"])
    mark("export")
    return phases


def in_child(job, answer):
    """Never returns: the child ends without the parent's teardown."""
    # The kernel ends it by SIGXCPU.
    resource.setrlimit(resource.RLIMIT_CPU, (job["most_cpu_s"], resource.RLIM_INFINITY))
    try:
        report = {"phases_cpu_s": make(job)}
    except BaseException as failure:  # Whatever it is, the parent must hear of it.
        traceback.print_exc()
        report = {"error": f"{type(failure).__name__}: {failure}"[:400]}
    os.write(answer, json.dumps(report).encode())
    os._exit(0)


def forked(job):
    """What a job took, or `error`."""
    reading, writing = os.pipe()
    begun = time.perf_counter()
    child = os.fork()
    if child == 0:
        in_child(job, writing)
    os.close(writing)
    _, status, usage = os.wait4(child, 0)
    with os.fdopen(reading) as pipe:
        said = pipe.read()
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGXCPU:
        report = {"stopped": True}
    else:
        report = json.loads(said) if said else {"error": f"the process ended with status {status}"}
    return {
        "cpu_s": round(usage.ru_utime + usage.ru_stime, 3),
        "wall_s": round(time.perf_counter() - begun, 3),
        "peak_mib": usage.ru_maxrss // 1024,
        **report,
    }


def main():
    torch.set_num_threads(1)
    torch.manual_seed(0)
    gc.freeze()
    versions = {"nvidia-modelopt": modelopt.__version__, "torch": torch.__version__,
                "transformers": transformers.__version__}
    print(json.dumps({"import_cpu_s": round(time.process_time(), 2), "versions": versions}), file=ANSWERS, flush=True)
    for line in sys.stdin:
        print(json.dumps(forked(json.loads(line))), file=ANSWERS, flush=True)


if __name__ == "__main__":
    main()
