"""A run: steps one after another, until all that were asked for are done, or the knee is found."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import zstreamer
from zstreamer.bench import starts, sweep
from zstreamer.bench.load import Target, Tick, closed_loop, open_loop
from zstreamer.bench.step import Step, summary
from zstreamer.setting import ConfigError

FORM = 1
"""Of a run's JSON."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is measured.

    Attributes:
        rates: calls a second of open loops, one step each.
        callers: of closed loops, one step each. Without both, rates are swept for the knee.
        seconds: of each step.
        warm_up: seconds of one caller before the first step, which do not count.
        limit: seconds within which 99 % of the calls are to be answered, for the knee; where None,
            `sweep.FACTOR` times the median of the lowest rate.
        spaced: calls of an open loop begin at equal distances, in place of at random.
    """

    rates: Sequence[float] = ()
    callers: Sequence[int] = ()
    seconds: float = 5.0
    warm_up: float = 1.0
    limit: float | None = None
    spaced: bool = False


@dataclass(slots=True)
class Run:
    """What was measured, and on what.

    Attributes:
        target: the address or the URL.
        model: its name.
        items: of each call.
        limit: seconds, as of `Plan`.
        release: of the program that made the load.
        at: when it began, in seconds since 1970.
        steps: in the order of their measurement.
    """

    target: str
    model: str
    items: int
    limit: float | None = None
    release: str = zstreamer.__version__
    at: float = field(default_factory=time.time)
    steps: list[Step] = field(default_factory=list)

    @property
    def knee(self) -> Step | None:
        """The highest rate that can be kept up, as far as rates were measured."""
        return sweep.knee(self.steps, self.limit)

    def to_json(self) -> str:
        """Return the run as text for a file."""
        knee = self.knee
        plain: dict[str, Any] = {
            "form": FORM,
            **{name: getattr(self, name) for name in _PLAIN},
            "knee": knee.rate if knee is not None else None,
            "steps": [step.plain() for step in self.steps],
        }
        return json.dumps(plain, indent=1, ensure_ascii=False) + "\n"


_PLAIN = ("target", "model", "items", "limit", "release", "at")


def read(path: Path) -> Run:
    """Return the run in a file that `Run.to_json` filled.

    Raises:
        ConfigError: there is no such file, or no run in it.
    """
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
        if plain["form"] != FORM:
            raise ConfigError(f"{path} has form {plain['form']}; this release reads {FORM}")
        steps = [Step.of(each) for each in plain["steps"]]
        return Run(**{name: plain[name] for name in _PLAIN}, steps=steps)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path} is no run of `zstreamer bench --save`: {error!r}") from error


async def measure(
    target: Target,
    run: Run,
    plan: Plan,
    begin: Callable[[str], Tick],
    tell: Callable[[Step], object],
) -> None:
    """Measure what the plan asks for; ``run.steps`` grows by each step.

    Args:
        target: what is called.
        run: gets the steps.
        plan: what is measured.
        begin: is told what begins, and returns what is told how far it is.
        tell: is told each step when it is over.

    Raises:
        ConfigError: no call of the warm-up was answered; the message says what they met.
    """

    async def closed(callers: int) -> None:
        outcomes = await closed_loop(target, callers, plan.seconds, begin(f"{callers} callers"))
        add(summary(outcomes, plan.seconds, callers=callers))

    async def opened(rate: float) -> None:
        at = starts.even if plan.spaced else starts.poisson
        outcomes = await open_loop(target, at(rate, plan.seconds), begin(f"{rate:g} calls/s"))
        add(summary(outcomes, plan.seconds, rate=rate))

    def add(step: Step) -> None:
        run.steps.append(step)
        tell(step)

    alone = summary(await closed_loop(target, 1, plan.warm_up, begin("warm-up")), plan.warm_up)
    if not alone.answered:
        kinds = ", ".join(alone.errors) or "nothing"
        raise ConfigError(f"no call was answered while warming up; they met: {kinds}")
    for callers in plan.callers:
        await closed(callers)
    for rate in plan.rates:
        await opened(rate)
    if not plan.callers and not plan.rates:
        next_rate: float | None = sweep.first_rate(alone.p50)
        while next_rate is not None:
            await opened(next_rate)
            next_rate = sweep.next_rate(run.steps, plan.limit)
