"""Draws closed loops: what `returning` measured, and the gateway against mosec from `peers`.

    python -m tests.bench.returning_plots FILE.json [FOLDER]

FILE is what scripts/bench wrote; the plots go to docs/benchmarks unless another folder is given.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tests.bench.plots import FOLDER
from tests.bench.web_plots import COLOURS, MARKS

MODELS = {"slow": "50 ms + 20 µs", "sleeping": "4 ms + 20 µs"}
"""How `peers` calls the two models, and how `returning` does."""

DOOR = "HTTP"
"""Of `returning`, the one that is drawn."""


class Point(NamedTuple):
    """One load of one line.

    Attributes:
        model: its batch time in words.
        line: who is drawn.
        callers: of the closed loop.
        rate: answers a second.
        p50: milliseconds.
    """

    model: str
    line: str
    callers: int
    rate: float
    p50: float


def draw(name: str, points: Sequence[Point], folder: Path) -> Path:
    """Write the plot into the folder: a column for each model; returns the file."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.svg"
    models = [each for each in MODELS.values() if any(point.model == each for point in points)]
    # The same figures give the same bytes, so that a repository shows only what has changed.
    with matplotlib.rc_context({"svg.hashsalt": "zstreamer", "svg.fonttype": "none"}):
        figure = Figure(figsize=(9, 6), layout="constrained")
        grid = figure.subplots(2, len(models), sharex="col", squeeze=False)
        for column, model in enumerate(models):
            own = [point for point in points if point.model == model]
            _draw(grid[0][column], own, "rate")
            _draw(grid[1][column], own, "p50")
            grid[0][column].set_title(model)
            grid[1][column].set_xlabel("callers")
        grid[0][0].set_ylabel("answers per second")
        grid[1][0].set_ylabel("latency, median (ms)")
        grid[0][0].legend(frameon=False)
        figure.savefig(path, format="svg", metadata={"Date": None})
    return path


def _draw(axes: Axes, points: Sequence[Point], figure: str) -> None:
    """Draw a line for each of those who are drawn."""
    for number, line in enumerate(sorted({point.line for point in points})):
        own = sorted((p for p in points if p.line == line), key=lambda point: point.callers)
        axes.plot(
            [point.callers for point in own],
            [getattr(point, figure) for point in own],
            marker=MARKS[number % len(MARKS)],
            markersize=4,
            color=COLOURS[number % len(COLOURS)],
            label=line,
        )
    ticks = sorted({point.callers for point in points})
    axes.set_xscale("log")
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.set_ylim(bottom=0)


def points_of(text: str) -> dict[str, list[Point]]:
    """What can be drawn, by the plot's name, from a file of one report or of several.

    Raises:
        ValueError: there is nothing.
    """
    found = json.loads(text)
    drawn: dict[str, list[Point]] = {}
    for report in found if isinstance(found, list) else [found]:
        for name, point in _points(report):
            drawn.setdefault(name, []).append(point)
    if not drawn:
        raise ValueError(
            "the file has no points: it must hold `returning` with its part closed, or `peers` "
            "with its parts waits and waits-slow"
        )
    return drawn


def _points(report: Mapping[str, Any]) -> Iterator[tuple[str, Point]]:
    for each in report.get("points", []):
        if report["bench"] == "returning" and each["door"] == DOOR:
            line = {"held": "max_latency 0.1", "greedy": "max_latency 0"}[each["side"]]
            callers = each["callers"]
            yield "returning", Point(each["model"], line, callers, each["rate"], each["p50"])
        elif report["bench"] == "peers" and each.get("part") == "waits":
            model, callers = MODELS[each["model"]], each["connections"]
            yield "waits", Point(model, each["server"], callers, each["rate"], each["p50"])


def main() -> None:
    """Draw what the command line names."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.returning_plots")
    parser.add_argument("file", type=Path, help="JSON with a report of returning or of peers")
    parser.add_argument("folder", type=Path, nargs="?", default=FOLDER, help="where to draw")
    options = parser.parse_args()
    for name, points in points_of(options.file.read_text()).items():
        print(draw(name, points, options.folder))


if __name__ == "__main__":
    main()
