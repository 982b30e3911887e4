#!/usr/bin/env python3
"""Cuts a text into the windows that `vllm_check.py --text` scores: cut_windows.py MODEL TEXT OUT.npy."""

import sys

import numpy
import transformers

WINDOWS, LENGTH = 8, 248


def main():
    model, text, out = sys.argv[1:]
    # It would warn that the whole text is longer than the model's context.
    transformers.logging.set_verbosity_error()
    with open(text, encoding="utf-8") as file:
        ids = transformers.AutoTokenizer.from_pretrained(model)(file.read(), add_special_tokens=False)["input_ids"]
    if len(ids) < WINDOWS * LENGTH:
        sys.exit(f"{text} has {len(ids)} tokens, fewer than {WINDOWS * LENGTH}")
    numpy.save(out, numpy.array(ids[:WINDOWS * LENGTH], dtype=numpy.int32).reshape(WINDOWS, LENGTH))


if __name__ == "__main__":
    main()
