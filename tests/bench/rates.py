"""Items a second: of a model by itself, and of the same through client, broker and worker."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence

from tests.helpers.cluster import Cluster
from zstreamer import Client

Batches = Callable[[list[object]], Sequence[object]]

SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
"""Batch sizes to choose from."""

GAIN = 1.02
"""A larger batch must be so much better: it costs latency."""

WARM = 180.0
"""Seconds that a real model may take to load on a busy machine."""

PATIENCE = 900.0
"""Seconds that an item may wait: nothing is to be refused or given up."""


def join(cluster: Cluster, target: str, model: str = "default", **settings: object) -> Client:
    """Start a worker; returns a client of it once it is warm.

    settings: as for `Cluster.worker`.
    """
    cluster.worker(target, model=model, **settings)
    client: Client = cluster.client(model=model, timeout=PATIENCE)
    client.wait_ready(WARM)
    return client


def through(client: Client, items: Sequence[object]) -> float:
    """Send items one by one, all at once; returns how many were answered a second."""
    begin = time.perf_counter()
    futures = [client.submit([item]) for item in items]
    for future in futures:
        future.result(PATIENCE)
    return len(items) / (time.perf_counter() - begin)


def alone(predict: Batches, items: Sequence[object], size: int, seconds: float) -> float:
    """Run ready batches in a loop for at least so long; returns items a second."""
    batches = itertools.cycle(
        [list(items[at : at + size]) for at in range(0, len(items) - size + 1, size)]
    )
    done = 0
    begin = now = time.perf_counter()
    while now < begin + seconds:
        done += len(checked(predict(next(batches))))
        now = time.perf_counter()
    return done / (now - begin)


def best_size(
    predict: Batches, items: Sequence[object], seconds: float, sizes: Sequence[int] = SIZES
) -> int:
    """The batch size of the most items a second, each tried for so long.

    It stops at the first size that brings nothing.
    """
    best, most = 1, 0.0
    for size in sizes:
        if size > len(items):
            break
        rate = alone(predict, items, size, seconds)
        if rate < GAIN * most:
            break
        best, most = size, rate
    return best


def checked(answers: Sequence[object]) -> Sequence[object]:
    """Raise what stands in an item's place: a batch of errors would look fast."""
    for answer in answers:
        if isinstance(answer, Exception):
            raise answer
    return answers
