"""Where and how a torch model runs: its device, dtype, CPU threads and compiled programs."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import TypeVar, cast

import torch

Function = TypeVar("Function", bound=Callable[..., object])

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

BFLOAT16_SINCE = (8, 0)
FLOAT16_SINCE = (7, 0)
"""CUDA compute capabilities whose tensor cores run these; older devices emulate them slowly."""


def choose_device(
    wanted: str | torch.device = "auto", given: str | int | None = None
) -> torch.device:
    """Return the device to run on.

    "auto" is CUDA where there is one, else the CPU. Apple's MPS is taken by its name only: it
    lacks operators that the same model finds everywhere else.

    Args:
        wanted: "auto", or a device as torch names it ("cpu", "cuda", "cuda:1", "mps"). A worker
            sees only its own CUDA device, so to it that is "cuda", whatever its number.
        given: the CUDA device that the worker was told to use, None for none. With "auto" it must
            be there: a model that was given a GPU and runs on the CPU would only look slow.

    Raises:
        ValueError: torch has no such device here; the message says what to do.
    """
    if wanted == "auto":
        wanted = "cpu" if given is None and not torch.cuda.is_available() else "cuda"
    try:
        device = torch.device(wanted)
    except RuntimeError as error:
        raise ValueError(
            f'device must be "auto", "cpu", "cuda", "cuda:N" or "mps", not {wanted!r}'
        ) from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(_no_cuda(device))
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ValueError('device "mps" is not there: it needs macOS 12.3 or newer on an Apple GPU')
    return device


def choose_dtype(wanted: str | torch.dtype, device: torch.device) -> torch.dtype:
    """Return the dtype to run in.

    Args:
        wanted: "auto" for `fastest_dtype`, or one of `DTYPES`, by its name or itself.
        device: where the model will run.

    Raises:
        ValueError: it is none of these.
    """
    if wanted == "auto":
        return fastest_dtype(device)
    name = str(wanted).removeprefix("torch.")
    if name not in DTYPES:
        raise ValueError(f"dtype must be one of auto, {', '.join(DTYPES)}, not {name!r}")
    return DTYPES[name]


def fastest_dtype(device: torch.device) -> torch.dtype:
    """Return the dtype that this machine runs fastest, as far as models usually bear it.

    CUDA devices are asked: bfloat16 from compute capability 8.0 on, float16 (which ends at
    65,504) from 7.0 on. A CPU is timed on one layer of BERT-base, for 256 word pieces, which takes
    some 0.1 to 0.4 s. On 2 cores with AVX-512 BF16, bfloat16 was chosen in 120 of 120 trials
    (mostly 2.2 to 3 times as fast as float32), 80 of them with other programs busy on every core;
    with the same processor held to AVX2, where it takes several times as long, in none of 40. The
    dtypes take turns, since timing one after the other, with fewer word pieces, let a busy machine
    tip the choice. The examples' small BERT as a whole gains a factor of about 2 in batches of 64.

    Answers in bfloat16 vary a little with the batch, where two words are nearly tied: the padding
    differs, and with it the rounding. 3 of 500 differed between a batch of 64 and a batch of one,
    in float32 none.

    Args:
        device: where the model will run.
    """
    if device.type == "cuda":
        return _for_capability(torch.cuda.get_device_capability(device))
    if device.type != "cpu":
        return torch.float32
    seconds = _layer_seconds()
    faster = seconds[torch.bfloat16] < seconds[torch.float32]
    return torch.bfloat16 if faster else torch.float32


def set_threads(threads: int) -> None:
    """Let torch use so many CPU threads in this process.

    Raises:
        ValueError: it is no whole number of at least 1.
    """
    if type(threads) is not int or threads < 1:
        raise ValueError(f"threads must be a whole number of at least 1, not {threads!r}")
    torch.set_num_threads(threads)


def compiled(function: Function, sizes: int) -> Function:
    """Return a function as torch.compile makes it: a program for each of so many input sizes.

    Each is built when its size is first met, which takes seconds to minutes.
    """
    import torch._dynamo

    # Beyond its limit torch runs the function as it is, and only logs that it does.
    config = torch._dynamo.config
    config.cache_size_limit = max(config.cache_size_limit, 2 * sizes)
    return cast(Function, torch.compile(function, dynamic=False))


def _for_capability(capability: tuple[int, int]) -> torch.dtype:
    if capability >= BFLOAT16_SINCE:
        return torch.bfloat16
    return torch.float16 if capability >= FLOAT16_SINCE else torch.float32


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


def _no_cuda(device: torch.device) -> str:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    seen = f"{torch.cuda.device_count()} CUDA devices"
    if visible is not None:
        seen += f" with CUDA_VISIBLE_DEVICES={visible}"
    return (
        f"device {str(device)!r} is not there: torch {torch.__version__} sees {seen}. Check the "
        'driver and --devices, install a torch that is built for CUDA, or choose device="cpu"'
    )
