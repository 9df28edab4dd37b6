"""What holding a batch back is worth: max_latency of 0.1 s against none, taking turns.

The model is mostly β, so that fuller batches are worth most, and fewer callers than its batch send
one item each, again and again: nobody ever fills a batch, and a hold that waited for one would
take 0.1 s each time.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from tests.bench.callers import Spec, Tally
from tests.bench.hops import SLEPT, Hops
from tests.bench.load import Load, Times
from tests.bench.report import LESS, MORE, Row
from tests.helpers.cluster import Cluster

BATCH = 64
TIMES = {"beta": 0.020, "alpha": 0.0001}
HOLD = 0.1
"""Seconds of max_latency."""

ROUNDS = 5

CALLERS = 8
"""Well below the batch."""

THINKERS, THINK = 16, 0.004
"""Callers that come back within some 10 ms: a hold that caught them all would pay, since without
one two halves of them take turns for ever."""

LONE = 2.0
"""Milliseconds that a lone caller may wait beyond the model's own time."""


def rows(seconds: float) -> list[Row]:
    """Measure each in rounds of so many seconds for either setting."""
    with both() as pair:
        trickle = _rounds(pair, Spec(callers=CALLERS, warm_up=seconds / 4, seconds=seconds))
        spec = Spec(callers=THINKERS, think=THINK, warm_up=seconds / 4, seconds=seconds)
        pays = _rounds(pair, spec)
        alone = _rounds(pair, Spec(callers=1, warm_up=seconds / 4, seconds=seconds))
        bare = _bare(seconds)
    held, greedy = ([_beyond(tally) for tally in side] for side in alone)
    name = f"one caller, max_latency {HOLD:g}: latency beyond the model's"
    return [
        _items(f"trickle of {CALLERS} callers", trickle, (MORE, 1.0)),
        _items(f"{THINKERS} callers that think {THINK * 1e3:g} ms", pays, None),
        Row(name, held, "ms", bound=(LESS, LONE)),
        Row(f"{name}, against max_latency 0", held, "ms", greedy),
        Row(f"{name}, against the same hops in bare pyzmq", held, "ms", bare),
    ]


@contextmanager
def both() -> Iterator[tuple[Load, Load]]:
    """Callers of a worker that may hold, and of one that may not, behind one broker."""
    with Cluster() as cluster, ExitStack() as stack:
        loads = []
        for model, latency in (("held", HOLD), ("greedy", 0.0)):
            cluster.worker(
                "tests.bench.sleeper:Sleeper",
                model=model,
                batch_size=BATCH,
                max_latency=latency,
                init_kwargs=TIMES,
            )
            loads.append(stack.enter_context(Load(cluster.address, model)))
        yield loads[0], loads[1]


def _rounds(pair: tuple[Load, Load], spec: Spec) -> tuple[list[Tally], list[Tally]]:
    """Let both sides take turns; returns what each made of it."""
    tallies: list[tuple[Tally, Tally]] = []
    for number in range(ROUNDS):
        # Who goes first changes, so that a machine that speeds up or slows down favours nobody.
        first = number % 2
        found = {side: pair[side].measure(spec) for side in (first, 1 - first)}
        tallies.append((found[0], found[1]))
    return [held for held, _ in tallies], [greedy for _, greedy in tallies]


def _bare(seconds: float) -> list[float]:
    """Milliseconds beyond such a model's time over the bare hops: the median of each round."""
    medians = []
    with Hops(model=True, nap=sum(TIMES.values())) as hops:
        for _ in range(ROUNDS):
            beyond = []
            end = time.monotonic() + seconds
            while (start := time.monotonic()) < end:
                (slept,) = SLEPT.unpack(hops(b"x"))
                beyond.append(time.monotonic() - start - slept)
            medians.append(1e3 * statistics.median(beyond))
    return medians


def _items(
    what: str, sides: tuple[list[Tally], list[Tally]], bound: tuple[str, float] | None
) -> Row:
    held, greedy = ([_rate(tally) for tally in side] for side in sides)
    name = f"{what}: max_latency {HOLD:g} against 0"
    return Row(name, held, "items/s", greedy, bound)


def _rate(tally: Tally) -> float:
    return tally.answered / (tally.end - tally.start)


def _beyond(tally: Tally) -> float:
    """Milliseconds, the median."""
    return Times.of(tally.beyond).median
