"""The same load on a worker that may hold and on one that may not, in turns."""

from __future__ import annotations

import contextlib
import json
import math
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from tests.bench import sleeper, web_ours, web_rounds
from tests.bench.callers import Spec, Tally
from tests.bench.cycle import BATCH, Model
from tests.bench.load import Load, Times
from tests.bench.sleeper import Batch
from tests.bench.web_models import questions
from tests.bench.web_server import Server
from tests.helpers.cluster import Cluster

HELD, GREEDY = "held", "greedy"
LATENCY = {HELD: 0.1, GREEDY: 0.0}
"""Seconds of max_latency."""

THREADS, GEVENT, ASYNCIO, HTTP = "threads", "gevent", "asyncio", "HTTP"

SLEEPER = "tests.bench.sleeper:Answerer"

ITEM = "word"

QUESTIONS = 4096
"""Each thread of wrk has half of them, and no more than 256 open."""


class Outcome(NamedTuple):
    """What one round found.

    Attributes:
        rate: items answered a second.
        made: items sent a second.
        p50, p99, mean: milliseconds; wrk tells no mean.
        bad: items that ended in an error.
        start, end: monotonic seconds.
    """

    rate: float
    made: float
    p50: float
    p99: float
    mean: float
    bad: int
    start: float
    end: float

    @classmethod
    def of(cls, tally: Tally) -> Outcome:
        """Sum up what callers have seen."""
        times = Times.of(tally.latencies)
        mean = statistics.fmean(tally.latencies or [0]) / 1e3
        bad = sum(tally.errors.values())
        made = tally.made / (tally.end - tally.start)
        return cls(tally.rate, made, times.median, times.most, mean, bad, tally.start, tally.end)


Found = Mapping[str, list[Outcome]]
"""The rounds of each side."""

Ask = Callable[[Spec], Outcome]


class Sides:
    """Callers of either side; they take turns.

    asks: makes a load, by side.
    """

    def __init__(self, asks: Mapping[str, Ask]) -> None:
        self._asks = asks

    def measure(self, spec: Spec, rounds: int) -> Found:
        """Make a load in rounds; in each both sides get the same arrivals and think times."""
        [found] = self.in_a_row([spec], rounds)
        return found

    def in_a_row(self, specs: list[Spec], rounds: int) -> list[Found]:
        """Make loads that follow each other, in rounds; who goes first changes."""
        found: list[dict[str, list[Outcome]]] = [{HELD: [], GREEDY: []} for _ in specs]
        for number in range(rounds):
            for side in (HELD, GREEDY)[:: 1 if number % 2 else -1]:
                for each, spec in zip(found, specs, strict=True):
                    each[side].append(self._asks[side](replace(spec, seed=number)))
        return list(found)


@contextlib.contextmanager
def loads(arguments: Mapping[str, tuple[str, ...]], module: str) -> Iterator[Sides]:
    """A program of callers for each side.

    arguments: of the program, by side.
    """
    with contextlib.ExitStack() as stack:
        made = {
            side: stack.enter_context(Load(*each, module=module))
            for side, each in arguments.items()
        }
        yield Sides({side: _asking(load) for side, load in made.items()})


def _asking(load: Load) -> Ask:
    return lambda spec: Outcome.of(load.measure(spec))


class Stage:
    """Workers of both sides behind one broker, for as long as the block.

    Args:
        target: their model; without one, `sleeper.Answerer` with this batch time.
        model: its batch time.
        workers: of each side.
        settings: as for `Cluster.worker`.
    """

    def __init__(
        self,
        model: Model | None = None,
        workers: int = 1,
        target: str = SLEEPER,
        **settings: object,
    ) -> None:
        self.workers = workers
        self._model = model
        self._target = target
        self._settings = {"batch_size": BATCH, **settings}
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Stage:
        with contextlib.ExitStack() as stack:
            self._folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="zst-")))
            self._cluster = stack.enter_context(Cluster(tcp=True))
            for side in LATENCY:
                self._start(side)
            self._cluster.wait_up()
            for side in LATENCY:
                self._cluster.wait_warm(self.workers, side)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _start(self, side: str) -> None:
        settings = dict(self._settings)
        if self._model is not None:
            folder = self._folder / side
            folder.mkdir()
            times = {"beta": self._model.beta, "alpha": self._model.alpha}
            settings["init_kwargs"] = {**times, "folder": str(folder)}
        self._cluster.worker(
            self._target, model=side, num=self.workers, max_latency=LATENCY[side], **settings
        )

    def batches(self, side: str, rounds: Sequence[Outcome]) -> list[Batch]:
        """Return what the models of one side ran while loads were measured."""
        ran = sleeper.diary(self._folder / side)
        return [b for b in ran if any(each.start <= b.begin < each.end for each in rounds)]

    def callers(self, kind: str) -> contextlib.AbstractContextManager[Sides]:
        """Callers of a kind: THREADS, GEVENT, ASYNCIO or HTTP."""
        if kind == HTTP:
            return self._over_http()
        address = self._cluster.address
        if kind == ASYNCIO:
            return loads({side: (address, side) for side in LATENCY}, "tests.bench.callers")
        arguments = {
            side: ("client", json.dumps({"address": address, "model": side})) for side in LATENCY
        }
        return loads(arguments, f"tests.bench.callers_{kind}")

    @contextlib.contextmanager
    def _over_http(self) -> Iterator[Sides]:
        address = self._cluster.address
        services = [replace(web_ours.gateway(address, side), name=side) for side in LATENCY]
        with web_rounds.started(services, questions(QUESTIONS)) as servers:
            yield Sides({side: _asking_http(server) for side, server in servers.items()})


def _asking_http(server: Server) -> Ask:
    def ask(spec: Spec) -> Outcome:
        if warm_up := round(spec.warm_up):  # wrk counts from its first question on
            server.measure(spec.callers, warm_up)
        start = time.monotonic()
        found = server.measure(spec.callers, math.ceil(spec.warm_up + spec.seconds))
        return Outcome(
            found.rate,
            found.rate,
            found.p50,
            found.p99,
            math.nan,
            found.bad,
            start,
            time.monotonic(),
        )

    return ask
