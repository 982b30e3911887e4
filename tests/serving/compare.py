#!/usr/bin/env python3
"""Holds `qlaunch eval` against vLLM's own forward: compare.py CHECKPOINT OURS.json VLLM.json.

The two perplexities over the same windows must agree within 2%: vLLM fuses products, rounds activations elsewhere and, for
FP8, requantizes fused shards with their largest scale.
"""

import json
import sys

TOLERANCE = 0.02


def main():
    checkpoint, ours_path, vllm_path = sys.argv[1:]
    with open(ours_path, encoding="utf-8") as file:
        ours = json.load(file)
    with open(vllm_path, encoding="utf-8") as file:
        report = json.load(file)
    theirs = report.get(checkpoint, report.get("reference"))
    if "perplexity" not in theirs:
        print(f"VERDICT evaluation FAIL {checkpoint}: vLLM has no perplexity for it")
        sys.exit(1)
    difference = ours["perplexity"] / theirs["perplexity"] - 1.0
    same_tokens = ours["tokens"] == theirs["tokens"]
    passed = abs(difference) <= TOLERANCE and same_tokens
    print(f"VERDICT evaluation {'PASS' if passed else 'FAIL'} {checkpoint} qlaunch={ours['perplexity']:.4f} "
          f"vllm={theirs['perplexity']:.4f} ({100 * difference:+.2f}%) tokens={ours['tokens']}/{theirs['tokens']}")
    sys.exit(0 if passed else 1)


if __name__ == "__main__":
    main()
