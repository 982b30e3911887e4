"""Times the forward pass of an 8B-shaped random Llama by transformers in bf16; prints JSON. The sizes are those of worker/examples/gpu.rs."""

import json
import time

import torch
import transformers

SAMPLES, LENGTH, BATCH = 64, 512, 8


def main():
    config = transformers.LlamaConfig(
        hidden_size=4096, intermediate_size=14336, num_hidden_layers=32, num_attention_heads=32, num_key_value_heads=8,
        vocab_size=128256, max_position_embeddings=8192, rms_norm_eps=1e-5, tie_word_embeddings=False)
    torch.manual_seed(1)
    with torch.device("cuda"):
        torch.set_default_dtype(torch.bfloat16)
        # Calibration needs no logits.
        model = transformers.LlamaModel(config).eval()
        ids = torch.randint(0, config.vocab_size, (SAMPLES, LENGTH))
    with torch.no_grad():
        model(ids[:BATCH], use_cache=False)
        torch.cuda.synchronize()
        begun = time.monotonic()
        for batch in ids.split(BATCH):
            model(batch, use_cache=False)
        torch.cuda.synchronize()
    seconds = time.monotonic() - begun
    print(json.dumps({"torch": torch.__version__, "transformers": transformers.__version__, "seconds": round(seconds, 3),
                      "tokens_per_second": round(SAMPLES * LENGTH / seconds)}))


main()
