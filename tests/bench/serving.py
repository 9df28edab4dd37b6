"""A model behind client, broker and worker, against the same model called in a loop.

    loop      model(batch), again and again, on ready batches of its best size
    served    items sent one by one ─> client ─> broker ─> worker, which makes batches of them

Both prepare their items (tokenize them): the loop before each batch, a worker while the batch
before runs, if a core is free for it. The loop is also run on items that were prepared beforehand.
"""

from __future__ import annotations

import importlib
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch

from tests.bench import rates
from tests.bench.callers import Spec
from tests.bench.load import Load
from tests.bench.report import MORE, Row
from tests.helpers.cluster import Cluster
from zstreamer import Client
from zstreamer.torch import TorchModel

SHARE = 0.95
"""What the whole must reach of the model by itself."""

ROUNDS = 3

TRIAL = 0.2
"""Of a round's seconds: for each batch size that is tried."""

RAW = "model(batch) in a loop"
READY = "model.predict(features) in a loop"
SERVED = "client, broker and worker"
CALLED = "the same with callers in a process of their own"


@dataclass(frozen=True)
class Subject:
    """A model and what to ask it.

    Args:
        target: module:Class of a `TorchModel`.
        settings: for its `init_model`.
        items: all of like size, so that it does not matter which of them share a batch.
    """

    target: str
    settings: Mapping[str, object]
    items: Sequence[object]

    def load(self) -> TorchModel:
        """Load the model in this process."""
        module, name = self.target.split(":")
        model: TorchModel = getattr(importlib.import_module(module), name)()
        model.init_model(**self.settings)
        return model


def compare(
    subject: Subject,
    seconds: float,
    sizes: Sequence[int] = rates.SIZES,
    rounds: int = ROUNDS,
    programs: bool = False,
) -> list[Row]:
    """Let loop and served take turns, each for some seconds a round.

    Args:
        sizes: batch sizes to choose the best from.
        programs: whether also to call from a process of callers, which make a call an item.
    """
    with threads_kept():
        model = subject.load()
        ready = [model.prepare(item) for item in subject.items]
        size = rates.best_size(model, subject.items, TRIAL * seconds, sizes)
        with Cluster() as cluster:
            client = rates.join(
                cluster, subject.target, batch_size=size, init_kwargs=dict(subject.settings)
            )
            ways: dict[str, Callable[[], float]] = {
                RAW: partial(rates.alone, model, subject.items, size, seconds),
                READY: partial(rates.alone, model.predict, ready, size, seconds),
            }
            ways[SERVED] = partial(_served, client, subject.items, size, seconds, ways[RAW]())
            if programs:
                ways[CALLED] = partial(_called, cluster, subject.items, size, seconds)
            found = _rounds(ways, rounds)
    return _rows(found, f"batches of {size}")


def _rounds(ways: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Items a second of each way, in rounds; who goes first changes."""
    found: dict[str, list[float]] = {way: [] for way in ways}
    for number in range(rounds):
        for way in list(ways)[:: 1 if number % 2 else -1]:
            found[way].append(ways[way]())
    return found


def _served(
    client: Client, items: Sequence[object], size: int, seconds: float, rate: float
) -> float:
    """Send as many whole batches as the model by itself runs in these seconds."""
    count = size * max(2, math.ceil(rate * seconds / size))
    return rates.through(client, list(itertools.islice(itertools.cycle(items), count)))


def _called(cluster: Cluster, items: Sequence[object], size: int, seconds: float) -> float:
    """Call from a program with callers for four batches, which is more than a worker holds."""
    spec = Spec(
        callers=4 * size,
        warm_up=seconds / 4,
        seconds=seconds,
        timeout=rates.PATIENCE,
        items=list(items),
    )
    with Load(cluster.address, "default") as load:
        return load.measure(spec).answered / seconds


def _rows(found: Mapping[str, list[float]], told: str) -> list[Row]:
    served, raw, ready = found[SERVED], found[RAW], found[READY]
    rows = [
        Row(f"{SERVED}, against {RAW}", served, "items/s", raw, (MORE, SHARE), told),
        Row(f"{SERVED}, against {READY}", served, "items/s", ready, told=told),
    ]
    if called := found.get(CALLED):
        rows.append(Row(f"{CALLED}, against {RAW}", called, "items/s", raw, told=told))
    return rows


@contextmanager
def threads_kept() -> Iterator[None]:
    """Leave torch's number of threads in this process as it was."""
    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)
