#!/usr/bin/env python3
"""Loads quantized checkpoints with vLLM's own loader on a machine without a GPU, and runs them where it can.

Prints `VERDICT vllm-load PASS|FAIL …` and `VERDICT vllm-run PASS|FAIL|SKIP … ppl=…` for each checkpoint. Exits with 0
only if every checkpoint loaded and ran; a checkpoint for which vLLM has no CPU kernel counts as run only with
`--allow-stubs`. `--json FILE` writes the numbers, `--ids FILE.npy` the windows of token ids that were scored.
"""

import argparse
import json
import math
import os
import sys
import time
import traceback
import warnings

for key, value in {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_LOGGING_LEVEL": "WARNING",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "TORCHDYNAMO_DISABLE": "1",
    "TOKENIZERS_PARALLELISM": "false",
}.items():
    os.environ.setdefault(key, value)
warnings.filterwarnings("ignore")

import vllm_kernels  # noqa: E402
from vllm_kernels import EMULATED, STUBS  # noqa: E402
from vllm_load import check_load  # noqa: E402

MARGIN = 8  # positions left for the one token that vLLM insists on generating


def windows(checkpoint, options):
    """The windows given, or the first `--chunks` of the text, cut as the model's tokenizer encodes it, without BOS."""
    import numpy
    from transformers import AutoTokenizer

    if options.windows:
        return numpy.load(options.windows).tolist()

    with open(options.text, encoding="utf-8") as file:
        ids = AutoTokenizer.from_pretrained(checkpoint)(file.read(), add_special_tokens=False)["input_ids"]
    length = options.max_len - MARGIN
    whole = [ids[at:at + length] for at in range(0, len(ids) - length + 1, length)][:options.chunks]
    if not whole:
        raise ValueError(f"{options.text} has fewer than {length} tokens")
    return whole


def log_probabilities(checkpoint, options):
    """The log-probability of every token but the first of each window, in order; None if a kernel is missing."""
    from vllm import LLM, SamplingParams
    from vllm.distributed import cleanup_dist_env_and_memory

    chunks = windows(checkpoint, options)
    engine = LLM(model=checkpoint, enforce_eager=True, max_model_len=options.max_len, dtype=options.dtype,
                 max_num_seqs=4, disable_log_stats=True)
    if STUBS:
        return None
    sampling = SamplingParams(max_tokens=1, temperature=0, prompt_logprobs=0)
    outputs = engine.generate([{"prompt_token_ids": chunk} for chunk in chunks], sampling, use_tqdm=False)
    engine.llm_engine.engine_core.shutdown()
    del engine
    cleanup_dist_env_and_memory()
    return [position[token].logprob for chunk, output in zip(chunks, outputs)
            for token, position in zip(chunk[1:], output.prompt_logprobs[1:])]


def check_run(checkpoint, reference, options):
    """Scores the text; prints a verdict line; returns (passed, numbers)."""
    logs = log_probabilities(checkpoint, options)
    if logs is None:
        print(f"VERDICT vllm-run SKIP {checkpoint}: no CPU kernel: {STUBS}")
        return options.allow_stubs, {"run": "skip", "stubs": list(STUBS)}
    numbers = {"perplexity": math.exp(-sum(logs) / len(logs)), "tokens": len(logs), "emulated": list(EMULATED)}
    passed = math.isfinite(numbers["perplexity"])
    if options.max_ppl is not None:
        passed = passed and numbers["perplexity"] <= options.max_ppl
    distance = ""
    if reference is not None:
        if len(reference) != len(logs):
            raise ValueError("the reference's tokenizer cuts the text differently")
        numbers["mean_abs_dlogp"] = sum(abs(a - b) for a, b in zip(logs, reference)) / len(logs)
        distance = f" mean|dlogp|={numbers['mean_abs_dlogp']:.4f}"
        if options.max_dlogp is not None:
            passed = passed and numbers["mean_abs_dlogp"] <= options.max_dlogp
    numbers["run"] = "pass" if passed else "fail"
    print(f"VERDICT vllm-run {'PASS' if passed else 'FAIL'} {checkpoint} ppl={numbers['perplexity']:.4f} "
          f"tokens={numbers['tokens']}{distance} emulated={EMULATED}")
    return passed, numbers


def guarded(stage, checkpoint, action, verbose):
    """Runs one stage; an exception is a failed verdict, not the end of the others."""
    STUBS.clear()
    EMULATED.clear()
    started = time.monotonic()
    try:
        return action()
    except Exception as error:
        if verbose:
            traceback.print_exc()
        last = (str(error).strip().splitlines() or [""])[-1][:300]
        print(f"VERDICT vllm-{stage} FAIL {checkpoint}: {type(error).__name__}: {last}")
        return None
    finally:
        print(f"  {stage} took {time.monotonic() - started:.1f} s", flush=True)


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoints", nargs="+")
    scored = parser.add_mutually_exclusive_group(required=True)
    scored.add_argument("--text", help="held-out text to score")
    scored.add_argument("--windows", help="windows of token ids to score, int32 .npy")
    parser.add_argument("--reference", help="unquantized model, run through the same vLLM")
    parser.add_argument("--chunks", type=int, default=8)
    parser.add_argument("--max-len", type=int, default=256)
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--max-ppl", type=float)
    parser.add_argument("--max-dlogp", type=float, help="limit on the mean |Δ log-probability| to the reference")
    parser.add_argument("--load-only", action="store_true")
    parser.add_argument("--allow-stubs", action="store_true", help="a missing CPU kernel is not a failure")
    parser.add_argument("--json", help="write the numbers of every checkpoint here")
    parser.add_argument("--ids", help="write the scored windows here, int32 .npy")
    parser.add_argument("-v", "--verbose", action="store_true")
    return parser.parse_args()


def main():
    options = parse()
    vllm_kernels.install()
    report, passed = {}, True
    if options.ids:
        import numpy

        numpy.save(options.ids, numpy.array(windows(options.checkpoints[0], options), dtype=numpy.int32))
    for checkpoint in options.checkpoints:
        loaded = guarded("load", checkpoint, lambda: check_load(
            checkpoint, options.max_len, options.dtype, options.verbose), options.verbose)
        report[checkpoint] = {"load": "pass" if loaded else "fail"}
        passed = passed and bool(loaded)
    if not options.load_only:
        passed = run_all(options, report) and passed
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(report, file, indent=1)
    sys.stdout.flush()
    # vLLM's threads outlive a normal exit.
    os._exit(0 if passed else 1)


def run_all(options, report):
    """Scores the reference, then every checkpoint that loaded."""
    import torch
    from vllm.distributed import cleanup_dist_env_and_memory

    if torch.distributed.is_initialized():
        cleanup_dist_env_and_memory()
    reference, passed = None, True
    if options.reference:
        reference = guarded("run", options.reference, lambda: log_probabilities(options.reference, options),
                            options.verbose)
        if reference is None:
            return False
        perplexity = math.exp(-sum(reference) / len(reference))
        report["reference"] = {"perplexity": perplexity, "tokens": len(reference)}
        print(f"  reference {options.reference} ppl={perplexity:.4f}")
    for checkpoint in options.checkpoints:
        if report[checkpoint]["load"] == "fail":
            continue
        answer = guarded("run", checkpoint, lambda: check_run(checkpoint, reference, options), options.verbose)
        report[checkpoint].update(answer[1] if answer else {"run": "fail"})
        passed = passed and bool(answer and answer[0])
    return passed


if __name__ == "__main__":
    main()
