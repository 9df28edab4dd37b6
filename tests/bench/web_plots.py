"""Draws what `web` and `peers` measured: requests a second and latency against connections.

    python -m tests.bench.web_plots FILE.json [FOLDER]

FILE is what scripts/bench wrote; the plots go to docs/benchmarks unless another folder is given.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tests.bench.plots import FOLDER, Plain, Quantity

MODEL = "sleeping"

COLOURS = ("#1b6ca8", "#d1495b", "#2e933c", "#7b4b94", "#c07c1a", "#4a4e57", "#17a2a2", "#b5651d")
MARKS = "osv^DXP*"
"""Besides their colours, for whoever cannot tell those apart."""

QUANTITIES = (
    Quantity("right answers per second", lambda point: point["rate"]),
    Quantity("latency, median (ms)", lambda point: point["p50"], log=True),
    Quantity("latency, 99th percentile (ms)", lambda point: point["p99"], log=True),
)


def draw(bench: str, points: Sequence[Plain], folder: Path) -> Path:
    """Write the plot of one benchmark, "web" or "peers", into the folder; returns the file."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{bench}.svg"
    # The same figures give the same bytes, so that a repository shows only what has changed.
    with matplotlib.rc_context({"svg.hashsalt": "zstreamer", "svg.fonttype": "none"}):
        figure = Figure(figsize=(11, 4.2), layout="constrained")
        for axes, quantity in zip(figure.subplots(1, len(QUANTITIES)), QUANTITIES, strict=True):
            _draw(axes, points, quantity)
        first, *_ = figure.axes
        figure.legend(*first.get_legend_handles_labels(), loc="outside lower center", ncols=3)
        figure.savefig(path, format="svg", metadata={"Date": None})
    return path


def _draw(axes: Axes, points: Sequence[Plain], quantity: Quantity) -> None:
    """Draw a line for each server."""
    for number, server in enumerate(dict.fromkeys(point["server"] for point in points)):
        own = sorted((p for p in points if p["server"] == server), key=lambda p: p["connections"])
        axes.plot(
            [point["connections"] for point in own],
            [quantity.of(point) for point in own],
            marker=MARKS[number % len(MARKS)],
            markersize=4,
            color=COLOURS[number % len(COLOURS)],
            label=server,
        )
    ticks = sorted({point["connections"] for point in points})
    axes.set_xscale("log")
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.minorticks_off()
    axes.set_xlabel("connections")
    axes.set_ylabel(quantity.label)
    axes.grid(alpha=0.3)
    if quantity.log:
        axes.set_yscale("log")
    else:
        axes.set_ylim(bottom=0)


def points_of(text: str) -> dict[str, list[Plain]]:
    """What can be drawn, by benchmark, from a file of one report or of several.

    These are the servers with one worker that were asked on more than one number of connections.

    Raises:
        ValueError: there are none.
    """
    found = json.loads(text)
    drawn: dict[str, list[Plain]] = {}
    for report in found if isinstance(found, list) else [found]:
        points = [each for each in report.get("points", []) if _fits(each)]
        servers = [(each["server"], each["connections"]) for each in points]
        several = {
            server for server, _ in servers if len({c for s, c in servers if s == server}) > 1
        }
        if own := [each for each in points if each["server"] in several]:
            drawn[report["bench"]] = own
    if not drawn:
        raise ValueError("the file has no points: it must hold a report of `web` or `peers`")
    return drawn


def _fits(point: Plain) -> bool:
    # Those of a part of its own are drawn by `returning_plots`.
    return point.get("model") == MODEL and point.get("workers") == 1 and "part" not in point


def main() -> None:
    """Draw what the command line names."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.web_plots")
    parser.add_argument("file", type=Path, help="JSON with a report of web or of peers")
    parser.add_argument("folder", type=Path, nargs="?", default=FOLDER, help="where to draw")
    options = parser.parse_args()
    for bench, points in points_of(options.file.read_text()).items():
        print(draw(bench, points, options.folder))


if __name__ == "__main__":
    main()
