"""Makes the random models of the bench: seeded, so that every machine gets the same bytes.

usage: models.py FOLDER NAME [LAYERS]    (writes FOLDER; NAME is a key of SHAPES)
"""

import json
import os
import sys

import numpy as np

COMMON = {
    "dtype": "bfloat16", "hidden_act": "silu", "attention_bias": False, "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-5, "rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"},
    "tie_word_embeddings": False, "bos_token_id": 1, "eos_token_id": 2,
}
LLAMA = {**COMMON, "architectures": ["LlamaForCausalLM"], "model_type": "llama", "mlp_bias": False}
SMALL = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "vocab_size": 8192, "head_dim": 64}
QWEN = {**COMMON, **SMALL, "num_key_value_heads": 4, "use_sliding_window": False, "sliding_window": None}
SHAPES = {
    # TinyLlama-1.1B.
    "llama-1b": {**LLAMA, "hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 22,
                 "num_attention_heads": 32, "num_key_value_heads": 4, "head_dim": 64, "vocab_size": 32000},
    "llama-100m": {**LLAMA, **SMALL, "num_key_value_heads": 12, "intermediate_size": 2048},
    # The next two do the same arithmetic for a token, apart from the router: 8 experts of 256 against one MLP of 2048.
    "qwen3-dense": {**QWEN, "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "intermediate_size": 2048},
    "qwen3-moe": {**QWEN, "architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe",
                  "intermediate_size": 2048, "moe_intermediate_size": 256, "num_experts": 32,
                  "num_local_experts": 32, "num_experts_per_tok": 8, "norm_topk_prob": True, "decoder_sparse_step": 1,
                  "mlp_only_layers": [], "output_router_logits": False, "router_aux_loss_coef": 0.001},
}


def attention(config, layer):
    """Names and shapes of one layer's attention and norms."""
    hidden, head = config["hidden_size"], config["head_dim"]
    queries, keys = config["num_attention_heads"] * head, config["num_key_value_heads"] * head
    path = f"model.layers.{layer}"
    tensors = {f"{path}.{name}.weight": [hidden] for name in ("input_layernorm", "post_attention_layernorm")}
    if config["model_type"].startswith("qwen3"):
        tensors |= {f"{path}.self_attn.{name}.weight": [head] for name in ("q_norm", "k_norm")}
    for name, rows in (("q_proj", queries), ("k_proj", keys), ("v_proj", keys)):
        tensors[f"{path}.self_attn.{name}.weight"] = [rows, hidden]
    tensors[f"{path}.self_attn.o_proj.weight"] = [hidden, queries]
    return tensors


def mlp(config, path, width):
    hidden = config["hidden_size"]
    return {f"{path}.gate_proj.weight": [width, hidden], f"{path}.up_proj.weight": [width, hidden],
            f"{path}.down_proj.weight": [hidden, width]}


def tensors_of(config):
    """Every tensor of the model, in the order of the file."""
    vocabulary, hidden = config["vocab_size"], config["hidden_size"]
    tensors = {"model.embed_tokens.weight": [vocabulary, hidden]}
    for layer in range(config["num_hidden_layers"]):
        tensors |= attention(config, layer)
        path = f"model.layers.{layer}.mlp"
        if "num_experts" not in config:
            tensors |= mlp(config, path, config["intermediate_size"])
            continue
        tensors[f"{path}.gate.weight"] = [config["num_experts"], hidden]
        for expert in range(config["num_experts"]):
            tensors |= mlp(config, f"{path}.experts.{expert}", config["moe_intermediate_size"])
    return tensors | {"model.norm.weight": [hidden], "lm_head.weight": [vocabulary, hidden]}


def bfloat16(values):
    """The bits of f32 values rounded to bf16, ties to even."""
    bits = values.view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2")


def write_tensors(path, tensors):
    """A safetensors file: linears are N(0, 0.02), norms are 1."""
    header, offset = {"__metadata__": {"format": "pt"}}, 0
    for name, shape in tensors.items():
        size = 2 * int(np.prod(shape))
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    random = np.random.Generator(np.random.SFC64(20470))
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for shape in tensors.values():
            ones = len(shape) == 1
            values = np.ones(shape, np.float32) if ones else random.standard_normal(shape, np.float32)
            file.write(bfloat16(values if ones else values * np.float32(0.02)).tobytes())


def write_tokens(path, vocabulary):
    """Calibration: 16 samples of 512 random tokens."""
    ids = np.random.Generator(np.random.SFC64(512)).integers(3, vocabulary, (16, 512), dtype=np.int32)
    np.save(path, ids)


def main():
    folder, name = sys.argv[1:3]
    config = dict(SHAPES[name])
    if len(sys.argv) > 3:
        config["num_hidden_layers"] = int(sys.argv[3])
    os.makedirs(folder, exist_ok=True)
    write_tensors(f"{folder}/model.safetensors", tensors_of(config))
    write_tokens(f"{folder}/tokens.npy", config["vocab_size"])
    # The config comes last: a folder with one is finished.
    with open(f"{folder}/config.json", "w") as file:
        json.dump(config, file, indent=2)


if __name__ == "__main__":
    main()
