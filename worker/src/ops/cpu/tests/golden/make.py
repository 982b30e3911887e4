"""Makes torch.json: what torch's CPU kernels make of bf16 operands, as bits. usage: python make.py >torch.json

Made with torch 2.15.0 on one thread.
"""

import json

import torch
import torch.nn.functional as F

TOKENS, HEADS, KV_HEADS, DIM, WIDTH = 24, 4, 2, 16, 40


def rms_norm(x, weight, eps):
    wide = x.to(torch.float32)
    wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)
    return weight * wide.to(x.dtype)


def rotate_half(x):
    left, right = x[..., : x.shape[-1] // 2], x[..., x.shape[-1] // 2 :]
    return torch.cat((-right, left), dim=-1)


def heads(x):
    return x.view(1, TOKENS, -1, DIM).transpose(1, 2)


def rows(x):
    return x.transpose(1, 2).reshape(TOKENS, -1)


def main():
    torch.manual_seed(0)
    torch.set_num_threads(1)
    hidden = HEADS * DIM

    def bf16(*shape):
        return torch.randn(shape).to(torch.bfloat16)

    x, gain = bf16(TOKENS, hidden), bf16(hidden)
    weight, bias = bf16(WIDTH, hidden), bf16(WIDTH)
    k, v = bf16(TOKENS, KV_HEADS * DIM), bf16(TOKENS, KV_HEADS * DIM)
    angles = torch.arange(TOKENS)[:, None] / 10000 ** (torch.arange(0, DIM, 2) / DIM)[None]
    cosines, sines = angles.cos().to(torch.bfloat16), angles.sin().to(torch.bfloat16)
    cos, sin = torch.cat((cosines, cosines), -1), torch.cat((sines, sines), -1)
    other = bf16(TOKENS, hidden)
    attended = F.scaled_dot_product_attention(heads(x), heads(k), heads(v), is_causal=True, enable_gqa=True)
    logits = F.linear(x, weight)
    targets = torch.arange(TOKENS) % WIDTH
    candidate = F.linear(other, weight).float().log_softmax(-1)
    tensors = {
        "x": x, "gain": gain, "weight": weight, "bias": bias, "k": k, "v": v, "other": other,
        "cosines": cosines, "sines": sines,
        "linear": logits,
        "linear_with_bias": F.linear(x, weight, bias),
        "rms_norm": rms_norm(x, gain, 1e-5),
        "rotate": rows(heads(x) * cos + rotate_half(heads(x)) * sin),
        "attention": rows(attended),
        "silu": F.silu(x) * other,
        "gelu": F.gelu(x) * other,
        "gelu_tanh": F.gelu(x, approximate="tanh") * other,
        "add": x + other,
    }
    report = {name: {"shape": list(t.shape), "bits": (t.contiguous().view(torch.int16).flatten().int() & 0xFFFF).tolist()}
              for name, t in tensors.items()}
    losses = F.cross_entropy(logits.float(), targets, reduction="none")
    divergences = F.kl_div(candidate, logits.float().log_softmax(-1), log_target=True, reduction="none").sum(-1)
    report["losses"], report["divergences"] = losses.tolist(), divergences.tolist()
    print(json.dumps(report, separators=(",", ":")))


if __name__ == "__main__":
    main()
