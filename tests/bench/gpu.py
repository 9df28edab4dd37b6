"""BERT-base on a CUDA device through client, broker and worker, against the same in a loop.

Its weights are random, since only its speed is asked for, and its items are random word pieces.
It is called from this process, as a program would, and from a process of callers, as web servers
do. See `tests.bench.serving`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from tests.bench import bert, rates, serving
from tests.bench.report import Report
from zstreamer.system import cpus
from zstreamer.torch.device import choose_dtype

PIECES = 64
"""Word pieces of each item."""

ITEMS = max(rates.SIZES)


def run(seconds: float) -> Report:
    """Measure in rounds of so many seconds each, where there is a CUDA device."""
    if not torch.cuda.is_available():
        return Report("gpu", notes=["there is no CUDA device here, so nothing was measured"])
    return measure(seconds, "cuda", "base")


def measure(
    seconds: float,
    device: str,
    size: str,
    sizes: Sequence[int] = rates.SIZES,
    rounds: int = serving.ROUNDS,
) -> Report:
    """Measure a BERT of a size that `tests.bench.bert` knows, on any device."""
    dtype = str(choose_dtype("auto", torch.device(device))).removeprefix("torch.")
    threads = cpus.share(1)  # as the worker would take for itself
    settings = {"size": size, "device": device, "dtype": dtype, "threads": threads}
    subject = serving.Subject("tests.bench.bert:RandomBert", settings, bert.pieces(ITEMS, PIECES))
    note = f"BERT-{size} of random weights in {dtype} on {_name(device)}, {PIECES} word pieces"
    report = Report("gpu", notes=[note])
    for row in serving.compare(subject, seconds, sizes, rounds, programs=True):
        report.add(row)
    return report


def _name(device: str) -> str:
    return torch.cuda.get_device_name(device) if device == "cuda" else device
