"""What became of calls, counted by those who made them."""

import math
from array import array
from collections import Counter

LATE = 2.0
"""Seconds after its deadline at which a call without an outcome counts as hung."""


class Tally:
    """The calls of one thread, or the sum of several threads' calls.

    Attributes:
        delays: seconds of each answered call.
        refused: seconds until each refusal.
    """

    def __init__(self):
        self.calls = 0
        self.answered = 0
        self.items = 0
        self.hung = 0
        self.wrong = 0
        self.errors = Counter()
        self.words = {}
        self.delays = array("d")
        self.refused = array("d")

    def answer(self, seconds, items, *, right):
        """A call of so many items was answered."""
        self.answered += 1
        self.items += items
        self.wrong += not right
        self.delays.append(seconds)

    def fail(self, seconds, error):
        """A call has ended with an error."""
        name = type(error).__name__
        self.errors[name] += 1
        self.words.setdefault(name, str(error)[:200])
        if name == "Overloaded":
            self.refused.append(seconds)

    def add(self, other):
        """Count another's calls as well."""
        for name in ("calls", "answered", "items", "hung", "wrong"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.errors.update(other.errors)
        self.words.update(other.words)
        self.delays.extend(other.delays)
        self.refused.extend(other.refused)

    def summary(self):
        """Return the figures as plain values; times in seconds."""
        return {
            "calls": self.calls,
            "answered": self.answered,
            "items": self.items,
            "errors": dict(self.errors),
            "hung": self.hung,
            "wrong": self.wrong,
            "worst": max(self.delays, default=0.0),
            "median": quantile(self.delays, 0.5),
            "words": self.words,
            "refused_worst": max(self.refused, default=0.0),
            "refused_p99": quantile(self.refused, 0.99),
        }


def quantile(values, share):
    """The smallest value that such a share of all does not exceed; 0 where there is none."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else 0.0


def together(summaries):
    """Return the sum of several programs' summaries."""
    total = dict.fromkeys(("calls", "answered", "items", "hung", "wrong"), 0)
    for name in total:
        total[name] = sum(each[name] for each in summaries)
    for name in ("worst", "median", "refused_worst", "refused_p99"):
        total[name] = max((each[name] for each in summaries), default=0.0)
    total["errors"] = dict(sum((Counter(each["errors"]) for each in summaries), Counter()))
    total["words"] = {k: v for each in summaries for k, v in each["words"].items()}
    return total
