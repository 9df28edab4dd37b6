"""What a benchmark found: rows with a value, a reference, and the bound that must hold."""

from __future__ import annotations

import os
import platform
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

MORE, LESS = ">=", "<="


@dataclass(frozen=True)
class Row:
    """One figure.

    Args:
        name: what was measured, and under what conditions.
        values: one for each round; the row's value is their median. None where it was not measured.
        unit: of the values.
        references: what it is compared with, one for each round; none where it stands alone.
        told: what else is known of it, in words that may differ from run to run.
        bound: what the ratio must be at least or at most (the value, where there is no reference),
            such as (">=", 3.0); None for a row that is only told.
    """

    name: str
    values: Sequence[float]
    unit: str
    references: Sequence[float] = ()
    bound: tuple[str, float] | None = None
    told: str = ""

    @property
    def value(self) -> float:
        """The median of all rounds; 0 where there were none."""
        return statistics.median(self.values) if self.values else 0.0

    @property
    def spread(self) -> float:
        """Half of the range of all rounds, as a share of the value."""
        return (max(self.values) - min(self.values)) / 2 / self.value if self.value else 0.0

    @property
    def reference(self) -> float | None:
        """The median of the reference's rounds."""
        return statistics.median(self.references) if self.references else None

    @property
    def ratio(self) -> float | None:
        """The median of the rounds' own ratios: both sides of each were measured together."""
        if not self.references or not self.values:
            return None
        pairs = zip(self.values, self.references, strict=True)
        return statistics.median(value / reference for value, reference in pairs)

    @property
    def holds(self) -> bool | None:
        """Whether the bound holds; None where there is none."""
        if self.bound is None or not self.values:
            return None
        sign, limit = self.bound
        found = self.value if self.ratio is None else self.ratio
        return found >= limit if sign == MORE else found <= limit

    def plain(self) -> dict[str, object]:
        """Return the row in plain values, for JSON."""
        return {
            "name": self.name,
            "value": self.value if self.values else None,
            "unit": self.unit,
            "spread": self.spread,
            "reference": self.reference,
            "ratio": self.ratio,
            "bound": " ".join(map(str, self.bound)) if self.bound else None,
            "holds": self.holds,
            "told": self.told,
        }

    def __str__(self) -> str:
        return f"{self.name}: {self.told}" if self.told else self.name


@dataclass
class Report:
    """All rows of one benchmark, as they come; ``notes`` are told below the table.

    points: figures for plots, in plain values; they go into the JSON alone.
    error: why the benchmark itself failed, if it did.
    """

    bench: str
    rows: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    points: list[dict[str, object]] = field(default_factory=list)
    error: str = ""

    def add(self, row: Row) -> None:
        """Add a row, and tell who waits at the terminal that it is there."""
        self.rows.append(row)
        print(f"  {in_figures(row.value)} {row.unit}  {row}", file=sys.stderr, flush=True)

    @property
    def good(self) -> bool:
        """Whether every bound holds, and the benchmark came to its end."""
        return not self.error and all(row.holds is not False for row in self.rows)

    def plain(self) -> dict[str, object]:
        """Return the report in plain values, for JSON."""
        return {
            "bench": self.bench,
            "machine": machine(),
            "rows": [row.plain() for row in self.rows],
            "notes": self.notes,
            "points": self.points,
            "error": self.error,
        }


def machine() -> str:
    """Say in words what this runs on."""
    model = platform.processor() or platform.machine()
    try:
        with Path("/proc/cpuinfo").open() as file:
            model = next(line.split(":")[1].strip() for line in file if "model name" in line)
    except (OSError, StopIteration):
        pass
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{model}, {cores} cores, Python {platform.python_version()}, {platform.system()}"


COLUMNS = ("value", "unit", "spread", "reference", "ratio", "bound", "holds", "what")


def table(report: Report) -> str:
    """Return a report as text: a line for each row, its name last since names are long."""
    lines = [COLUMNS, *map(_cells, report.rows)]
    widths = [max(len(line[n]) for line in lines) for n in range(len(COLUMNS) - 1)]
    texts = [f"{report.bench} on {machine()}"]
    for line in lines:
        cells = [cell.rjust(width) for cell, width in zip(line, (*widths, 0), strict=True)]
        texts.append("  ".join(cells).rstrip())
    texts += [f"* {note}" for note in report.notes]
    if report.error:
        texts.append(f"* the benchmark itself failed: {report.error}")
    return "\n".join(texts)


def _cells(row: Row) -> tuple[str, ...]:
    if not row.values:
        return "", "", "", "", "", "", "", f"{row} (not measured)"
    return (
        in_figures(row.value),
        row.unit,
        f"±{row.spread:.0%}",
        in_figures(row.reference),
        in_figures(row.ratio),
        " ".join(map(str, row.bound)) if row.bound else "",
        {True: "yes", False: "NO", None: ""}[row.holds],
        str(row),
    )


def in_figures(value: float | None) -> str:
    """Return a number in three figures, or all of them before its point; nothing for None."""
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 999.5 else f"{value:.3g}"
