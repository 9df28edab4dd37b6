"""Chooses between float32 and bfloat16 by what this machine runs faster."""

from __future__ import annotations

import time

import torch


def fastest_dtype(device: torch.device) -> torch.dtype:
    """Choose bfloat16 where this machine runs it well, else float32.

    CUDA devices are asked. A CPU is timed on one layer of BERT-base, for 256 word pieces, which
    takes some 0.1 to 0.4 s. On 2 cores with AVX-512 BF16, bfloat16 was chosen in 120 of 120 trials
    (mostly 2.2 to 3 times as fast as float32), 80 of them with other programs busy on every core;
    with the same processor held to AVX2, where it takes several times as long, in none of 40. The
    dtypes take turns, since timing one after the other, with fewer word pieces, let a busy machine
    tip the choice. The small BERT as a whole gains a factor of about 2 in batches of 64.

    Answers in bfloat16 vary a little with the batch, where two words are nearly tied: the padding
    differs, and with it the rounding. 3 of 500 differed between a batch of 64 and a batch of one,
    in float32 none.

    Args:
        device: where the model will run.
    """
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    if device.type != "cpu":
        return torch.float32
    seconds = _layer_seconds()
    faster = seconds[torch.bfloat16] < seconds[torch.float32]
    return torch.bfloat16 if faster else torch.float32


@torch.inference_mode()
def _layer_seconds(rows: int = 256, repeats: int = 4) -> dict[torch.dtype, float]:
    generator = torch.Generator().manual_seed(0)  # leaves the caller's random numbers alone
    inputs = torch.randn(rows, 768, generator=generator)
    weights = torch.randn(3072, 768, generator=generator)
    layers = {kind: (inputs.to(kind), weights.to(kind)) for kind in (torch.float32, torch.bfloat16)}
    best = dict.fromkeys(layers, float("inf"))
    for _ in range(repeats):
        for kind, layer in layers.items():
            start = time.perf_counter()
            torch.nn.functional.linear(*layer)
            best[kind] = min(best[kind], time.perf_counter() - start)
    return best
