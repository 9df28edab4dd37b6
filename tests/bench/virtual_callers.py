"""What holding is worth, in virtual time: every load, held against greedy, in a table.

    python -m tests.bench.virtual_callers [KIND…]   # closed think open mixed workers alpha change

The way back of those answered is `Way`; a think time comes on top. Figures of real processes are
those of `tests.bench.returning`.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import NamedTuple

from tests.bench.cycle import Model
from tests.bench.virtual import Figures, Load, changing, measure

HELD, GREEDY = 0.1, 0.0
"""Seconds of max_latency."""

SLOW, FAST, PER_ITEM = Model(0.050, 0.00002), Model(0.004, 0.00002), Model(0.0002, 0.0005)


class Case(NamedTuple):
    """One line of the table; ``seconds`` are virtual."""

    model: Model
    load: Load
    workers: int = 1
    seconds: float = 10.0

    def __str__(self) -> str:
        workers = f", {self.workers} workers" if self.workers > 1 else ""
        return f"{self.model}{workers}: {self.load}"


def closed() -> Iterator[Case]:
    """Callers who ask again at once."""
    for model in (SLOW, FAST):
        for callers in (1, 2, 3, 4, 8, 16, 32, 64, 96, 128, 192, 512):
            yield Case(model, Load(callers))


def think() -> Iterator[Case]:
    """Callers who think between an answer and the next item."""
    for model in (SLOW, FAST):
        for seconds in (0.001, 0.005, 0.020):
            for spread in (False, True):
                for callers in (2, 8, 32, 96):
                    yield Case(model, Load(callers, seconds, spread), seconds=20)


def arrivals() -> Iterator[Case]:
    """Poisson arrivals of single items, and of bursts."""
    for model in (SLOW, FAST):
        for share in (0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 0.75, 0.95):
            yield Case(model, Load(rate=share * model.capacity), seconds=60)
        for share in (0.05, 0.25, 0.5):
            for burst in (8, 32):
                yield Case(model, Load(rate=share * model.capacity, burst=burst), seconds=60)


def mixed() -> Iterator[Case]:
    """A closed loop beside an open one."""
    for model in (SLOW, FAST):
        for callers in (4, 16, 48):
            for share in (0.05, 0.2, 0.4):
                yield Case(model, Load(callers, rate=share * model.capacity), seconds=30)


def several() -> Iterator[Case]:
    """Several workers."""
    for workers in (2, 4):
        for callers in (8, 16, 32, 64, 96, 128, 192, 256):
            yield Case(SLOW, Load(callers), workers)
        for callers in (8, 32, 128, 256):
            yield Case(FAST, Load(callers), workers)


def per_item() -> Iterator[Case]:
    """A model whose time is nearly all per item, where no hold pays."""
    for callers in (2, 8, 32, 96):
        yield Case(PER_ITEM, Load(callers))
    for share in (0.1, 0.5, 0.9):
        yield Case(PER_ITEM, Load(rate=share * 2000))


KINDS = {
    "closed": closed,
    "think": think,
    "open": arrivals,
    "mixed": mixed,
    "workers": several,
    "alpha": per_item,
}


def changes(model: Model) -> list[Load]:
    """Return loads of very different kinds, each of which follows the one before."""
    return [
        Load(32),
        Load(rate=0.3 * model.capacity),
        Load(8),
        Load(96),
        Load(rate=0.1 * model.capacity),
        Load(16, 0.005, True),
        Load(64),
    ]


def line(case: Case) -> str:
    """Measure one case both ways; return its line."""
    found = {
        most: measure(case.load, case.model, most, case.workers, case.seconds)
        for most in (HELD, GREEDY)
    }
    held, greedy = found[HELD], found[GREEDY]
    return (
        f"{case!s:60} rate {greedy.rate:8.0f} {held.rate:8.0f}  {_ratios(held, greedy)}"
        f"  p50 {1e3 * greedy.p50:6.1f} {1e3 * held.p50:6.1f} ms"
        f"  batch {greedy.batch:5.1f} {held.batch:5.1f}"
    )


def change_lines(model: Model) -> Iterator[str]:
    """Let the loads follow each other twice; a line for each change, with each second after it."""
    loads = changes(model) * 2
    sides = (changing(loads, model, most) for most in (HELD, GREEDY))
    for load, held, greedy in zip(loads, *sides, strict=True):
        pairs = zip(held, greedy, strict=True)
        seconds = (f"second {n}: {_ratios(*pair)}" for n, pair in enumerate(pairs, 1))
        yield f"{model}, change to {load}: {'; '.join(seconds)}"


def _ratios(held: Figures, greedy: Figures) -> str:
    names = ("rate", "mean", "p50", "p99")
    return "  ".join(
        f"{name} ×{getattr(held, name) / (getattr(greedy, name) or 1):5.2f}" for name in names
    )


def main() -> None:
    """Print the table of the kinds that the command line names, all where it names none."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.virtual_callers")
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=", ".join((*KINDS, "change")))
    kinds = parser.parse_args().kinds or [*KINDS, "change"]
    if unknown := set(kinds) - {*KINDS, "change"}:
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    for kind in kinds:
        if kind == "change":
            lines = (text for model in (SLOW, FAST) for text in change_lines(model))
        else:
            lines = map(line, KINDS[kind]())
        for text in lines:
            print(text, flush=True)


if __name__ == "__main__":
    main()
