"""What became of the calls of one step: of one rate, or of so many callers."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, NamedTuple

PERCENTILES = {"p50": 50.0, "p90": 90.0, "p95": 95.0, "p99": 99.0, "p999": 99.9}


class Outcome(NamedTuple):
    """One call; times in seconds of one monotonic clock.

    Attributes:
        intended: when it was to begin.
        began: when it did.
        ended: when its answer was there.
        error: the kind of its error; empty where it had none.
    """

    intended: float
    began: float
    ended: float
    error: str = ""


@dataclass(frozen=True, slots=True)
class Step:
    """A step and its figures; times in seconds.

    Latency is counted from the moment when the call was to begin, also where the load's own
    program or a full window let it begin later. So a stall counts for every call that it held up,
    which is the opposite of coordinated omission.

    Attributes:
        rate: calls a second that were to begin; 0 in a closed loop.
        callers: who call again once they are answered; 0 in an open loop.
        seconds: how long calls began.
        calls: that began.
        answered: of them, without an error.
        throughput: answered calls a second.
        errors: the others, by kind.
        mean, p50 … p999, max: latency of the answered.
        late: of 99 % of the calls, how much later they began than they were to.
    """

    rate: float
    callers: int
    seconds: float
    calls: int
    answered: int
    throughput: float
    errors: dict[str, int] = field(default_factory=dict)
    mean: float = 0.0
    p50: float = 0.0
    p90: float = 0.0
    p95: float = 0.0
    p99: float = 0.0
    p999: float = 0.0
    max: float = 0.0
    late: float = 0.0

    @property
    def name(self) -> str:
        """What it is called where steps are listed."""
        if self.callers:
            return f"{self.callers} caller" + "s" * (self.callers > 1)
        return f"{self.rate:g}/s"

    def plain(self) -> dict[str, Any]:
        """Return it as JSON holds it."""
        return asdict(self)

    @classmethod
    def of(cls, plain: dict[str, Any]) -> Step:
        """Return the step that `plain` made, or a later version of it."""
        return cls(**{each.name: plain[each.name] for each in fields(cls) if each.name in plain})


def percentile(ordered: Sequence[float], percent: float) -> float:
    """Return the least value that so many per cent do not exceed (nearest rank); 0 of none."""
    if not ordered:
        return 0.0
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def summary(
    outcomes: Sequence[Outcome], seconds: float, rate: float = 0.0, callers: int = 0
) -> Step:
    """Return the figures of a step.

    Args:
        outcomes: of its calls.
        seconds: how long calls began.
        rate: of an open loop.
        callers: of a closed loop.
    """
    good = [each for each in outcomes if not each.error]
    latencies = sorted(each.ended - each.intended for each in good)
    late = sorted(each.began - each.intended for each in outcomes)
    # The answers of the last calls come later, but answers do not: their flow has ended by then.
    span = max(0.0, _end(good) - _begin(outcomes) - percentile(latencies, 5))
    return Step(
        rate=rate,
        callers=callers,
        seconds=seconds,
        calls=len(outcomes),
        answered=len(good),
        throughput=len(good) / max(seconds, span),
        errors=dict(Counter(each.error for each in outcomes if each.error).most_common()),
        mean=sum(latencies) / len(latencies) if latencies else 0.0,
        max=latencies[-1] if latencies else 0.0,
        late=percentile(late, 99),
        **{name: percentile(latencies, percent) for name, percent in PERCENTILES.items()},
    )


def _begin(outcomes: Sequence[Outcome]) -> float:
    return min((each.intended for each in outcomes), default=0.0)


def _end(outcomes: Sequence[Outcome]) -> float:
    return max((each.ended for each in outcomes), default=0.0)
