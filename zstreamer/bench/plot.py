"""A run as a picture: latency over the rate of calls, or the number of callers. SVG, no library."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from zstreamer.bench.run import Run
from zstreamer.bench.step import Step

WIDTH, HEIGHT = 720, 420
LEFT, RIGHT, TOP, BOTTOM = 70, 90, 50, 50
LINES = (("p50", "#4c78a8"), ("p95", "#f58518"), ("p99", "#e45756"))
"""What is drawn, and its colour."""


class Axis:
    """A logarithmic axis, with a tick at 1, 2 and 5 of each decade.

    Args:
        values: that it must show.
        start, end: where the least and the largest lie, in pixels.
    """

    def __init__(self, values: Sequence[float], start: float, end: float) -> None:
        low, high = min(values), max(values)
        self._low, self._high = math.log10(low / 1.2), math.log10(high * 1.2)
        self._start, self._end = start, end

    def at(self, value: float) -> float:
        """Return the place of a value."""
        share = (math.log10(value) - self._low) / (self._high - self._low)
        return self._start + share * (self._end - self._start)

    def ticks(self) -> list[float]:
        """Return the values that have a tick."""
        decades = range(math.floor(self._low), math.ceil(self._high))
        found = [unit * 10.0**decade for decade in decades for unit in (1, 2, 5)]
        return [each for each in found if self._low <= math.log10(each) <= self._high]


def svg(run: Run) -> str:
    """Return the picture; of the open loops where there are any, else of the closed ones."""
    opened = any(step.rate for step in run.steps)
    steps = [step for step in run.steps if step.answered and bool(step.rate) is opened]
    steps.sort(key=_place)
    title = f"{run.model} at {run.target}"
    if not steps:
        return _page(title, [_text(WIDTH / 2, HEIGHT / 2, "no call was answered")])
    across = Axis([_place(step) for step in steps], LEFT, WIDTH - RIGHT)
    values = [max(getattr(step, name), 1e-6) for step in steps for name, _ in LINES]
    up = Axis(values, HEIGHT - BOTTOM, TOP)
    parts = [*_grid(across, up), _text(WIDTH / 2, HEIGHT - 10, "calls/s" if opened else "callers")]
    for name, colour in LINES:
        points = [(across.at(_place(s)), up.at(max(getattr(s, name), 1e-6))) for s in steps]
        parts.append(_line(points, colour))
        parts.append(_text(points[-1][0] + 8, points[-1][1] + 4, name, "start", colour))
    if run.knee is not None:
        x = across.at(run.knee.rate)
        parts.append(f'<path d="M{x:.1f} {TOP}V{HEIGHT - BOTTOM}" stroke="#54a24b"/>')
        parts.append(_text(x, TOP - 6, f"knee {run.knee.name}", colour="#54a24b"))
    return _page(title, parts)


def _place(step: Step) -> float:
    return step.rate or step.callers


def _grid(across: Axis, up: Axis) -> list[str]:
    parts = []
    for value in across.ticks():
        x = across.at(value)
        parts.append(f'<path d="M{x:.1f} {TOP}V{HEIGHT - BOTTOM}" stroke="#ddd"/>')
        parts.append(_text(x, HEIGHT - BOTTOM + 18, f"{value:g}"))
    for value in up.ticks():
        y = up.at(value)
        parts.append(f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="#ddd"/>')
        words = f"{value:g} s" if value >= 1 else f"{1000 * value:g} ms"
        parts.append(_text(LEFT - 8, y + 4, words, "end"))
    return parts


def _line(points: Sequence[tuple[float, float]], colour: str) -> str:
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    dots = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3"/>' for x, y in points)
    line = f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>'
    return f'{line}<g fill="{colour}">{dots}</g>'


def _text(x: float, y: float, words: str, anchor: str = "middle", colour: str = "#333") -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}"'
    return f"<text {place}>{escape(words)}</text>"


def _page(title: str, parts: Sequence[str]) -> str:
    size = f'viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}"'
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        _text(WIDTH / 2, 22, title),
        *parts,
        "</svg>",
    ]
    return "\n".join(lines) + "\n"
