"""Which worker gets the next items: policies as plain functions over what is known of workers.

A worker that takes batches is best described by when it would *finish* an item, not by how
much it holds: one that has just answered holds little but has just begun a batch, so the next
item waits there longest. With the measured batch time T(n) = β + α·n of each worker,

    finish = max(now, free_at) + T(B) · full batches ahead + T(items in the item's own batch)

(Clockwork, OSDI 2020, shows that such times are predictable enough to schedule by.)
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import Protocol, TypeVar

UNKNOWN_BETA = 0.010
"""Seconds assumed for a batch of a worker that has not run one yet."""


class Candidate(Protocol):
    """What a policy needs to know of a worker.

    Attributes:
        free_at: monotonic seconds at which its running batch is expected to end.
        waiting: items that it holds and has not begun, from all brokers.
        room: items that its window still admits.
        used: a number that grows with each dispatch; smaller means longer ago.
        beta: seconds of a batch that do not depend on its size.
        alpha: seconds that each item adds to a batch.
    """

    free_at: float
    used: int
    batch_size: int
    beta: float
    alpha: float

    @property
    def waiting(self) -> int:
        """See above."""

    @property
    def room(self) -> int:
        """See above."""


AnyWorker = TypeVar("AnyWorker", bound=Candidate)


def finish(now: float, worker: Candidate, more: int) -> float:
    """Return when the last of ``more`` further items would be done, in monotonic seconds."""
    beta = worker.beta or UNKNOWN_BETA
    begin = worker.free_at if worker.free_at > now else now  # noqa: FURB136  # `max` costs more
    items = worker.waiting + more
    if items <= worker.batch_size:
        return begin + (beta + worker.alpha * items)
    full, rest = divmod(items, worker.batch_size)
    whole = full * (beta + worker.alpha * worker.batch_size)
    part = beta + worker.alpha * rest if rest else 0.0
    return begin + whole + part


def earliest(now: float, workers: Sequence[AnyWorker], items: int) -> list[tuple[AnyWorker, int]]:
    """Share ``items`` out so that each finishes as early as it can; ties to the least used.

    Items go out in runs, not one by one: the first choice for half a fair share at a time,
    so that the cost depends on the number of workers and hardly on that of items.
    """
    if len(workers) == 1:
        return [(workers[0], min(items, workers[0].room))]
    run = max(1, items // (2 * len(workers)))
    heap = [(finish(now, w, run), w.used, i) for i, w in enumerate(workers)]
    if items == 1 and (first := workers[min(heap)[2]]).room > 0:
        return [(first, 1)]
    counts = [0] * len(workers)
    heapq.heapify(heap)
    while items and heap:
        _, used, i = heap[0]
        worker = workers[i]
        take = min(run, items, worker.room - counts[i])
        counts[i] += take
        items -= take
        if take < run or counts[i] >= worker.room:
            heapq.heappop(heap)
        else:
            heapq.heapreplace(heap, (finish(now, worker, counts[i] + run), used, i))
    return [(w, n) for w, n in zip(workers, counts, strict=True) if n]
