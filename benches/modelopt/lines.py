"""The lines of the bench: which recipe on which model, and what is wanted of it."""

import os
from dataclasses import dataclass

HERE = os.path.dirname(os.path.abspath(__file__))


@dataclass(frozen=True)
class Line:
    """One row of the comparison. `recipe` means the same to both programs."""

    kind: str
    model: str
    recipe: str
    # Tokens of calibration, or none for a recipe without a forward pass.
    calibrated: bool

    @property
    def name(self):
        return f"{self.kind}/{self.model}/{os.path.basename(self.recipe).removesuffix('.yaml')}"


def own(recipe):
    """A recipe that neither library has under a name of its own."""
    return f"{HERE}/recipes/{recipe}.yaml"


WEIGHT_RECIPES = ["w4a16_nvfp4", "mxfp8", "mxfp4", "int8_weight_only", "int4_blockwise_weight_only",
                  "fp8_2d_blockwise_weight_only"]
MAX_RECIPES = ["general/ptq/fp8_default-kv_fp8", "general/ptq/nvfp4_default-kv_fp8"]
SEARCH_RECIPES = ["int8_smoothquant", own("fp8_mse"), "nvfp4_w4a4_weight_mse_fp8_sweep", "int4_awq", "nvfp4_awq_lite",
                  own("int4_gptq"), own("nvfp4_gptq")]

LINES = [
    *(Line("weights", "llama-1b", recipe, False) for recipe in WEIGHT_RECIPES),
    *(Line("calibrate", "llama-1b", recipe, True) for recipe in MAX_RECIPES),
    *(Line("search", model, recipe, True) for model in ("tiny-llama", "llama-100m") for recipe in SEARCH_RECIPES),
    *(Line("together", model, "search", True) for model in ("tiny-llama", "llama-100m")),
    *(Line("moe", "qwen3-moe", recipe, True) for recipe in MAX_RECIPES),
]
# Tokens that every calibration sees, by both programs.
TOKENS = 8192
# What a line of kind `moe` is set against: the same arithmetic for a token without experts.
DENSE = "qwen3-dense"
# Samples that ModelOpt takes at once: 1 keeps its peak memory at its lowest where memory is compared.
MODELOPT_BATCH = {"calibrate": 1, "weights": 1, "search": 8}


def linears_per_token(config):
    """Parameters of the decoder's linears that one token meets, router included, heads and embeddings not."""
    hidden, head = config["hidden_size"], config["head_dim"]
    attention = 2 * hidden * head * (config["num_attention_heads"] + config["num_key_value_heads"])
    width, router = config["intermediate_size"], 0
    if "num_experts" in config:
        width = config["moe_intermediate_size"] * config["num_experts_per_tok"]
        router = config["num_experts"] * hidden
    return config["num_hidden_layers"] * (attention + 3 * hidden * width + router)


def useful_flops(config, samples, length):
    """Of a calibration's forward pass: the linears and the causal half of attention in every layer, without the head
    and without the last down projection, whose outputs no statistic needs."""
    unused = config["hidden_size"] * config["intermediate_size"]
    linears = 2 * samples * length * (linears_per_token(config) - unused)
    pairs = samples * length * (length + 1) // 2
    heads = config["num_attention_heads"] * config["head_dim"]
    return linears + 4 * pairs * heads * config["num_hidden_layers"]
