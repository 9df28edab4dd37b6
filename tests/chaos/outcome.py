"""What a row has found: the calls, further figures, and the promises that did not hold."""

from tests.chaos.tally import together

COLUMNS = ("calls", "answered", "errors", "hung", "wrong", "worst")


class Outcome:
    """One row of the table.

    Attributes:
        times: how many faults there were.
        calls: what became of all calls.
        figures: whatever else was measured.
        broken: the promises that did not hold, in words.
    """

    def __init__(self, row, times):
        self.row = row
        self.times = times
        self.seconds = 0.0
        self.calls = together([])
        self.figures = {}
        self.broken = []

    def check(self, holds, words):
        """A promise, and what to say where it does not hold."""
        if not holds:
            self.broken.append(words)

    def check_calls(self, *finals, errors=()):
        """Every call was answered, rightly and in time; only these errors may happen."""
        calls = self.calls = together(finals)
        for name, count in calls["errors"].items():
            words = f"{count} calls ended with {name}: {calls['words'].get(name)}"
            self.check(name in errors, words)
        self.check(not calls["hung"], f"{calls['hung']} calls hung")
        self.check(not calls["wrong"], f"{calls['wrong']} calls had wrong answers")
        self.check(calls["answered"] > 0, "no call was answered")
        left = sum(each.get("tables", 0) for each in finals)
        self.check(not left, f"{left} entries left in the clients' tables")

    def check_delay(self, extra):
        """The worst call took no more than so many seconds longer than the usual one."""
        more = self.calls["worst"] - self.calls["median"]
        self.check(more <= extra, f"worst extra delay {more:.2f} s, promised {extra:.2f} s")

    @property
    def good(self):
        return not self.broken

    def plain(self):
        """Return everything as plain values."""
        return {
            "row": self.row,
            "times": self.times,
            "seconds": round(self.seconds, 1),
            "holds": self.good,
            "broken": self.broken,
            **{name: _rounded(self.calls[name]) for name in (*COLUMNS, "median")},
            "figures": {name: _rounded(value) for name, value in self.figures.items()},
        }


def _rounded(value):
    return round(value, 3) if isinstance(value, float) else value


def table(outcomes):
    """Return the table as text."""
    head = ("row", "times", *COLUMNS, "holds", "figures")
    rows = [head]
    for outcome in outcomes:
        plain = outcome.plain()
        errors = " ".join(f"{k}:{v}" for k, v in plain["errors"].items()) or "0"
        figures = " ".join(f"{k}={v}" for k, v in plain["figures"].items())
        cells = [plain[name] if name != "errors" else errors for name in head[:-2]]
        rows.append((*map(str, cells), "yes" if outcome.good else "NO", figures))
    widths = [max(len(row[i]) for row in rows) for i in range(len(head) - 1)]
    lines = []
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, (*widths, 0), strict=True)]
        lines.append("  ".join(cells).rstrip())
    lines += [f"{each.row}: {words}" for each in outcomes for words in each.broken]
    return "\n".join(lines)
