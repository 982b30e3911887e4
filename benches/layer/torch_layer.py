"""Measures one Llama decoder layer and one matrix product in torch on a CPU; prints one JSON object.

The same sizes and operations as worker/examples/layer.rs, written as transformers writes them.
"""

import json
import time

import torch
import torch.nn.functional as F

BATCH, SEQ, HIDDEN, INTERMEDIATE, HEADS, KV_HEADS = 8, 512, 2048, 5632, 32, 4
HEAD_DIM = HIDDEN // HEADS
RUNS = 3
SIDE = 2048


def rms_norm(x, weight, eps=1e-5):
    wide = x.to(torch.float32)
    wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)
    return weight * wide.to(x.dtype)


def rotate_half(x):
    left, right = x[..., : x.shape[-1] // 2], x[..., x.shape[-1] // 2 :]
    return torch.cat((-right, left), dim=-1)


class Layer:
    def __init__(self, dtype):
        def weight(*shape):
            return (torch.rand(shape) * 0.04 - 0.02).to(dtype)

        self.norms = [torch.rand(HIDDEN).to(dtype) for _ in range(2)]
        self.q, self.o = weight(HIDDEN, HIDDEN), weight(HIDDEN, HIDDEN)
        self.k, self.v = weight(KV_HEADS * HEAD_DIM, HIDDEN), weight(KV_HEADS * HEAD_DIM, HIDDEN)
        self.gate, self.up = weight(INTERMEDIATE, HIDDEN), weight(INTERMEDIATE, HIDDEN)
        self.down = weight(HIDDEN, INTERMEDIATE)
        self.cos, self.sin = (torch.rand(SEQ, HEAD_DIM).to(dtype) for _ in range(2))

    def forward(self, x):
        normal = rms_norm(x, self.norms[0])
        q = F.linear(normal, self.q).view(BATCH, SEQ, HEADS, HEAD_DIM).transpose(1, 2)
        k = F.linear(normal, self.k).view(BATCH, SEQ, KV_HEADS, HEAD_DIM).transpose(1, 2)
        v = F.linear(normal, self.v).view(BATCH, SEQ, KV_HEADS, HEAD_DIM).transpose(1, 2)
        q = q * self.cos + rotate_half(q) * self.sin
        k = k * self.cos + rotate_half(k) * self.sin
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        attended = attended.transpose(1, 2).reshape(BATCH, SEQ, HIDDEN)
        hidden = x + F.linear(attended, self.o)
        normal = rms_norm(hidden, self.norms[1])
        active = F.silu(F.linear(normal, self.gate)) * F.linear(normal, self.up)
        return hidden + F.linear(active, self.down)


def measure(work):
    """CPU-seconds and wall seconds of the cheapest run, after one to warm up."""
    work()
    best = (float("inf"), float("inf"))
    for _ in range(RUNS):
        wall, cpu = time.perf_counter(), time.process_time()
        work()
        best = min(best, (time.process_time() - cpu, time.perf_counter() - wall))
    return best


def main():
    report = {"engine": "torch", "version": torch.__version__}
    with torch.inference_mode():
        for name, dtype in (("f32", torch.float32), ("bf16", torch.bfloat16)):
            torch.set_num_threads(2)
            layer, x = Layer(dtype), torch.rand(BATCH, SEQ, HIDDEN).to(dtype)
            cpu, wall = measure(lambda: layer.forward(x))
            torch.set_num_threads(1)
            left, right = (torch.rand(SIDE, SIDE).to(dtype) for _ in range(2))
            product, _ = measure(lambda: F.linear(left, right))
            speed = 2 * SIDE**3 / product / 1e9
            report[name] = {"layer_cpu_s": cpu, "layer_wall_s": wall, "gemm_gflop_per_cpu_s": speed}
    print(json.dumps(report))


if __name__ == "__main__":
    main()
