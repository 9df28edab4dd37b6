"""What holding is worth for callers who return: max_latency of 0.1 s against 0, in turns.

    scripts/bench returning --seconds 2                      # a quarter of an hour
    scripts/bench returning --parts closed,open

Models sleep β + α·n (`tests.bench.sleeper`), so that they cost no CPU. Callers are threads with a
`Client`, and in closed loops also greenlets, and connections of wrk to a gateway.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable, Mapping, Sequence

from tests.bench import sides, web_rounds
from tests.bench.callers import Spec
from tests.bench.cycle import BATCH, Model, WayBack
from tests.bench.report import LESS, MORE, Report, Row
from tests.bench.sides import (
    ASYNCIO,
    GEVENT,
    GREEDY,
    HELD,
    HTTP,
    ITEM,
    THREADS,
    Found,
    Sides,
    Stage,
)
from tests.bench.sleeper import Batch

SLOW, FAST, PER_ITEM = Model(0.050, 0.00002), Model(0.004, 0.00002), Model(0.0002, 0.0005)

DOORS = (THREADS, GEVENT, HTTP)

Bounds = Mapping[str, tuple[str, float] | None]
"""Of the ratio of held to greedy, by figure: rate, p50, p99 or mean; None where it is only told."""

CLOSED: dict[Model, dict[int, Bounds]] = {
    SLOW: {
        8: {"rate": (MORE, 1.7), "p50": (LESS, 0.65)},
        16: {"rate": (MORE, 1.7), "p50": (LESS, 0.65)},
        32: {"rate": (MORE, 1.7), "p50": (LESS, 0.65)},
        64: {"rate": (MORE, 1.7), "p50": (LESS, 0.65)},
        96: {"rate": (MORE, 1.2)},
    },
    FAST: {
        8: {"rate": (MORE, 1.5)},
        16: {"rate": (MORE, 1.3)},
        32: {"rate": (MORE, 1.08)},
        **{callers: {"rate": (MORE, 0.99)} for callers in (64, 96, 128, 512)},
    },
}

NOT_WORSE: Bounds = {"rate": (MORE, 0.98)}
THINKING: Bounds = {**NOT_WORSE, "mean": (LESS, 1.05)}
ARRIVING: Bounds = {"mean": (LESS, 1.03), "p99": (LESS, 1.03)}

OF_FORMULA = (MORE, 0.9)

THINKERS = 16
THINKS = (0.001, 0.005, 0.020)

SHARES = (0.05, 0.25, 0.5, 0.75, 0.95)
"""Of what full batches answer."""

LEAST_ITEMS = 400
"""Of an open loop in a round, or its p99 is nothing but its slowest item."""

REACHED = 0.9
"""The share of its rate that an open loop must make in each round, or it is not judged."""

TOGETHER = 0.8
"""Where greedy batches have more than this share of the callers, nobody is left to be waited for:
greenlets that are answered together may also ask again together, time after time. Likewise where
greedy workers happen to reach this share of the limit: callers may fall into step with them."""

SETTLING, LEAST_SETTLING = 14, 0.25
"""Full batches, and at least so many seconds, before a window."""

TO_CHANGE = 1.0
"""Seconds after which a load of another kind must have its own figures."""

ROUNDS, FEWER_ROUNDS = 3, 2

UNITS = {"rate": "items/s", "p50": "ms", "p99": "ms", "mean": "ms"}


def run(seconds: float, parts: Sequence[str] = ()) -> Report:
    """Measure each figure for about so many seconds.

    parts: names of `Bench.parts`; all where none is given.
    """
    report = Report("returning")
    every = Bench(report, seconds).parts()
    return web_rounds.all_parts(report, web_rounds.chosen(every, parts))


class Bench:
    """The parts of the benchmark.

    Args:
        report: gets the rows.
        seconds: of each figure.
    """

    def __init__(self, report: Report, seconds: float) -> None:
        self.report = report
        self.seconds = seconds
        self._backs = {door: WayBack() for door in DOORS}

    def parts(self) -> dict[str, Callable[[], None]]:
        """Return them by name, in the order in which they run."""
        return {
            "closed": self.closed,
            "think": self.think,
            "open": self.open,
            "workers": self.workers,
            "per-item": self.per_item,
            "change": self.change,
            "streamers": self.streamers,
            "bert": self.bert,
        }

    def closed(self) -> None:
        """Callers who ask again at once, through each door, against what the formula gives."""
        for model in CLOSED:
            with Stage(model) as stage:
                for door in DOORS:
                    with stage.callers(door) as callers:
                        found = self._closed(stage, callers, model, door)
                    self._against_formula(model, door, found)

    def think(self) -> None:
        """Callers who think between an answer and the next item."""
        for model in (SLOW, FAST):
            with Stage(model) as stage, stage.callers(THREADS) as callers:
                for think in THINKS:
                    for spread in (False, True):
                        spec = self._spec(model, callers=THINKERS, think=think, spread=spread)
                        kind = "exponential" if spread else "constant"
                        name = f"{THINKERS} callers that think {1e3 * think:g} ms, {kind}"
                        self._measure(callers, f"{model}, {name}", spec, THINKING)

    def open(self) -> None:
        """Arrivals that do not wait for answers, alone and beside callers who do."""
        for model in (SLOW, FAST):
            with Stage(model) as stage:
                with stage.callers(ASYNCIO) as callers:  # which make the most arrivals
                    self._arrivals(callers, model)
                with stage.callers(THREADS) as callers:
                    self._beside(callers, model)

    def _arrivals(self, callers: Sides, model: Model) -> None:
        for share in SHARES:
            spec = self._open(model, share)
            self._measure(callers, f"{model}, open, {share:.0%}", spec, ARRIVING)
        spec = self._open(model, 0.25, burst=16)
        self._measure(callers, f"{model}, open, 25%, bursts of 16", spec, ARRIVING)

    def _beside(self, callers: Sides, model: Model) -> None:
        for number, share in ((16, 0.2), (48, 0.05)):
            spec = self._open(model, share, callers=number)
            name = f"{model}, {number} callers beside open, {share:.0%}"
            self._measure(callers, name, spec, ARRIVING)

    def workers(self) -> None:
        """Several workers of the slow model."""
        for workers in (2, 4):
            with Stage(SLOW, workers) as stage, stage.callers(THREADS) as callers:
                for number in (8, 32, 64, 128, 256):
                    self._at_workers(callers, workers, number)

    def _at_workers(self, callers: Sides, workers: int, number: int) -> None:
        found = callers.measure(self._spec(SLOW, callers=number), FEWER_ROUNDS)
        limit = number / SLOW(min(BATCH, number / workers))  # were there no way back
        greedy = statistics.median(outcome.rate for outcome in found[GREEDY])
        few = number < BATCH * workers / 2
        bounds: Bounds = {"rate": (MORE, 1.25)} if few else NOT_WORSE
        name = f"{SLOW}, {workers} workers, {number} callers"
        if few and greedy > TOGETHER * limit:
            name = f"{name} (greedy is at {greedy / limit:.0%} of the limit by itself)"
            bounds = NOT_WORSE
        self._add(name, found, bounds)
        rates = [outcome.rate for outcome in found[HELD]]
        self.report.add(Row(f"{name}, against the limit", rates, "items/s", [limit] * len(rates)))

    def per_item(self) -> None:
        """A model whose time is nearly all per item, where no hold pays."""
        with Stage(PER_ITEM) as stage, stage.callers(THREADS) as callers:
            for number in (8, 32):
                spec = self._spec(PER_ITEM, callers=number)
                self._measure(callers, f"{PER_ITEM}, {number} callers", spec, NOT_WORSE)
            spec = self._open(PER_ITEM, 0.5)
            self._measure(callers, f"{PER_ITEM}, open, 50%", spec, NOT_WORSE)

    def change(self) -> None:
        """A load that changes its kind: its figures after the first second."""
        closed = CLOSED[SLOW]
        kinds: list[tuple[str, Spec, Bounds]] = [
            ("32 callers", self._spec(SLOW, callers=32), closed[32]),
            ("open, 30%", self._open(SLOW, 0.3), ARRIVING),
            ("8 callers", self._spec(SLOW, callers=8), closed[8]),
            ("96 callers", self._spec(SLOW, callers=96), closed[96]),
            ("open, 10%", self._open(SLOW, 0.1), ARRIVING),
            ("16 callers that think 5 ms", self._spec(SLOW, callers=16, think=0.005), THINKING),
            ("64 callers", self._spec(SLOW, callers=64), closed[64]),
        ]
        for _, spec, _ in kinds:
            spec.warm_up = TO_CHANGE
        with Stage(SLOW) as stage, stage.callers(THREADS) as callers:
            found = callers.in_a_row([spec for _, spec, _ in kinds], FEWER_ROUNDS)
        for (kind, _, bounds), each in zip(kinds, found, strict=True):
            title = f"{SLOW}, {TO_CHANGE:g} s after a change to {kind}"
            self._add(title, each, bounds)

    def streamers(self) -> None:
        """`ThreadedStreamer` and `Streamer`, with the callers in threads of the same program."""
        for streamer in ("ThreadedStreamer", "Streamer"):
            for model, points in CLOSED.items():
                arguments = {
                    side: (streamer, _settings(model, max_latency=seconds))
                    for side, seconds in sides.LATENCY.items()
                }
                with sides.loads(arguments, "tests.bench.callers_threads") as callers:
                    for number in (8, 32):
                        spec = self._spec(model, callers=number)
                        name = f"{model}, {streamer}, {number} callers"
                        self._measure(callers, name, spec, points[number])

    def bert(self) -> None:
        """The real small BERT, whose batches cost CPU."""
        from examples.bert_model import SMALL_BERT  # and torch, which nothing else here needs
        from tests.bench import bert
        from zstreamer.system import cpus

        kwargs = {"name": SMALL_BERT, "dtype": bert.cpu_dtype(), "threads": cpus.share(1)}
        target = "examples.bert_model:ManagedBertModel"
        texts = [bert.text(bert.MEDIAN)]
        with Stage(target=target, init_kwargs=kwargs) as stage:
            with stage.callers(THREADS) as callers:
                for number in (16, 32):
                    spec = self._spec(SLOW, callers=number, items=texts)
                    bounds = dict.fromkeys(("rate", "p50"))
                    self._measure(callers, f"small BERT, {number} callers", spec, bounds)

    # Loads

    def _spec(self, model: Model, rounds: int = FEWER_ROUNDS, **load: object) -> Spec:
        warm_up = max(LEAST_SETTLING, SETTLING * model(BATCH))
        return Spec(warm_up=warm_up, seconds=self.seconds / rounds, **{"items": [ITEM], **load})

    def _open(self, model: Model, share: float, **load: object) -> Spec:
        spec = self._spec(model, rate=share * model.capacity, **load)
        spec.seconds = max(spec.seconds, LEAST_ITEMS / spec.rate)
        return spec

    # Rows

    def _measure(self, callers: Sides, name: str, spec: Spec, bounds: Bounds) -> None:
        found = callers.measure(spec, FEWER_ROUNDS)
        made = min(each.made for side in found.values() for each in side)
        if made < least_made(spec):
            name = f"{name} (not reached: {made:,.0f} of {spec.rate:,.0f} items/s)"
            bounds = dict.fromkeys(bounds)
        self._add(name, found, bounds)

    def _add(self, name: str, found: Found, bounds: Bounds) -> None:
        for row in compared(name, found, bounds):
            self.report.add(row)

    def _closed(self, stage: Stage, callers: Sides, model: Model, door: str) -> dict[int, Found]:
        found = {}
        for number, bounds in CLOSED[model].items():
            spec = self._spec(model, ROUNDS, callers=number)
            found[number] = each = callers.measure(spec, ROUNDS)
            name = f"{model}, {door}, {number} callers"
            batch = mean_items(stage.batches(GREEDY, each[GREEDY]))
            if TOGETHER * number < batch < BATCH:
                name = f"{name} (greedy batches of {batch:.1f}: they came together by themselves)"
                bounds = dict.fromkeys(bounds)
            self._add(name, each, bounds)
            self.report.points += points(each, door=door, model=str(model), callers=number)
            # The fast model's callers may not be worth waiting for, so it shows no way back.
            if model is SLOW and number <= BATCH:
                held, greedy = (stage.batches(side, each[side]) for side in (HELD, GREEDY))
                self._backs[door].saw(number, model, held, greedy)
        return found

    def _against_formula(self, model: Model, door: str, found: Mapping[int, Found]) -> None:
        back = self._backs[door]
        for number, seconds in back.seconds.items() if model is SLOW else ():
            name = f"way back, {door}, {number} callers: from a batch's end to the next one's begin"
            self.report.add(Row(name, [1e3 * seconds], "ms"))
        for number, sides_of in found.items():
            rates = [outcome.rate for outcome in sides_of[HELD]]
            name = f"{model}, {door}, {number} callers, against the formula with this way back"
            if best := back.best_rate(number, model):
                bests = [best] * len(rates)
                self.report.add(Row(name, rates, "items/s", bests, OF_FORMULA))


def compared(name: str, found: Found, bounds: Bounds) -> list[Row]:
    """A row for each figure that has a bound, and one for errors where there were any."""
    held, greedy = found[HELD], found[GREEDY]
    rows = []
    for figure, bound in bounds.items():
        values, references = ([getattr(each, figure) for each in side] for side in (held, greedy))
        title, told = (name, _medians(found)) if figure == "rate" else (f"{name}, {figure}", "")
        rows.append(Row(title, values, UNITS[figure], references, bound, told))
    if bad := sum(each.bad for side in (held, greedy) for each in side):
        rows.append(Row(f"{name}: errors", [bad], "items", bound=(LESS, 0)))
    return rows


def least_made(spec: Spec) -> float:
    """Return the items a second below which an open loop was not made; 0 for none."""
    items = spec.rate * spec.seconds
    by_chance = 2 * math.sqrt(items * spec.burst)  # arrivals vary: two standard deviations
    return max(0.0, REACHED * (items - by_chance)) / spec.seconds


def mean_items(batches: Sequence[Batch]) -> float:
    """Return how many items a batch had."""
    return statistics.fmean(batch.items for batch in batches) if batches else 0.0


def points(found: Found, **common: object) -> list[dict[str, object]]:
    """A point for the plot of each side."""
    return [
        {
            **common,
            "side": side,
            "rate": statistics.median(each.rate for each in outcomes),
            "p50": statistics.median(each.p50 for each in outcomes),
        }
        for side, outcomes in found.items()
    ]


def _medians(found: Found) -> str:
    held, greedy = (statistics.median(each.p50 for each in found[side]) for side in (HELD, GREEDY))
    return f"p50 {held:.1f} against {greedy:.1f} ms"


def _settings(model: Model, **settings: float) -> str:
    return json.dumps({"beta": model.beta, "alpha": model.alpha, "settings": settings})
