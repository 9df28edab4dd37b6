"""Two runs side by side."""

from __future__ import annotations

from typing import NamedTuple

from zstreamer.bench.run import Run


class Row(NamedTuple):
    """One figure of both.

    Attributes:
        step: the step that both have, or empty.
        name: of the figure.
        before, after: its value in the first and in the second run.
        better: whether the second is the better one; None where they are equal.
    """

    step: str
    name: str
    before: float
    after: float
    better: bool | None

    @property
    def ratio(self) -> float:
        """The second's share of the first; 0 where that has none."""
        return self.after / self.before if self.before else 0.0


FIGURES = (("throughput", True), ("p50", False), ("p99", False), ("p999", False))
"""What is compared of a step, and whether more is better."""


def rows(before: Run, after: Run) -> list[Row]:
    """Return the figures of all steps that both runs have, in order, and their knees."""
    found: list[Row] = []
    first, second = before.knee, after.knee
    if first is not None and second is not None:
        found.append(_row("", "knee", first.rate, second.rate, more=True))
    steps = {(step.rate, step.callers): step for step in before.steps}
    for new in sorted(after.steps, key=lambda step: (step.callers, step.rate)):
        old = steps.get((new.rate, new.callers))
        if old is None:
            continue
        for name, more in FIGURES:
            found.append(_row(new.name, name, getattr(old, name), getattr(new, name), more=more))
        failed = [step.calls - step.answered for step in (old, new)]
        if any(failed):
            found.append(_row(new.name, "errors", *map(float, failed), more=False))
    return found


def _row(step: str, name: str, before: float, after: float, *, more: bool) -> Row:
    better = None if before == after else (after > before) is more
    return Row(step, name, before, after, better)
