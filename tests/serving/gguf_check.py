#!/usr/bin/env python3
"""Checks a GGUF file with llama.cpp on the CPU.

Its metadata is complete; gguf-py's reference dequantizers agree with ggml's on every quantized type in it; libllama
loads and runs it. Prints `VERDICT llamacpp PASS|FAIL … ppl=…`; exits with 0 only on PASS.
"""

import argparse
import collections
import ctypes
import json
import math
import os
import sys
import traceback

import gguf
import numpy as np

SAMPLES_PER_TYPE = 3
KEYS = ("block_count", "context_length", "embedding_length", "feed_forward_length", "attention.head_count",
        "attention.layer_norm_rms_epsilon")
DEQUANTIZERS = {
    "Q4_0": "q4_0", "Q4_1": "q4_1", "Q5_0": "q5_0", "Q5_1": "q5_1", "Q8_0": "q8_0", "Q2_K": "q2_K", "Q3_K": "q3_K",
    "Q4_K": "q4_K", "Q5_K": "q5_K", "Q6_K": "q6_K", "IQ4_NL": "iq4_nl", "IQ4_XS": "iq4_xs", "MXFP4": "mxfp4",
    "NVFP4": "nvfp4",
}


def check_structure(path):
    """Faults in metadata, values and block layouts."""
    reader, errors = gguf.GGUFReader(path), []
    field = reader.get_field("general.architecture")
    architecture = field.contents() if field else "?"
    needed = [f"{architecture}.{key}" for key in KEYS] + ["tokenizer.ggml.model", "tokenizer.ggml.tokens"]
    if "moe" in architecture:
        needed += [f"{architecture}.expert_count", f"{architecture}.expert_used_count"]
    errors += [f"missing metadata {key}" for key in needed if reader.get_field(key) is None]
    types = collections.Counter(tensor.tensor_type.name for tensor in reader.tensors)
    print(f"  architecture {architecture}, {len(reader.tensors)} tensors {dict(types)}")
    library = ctypes.CDLL(os.path.join(os.environ["LLAMA_CPP_LIB_PATH"], "libggml-base.so"))
    compared = collections.Counter()
    for tensor in reader.tensors:
        kind = tensor.tensor_type.name
        if tensor.data.dtype.kind == "f" and not np.all(np.isfinite(tensor.data)):
            errors.append(f"{tensor.name}: non-finite values")
        if kind in DEQUANTIZERS and compared[kind] < SAMPLES_PER_TYPE:
            compared[kind] += 1
            errors += compare_dequantizers(library, tensor, kind)
    print(f"  dequantizers compared with ggml's: {dict(compared)}")
    return errors


def compare_dequantizers(library, tensor, kind):
    """Two independent decoders must read the same numbers out of the same bytes."""
    reference = gguf.quants.dequantize(tensor.data, tensor.tensor_type).reshape(-1).astype(np.float32)
    raw, decoded = np.ascontiguousarray(tensor.data), np.empty(reference.size, np.float32)
    function = getattr(library, f"dequantize_row_{DEQUANTIZERS[kind]}")
    function.argtypes, function.restype = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64], None
    function(raw.ctypes.data, decoded.ctypes.data, reference.size)
    if not np.isfinite(decoded).all():
        return [f"{tensor.name} {kind}: non-finite after dequantization"]
    difference = float(np.max(np.abs(reference - decoded), initial=0.0))
    if difference > 1e-6 * max(1e-9, float(np.abs(decoded).max(initial=0.0))):
        return [f"{tensor.name} {kind}: gguf-py and ggml differ by {difference}"]
    return []


def perplexity(path, options):
    """(perplexity, scored tokens) over whole windows of the text, without BOS."""
    import llama_cpp

    silent = llama_cpp.llama_log_callback(lambda *arguments: None)
    if not options.verbose:
        llama_cpp.llama_log_set(silent, ctypes.c_void_p(0))
    model = llama_cpp.Llama(model_path=path, n_ctx=256, n_batch=256, n_ubatch=256, n_threads=options.threads,
                            n_threads_batch=options.threads, logits_all=True, verbose=options.verbose, n_gpu_layers=0)
    with open(options.text, "rb") as file:
        ids = model.tokenize(file.read(), add_bos=False, special=False)
    length = options.length
    chunks = [ids[at:at + length] for at in range(0, len(ids) - length + 1, length)][:options.chunks]
    if not chunks:
        raise ValueError(f"{options.text} has fewer than {length} tokens")
    loss, tokens = 0.0, 0
    for chunk in chunks:
        model.reset()
        model.eval(chunk)
        logits = np.array(model.scores[:length], dtype=np.float64)
        logits -= logits.max(-1, keepdims=True)
        logits -= np.log(np.exp(logits).sum(-1, keepdims=True))
        loss -= logits[np.arange(length - 1), chunk[1:]].sum()
        tokens += length - 1
    return math.exp(loss / tokens), tokens


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file")
    parser.add_argument("--text", required=True, help="held-out text to score")
    parser.add_argument("--name", help="what to call the file in the verdict")
    parser.add_argument("--chunks", type=int, default=8)
    parser.add_argument("--length", type=int, default=248)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--max-ppl", type=float)
    parser.add_argument("--json", help="write the numbers here")
    parser.add_argument("-v", "--verbose", action="store_true")
    return parser.parse_args()


def main():
    options = parse()
    name = options.name or options.file
    try:
        errors = check_structure(options.file)
        value, tokens = perplexity(options.file, options)
        passed = math.isfinite(value) and not errors and (options.max_ppl is None or value <= options.max_ppl)
        for error in errors:
            print("  ERROR", error)
        print(f"VERDICT llamacpp {'PASS' if passed else 'FAIL'} {name} ppl={value:.4f} tokens={tokens}")
        if options.json:
            with open(options.json, "w", encoding="utf-8") as file:
                json.dump({"perplexity": value, "tokens": tokens, "errors": errors}, file)
    except Exception as error:
        if options.verbose:
            traceback.print_exc()
        passed = False
        print(f"VERDICT llamacpp FAIL {name}: {type(error).__name__}: {str(error)[:300]}")
    sys.stdout.flush()
    # libllama's threads outlive a normal exit.
    os._exit(0 if passed else 1)


if __name__ == "__main__":
    main()
