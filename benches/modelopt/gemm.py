"""torch's speed in the product that `worker/examples/product.rs` measures as well; prints one JSON object."""

import json
import time

import torch

SIDE, RUNS = 2048, 6


def main():
    torch.set_num_threads(1)
    left, right = (torch.rand(SIDE, SIDE).to(torch.bfloat16) for _ in range(2))
    best = float("inf")
    with torch.inference_mode():
        torch.nn.functional.linear(left, right)
        for _ in range(RUNS):
            begun = time.process_time()
            torch.nn.functional.linear(left, right)
            best = min(best, time.process_time() - begun)
    print(json.dumps({"gflop_per_cpu_s": 2 * SIDE**3 / best / 1e9, "version": torch.__version__}))


if __name__ == "__main__":
    main()
