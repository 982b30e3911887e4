#!/usr/bin/env python3
"""Perplexity of the random models by Hugging Face transformers, the reference that qlaunch's own forward must meet.

Each model is scored on windows that it sampled itself: there a fault of any kind can only raise the loss, so that even
a slightly wrong rotation shows. Each row of ids is one window; the mean runs over positions 1 onward; logits in the
model's dtype are cast to f32. Made `tests/golden/random-models/`:

    cargo run -p qlaunch-tests --example random_models -- /tmp/random
    ~/.cache/qlaunch/clients/venv/bin/python tests/serving/reference_perplexity.py tests/golden/random-models /tmp/random/*/
"""

import json
import math
import os
import sys
import warnings

os.environ.setdefault("HF_HUB_OFFLINE", "1")
warnings.filterwarnings("ignore")

import numpy  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402

WINDOWS, LENGTH = 8, 160
SPECIAL_TOKENS = 3  # BOS, EOS and padding are never sampled


def load(folder, dtype):
    model, information = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=dtype, attn_implementation="eager", experts_implementation="eager",
        output_loading_info=True)
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if information[kind]:
            raise ValueError(f"{folder}: {kind} {sorted(information[kind])[:5]}")
    return model.eval()


@torch.no_grad()
def sample(model):
    """Windows drawn from the model's own distribution."""
    generator = torch.Generator().manual_seed(20)
    ids = torch.randint(SPECIAL_TOKENS, model.config.vocab_size, (WINDOWS, 1), generator=generator)
    while ids.shape[1] < LENGTH:
        logits = model(input_ids=ids).logits[:, -1].float()
        logits[:, :SPECIAL_TOKENS] = -math.inf
        ids = torch.cat([ids, torch.multinomial(logits.softmax(-1), 1, generator=generator)], dim=1)
    return ids


@torch.no_grad()
def perplexity(model, ids):
    loss = 0.0
    for row in ids:
        logits = model(input_ids=row[None]).logits[0, :-1].float()
        loss += torch.nn.functional.cross_entropy(logits, row[1:], reduction="sum").item()
    return math.exp(loss / (ids.shape[0] * (ids.shape[1] - 1)))


def main():
    out, report = sys.argv[1], {}
    os.makedirs(out, exist_ok=True)
    path = os.path.join(out, "perplexity.json")
    if os.path.exists(path):  # what is there of other models stays
        with open(path, encoding="utf-8") as file:
            report = json.load(file)
    for folder in sys.argv[2:]:
        name = os.path.basename(folder.rstrip("/"))
        exact = load(folder, torch.float32)
        ids = sample(exact)
        numpy.save(os.path.join(out, f"{name}.npy"), ids.numpy().astype(numpy.int32))
        report[name] = {"bf16": perplexity(load(folder, torch.bfloat16), ids), "f32": perplexity(exact, ids)}
    with open(path, "w", encoding="utf-8") as file:
        json.dump(report, file, indent=2, sort_keys=True)
        file.write("\n")


if __name__ == "__main__":
    main()
