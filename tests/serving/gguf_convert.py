#!/usr/bin/env python3
"""llama.cpp's own `convert_hf_to_gguf.py`, with one question answered.

The converter recognises a pre-tokenizer by a hash over its output and refuses one that it has not seen; a byte-level
BPE trained for a test model is such a one. `--pre NAME` (default gpt-2) is used for those, and only for those.
"""

import os
import sys

source = os.environ["LLAMACPP_SOURCE"]
sys.path[:0] = [source, os.path.join(source, "gguf-py")]

from conversion.base import TextModel  # noqa: E402

import convert_hf_to_gguf  # noqa: E402

pre_tokenizer = "gpt-2"
if "--pre" in sys.argv:
    at = sys.argv.index("--pre")
    pre_tokenizer = sys.argv[at + 1]
    del sys.argv[at:at + 2]

recognise = TextModel.get_vocab_base_pre


def recognise_or_answer(self, tokenizer):
    try:
        return recognise(self, tokenizer)
    except NotImplementedError:
        return pre_tokenizer


TextModel.get_vocab_base_pre = recognise_or_answer
sys.argv[0] = "convert_hf_to_gguf.py"
convert_hf_to_gguf.main()
