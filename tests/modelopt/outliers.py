"""Writes a model with strong outliers in some channels of its activations, which computes what the model it is made of computes.

Usage: outliers.py MODEL OUT FACTOR CHANNEL...

These channels of every layer's norms are multiplied, the columns that read them divided; a power of two is exact in bf16.
The goldens of `tests/golden/modelopt/outliers` are ModelOpt's answers for `examples/models/tiny-llama` with 32 and the channels
7 50 133 200: `oracle.py` on what this writes. `tests/src/outliers.rs` writes the same weights for us.
"""

import shutil
import sys

from safetensors.torch import load_file, save_file

READERS = {
    "input_layernorm": [f"self_attn.{name}_proj" for name in "qkv"],
    "post_attention_layernorm": ["mlp.gate_proj", "mlp.up_proj"],
}


def main():
    folder, out, factor, *channels = sys.argv[1:]
    factor, channels = float(factor), [int(channel) for channel in channels]
    shutil.copytree(folder, out)
    tensors = load_file(f"{folder}/model.safetensors")
    for name in [name for name in tensors if name.split(".")[-2] in READERS]:
        layer, norm, _ = name.rsplit(".", 2)
        tensors[name][channels] *= factor
        for reader in READERS[norm]:
            tensors[f"{layer}.{reader}.weight"][:, channels] /= factor
    save_file(tensors, f"{out}/model.safetensors", metadata={"format": "pt"})


if __name__ == "__main__":
    main()
