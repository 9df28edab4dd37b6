"""Draws what `tests.bench.fill` measured: throughput, latency, batches and busy time against load.

    python -m tests.bench.plots FILE.json [FOLDER]

FILE is what scripts/bench wrote; the plots go to docs/benchmarks unless another folder is given.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tests.bench.point import CAPACITY, CLOSED, OPEN

FOLDER = Path(__file__).parent.parent.parent / "docs" / "benchmarks"

COLOURS = ("#1b6ca8", "#d1495b", "#2e933c", "#7b4b94")
"""For 1, 2, 4 and 8 workers; they differ in lightness too."""

APART = 1.25
"""Between two loads that are both written at the axis, as a factor."""

Plain = Mapping[str, Any]


class Quantity(NamedTuple):
    """What one plot shows.

    of: takes a point in plain values and returns what is drawn.
    log: whether the axis is logarithmic.
    """

    label: str
    of: Callable[[Plain], float]
    log: bool = False


QUANTITIES = {
    "throughput": Quantity("answers per second", lambda point: point["answered"]),
    "latency": Quantity(
        "added latency, median (ms)", lambda point: point["added"]["median"], log=True
    ),
    "batches": Quantity("items in a batch, mean", lambda point: point["batch"]),
    "busy": Quantity("share of time in predict", lambda point: _mean(point["busy"])),
}


def draw(points: Sequence[Plain], folder: Path) -> list[Path]:
    """Write a plot for each quantity into the folder; returns the files."""
    folder.mkdir(parents=True, exist_ok=True)
    # The same figures give the same bytes, so that a repository shows only what has changed.
    with matplotlib.rc_context({"svg.hashsalt": "zstreamer", "svg.fonttype": "none"}):
        return [
            _draw(points, quantity, folder / f"{name}.svg") for name, quantity in QUANTITIES.items()
        ]


def _draw(points: Sequence[Plain], quantity: Quantity, path: Path) -> Path:
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    for axes, loop in zip(figure.subplots(1, 2, sharey=True), (OPEN, CLOSED), strict=True):
        _lines(axes, [point for point in points if point["loop"] == loop], quantity)
        axes.set_title(f"{loop} loop")
        axes.set_xlabel(_load(loop))
    first, *_ = figure.axes
    first.set_ylabel(quantity.label)
    first.legend(title="workers", frameon=False)
    figure.savefig(path, format="svg", metadata={"Date": None})
    return path


def _lines(axes: Axes, points: Sequence[Plain], quantity: Quantity) -> None:
    """Draw a line for each number of workers."""
    for number, workers in enumerate(sorted({point["workers"] for point in points})):
        own = sorted((p for p in points if p["workers"] == workers), key=lambda p: p["load"])
        axes.plot(
            [point["load"] for point in own],
            [quantity.of(point) for point in own],
            marker="o",
            markersize=3,
            color=COLOURS[number % len(COLOURS)],
            label=str(workers),
        )
    axes.set_xscale("log")
    ticks = _apart({point["load"] for point in points})
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    if quantity.log:
        axes.set_yscale("log")
    else:
        axes.set_ylim(bottom=0)


def _apart(loads: Iterable[int]) -> list[int]:
    """Those whose labels do not touch: the highest, and each next far enough below."""
    kept: list[int] = []
    for load in sorted(loads, reverse=True):
        if not kept or load <= kept[-1] / APART:
            kept.append(load)
    return kept


def _load(loop: str) -> str:
    if loop == OPEN:
        return f"offered load (%; 100 % = {CAPACITY:,d} items/s)"
    return "callers (%; 100 % = four batches a worker)"


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def points_of(text: str) -> list[Plain]:
    """The points in a file of one report or of several.

    Raises:
        ValueError: there are none.
    """
    found = json.loads(text)
    reports = found if isinstance(found, list) else [found]
    points = [point for report in reports for point in report.get("points", [])]
    if not points:
        raise ValueError("the file has no points: it must hold a report of `fill`")
    return points


def main() -> None:
    """Draw what the command line names."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.plots")
    parser.add_argument("file", type=Path, help="JSON with the report of fill")
    parser.add_argument("folder", type=Path, nargs="?", default=FOLDER, help="where to draw")
    options = parser.parse_args()
    for path in draw(points_of(options.file.read_text()), options.folder):
        print(path)


if __name__ == "__main__":
    main()
