"""Open and closed loops of calls, in the running event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from zstreamer.bench.step import Outcome

MOST_OPEN = 20_000
"""Calls that may be open at once; further ones do not begin, and count as failed."""

NOT_STARTED = "not_started"

BREATH = 16
"""Calls that are begun at once where the loop is behind, before it looks at answers."""

Tick = Callable[[float], object]
"""Is told which share of a step is over."""


class CallFailed(Exception):
    """A call has failed; its text is the kind of the error, one of a few words."""


class Target(Protocol):
    """What is called."""

    async def call(self) -> None:
        """Make one call, and wait for its answer.

        Raises:
            CallFailed: it has failed.
        """


async def open_loop(target: Target, starts: Sequence[float], tick: Tick) -> list[Outcome]:
    """Begin calls at these seconds from now, whatever becomes of earlier ones; wait for all."""
    loop = asyncio.get_running_loop()
    outcomes: list[Outcome] = []
    open_calls: set[asyncio.Task[None]] = set()
    begin = loop.time()
    for number, start in enumerate(starts):
        intended = begin + start
        if (wait := intended - loop.time()) > 0:
            await asyncio.sleep(wait)
            tick(start / starts[-1])
        elif number % BREATH == 0:
            await asyncio.sleep(0)
        if len(open_calls) >= MOST_OPEN:
            now = loop.time()
            outcomes.append(Outcome(intended, now, now, NOT_STARTED))
            continue
        task = asyncio.create_task(_one(target, intended, outcomes))
        open_calls.add(task)
        task.add_done_callback(open_calls.discard)
    await _all(list(open_calls))
    return outcomes


async def closed_loop(target: Target, callers: int, seconds: float, tick: Tick) -> list[Outcome]:
    """Have so many callers call again and again, each once it is answered; wait for all."""
    loop = asyncio.get_running_loop()
    outcomes: list[Outcome] = []
    begin = loop.time()

    async def caller() -> None:
        while (now := loop.time()) < begin + seconds:
            await _one(target, now, outcomes)

    tasks = [asyncio.create_task(caller()) for _ in range(callers)]
    while (elapsed := loop.time() - begin) < seconds:
        tick(elapsed / seconds)
        await asyncio.sleep(min(0.1, seconds - elapsed))
    await _all(tasks)
    return outcomes


async def _all(tasks: Sequence[Awaitable[None]]) -> None:
    await asyncio.gather(*tasks)


async def _one(target: Target, intended: float, outcomes: list[Outcome]) -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    error = ""
    try:
        await target.call()
    except CallFailed as failure:
        error = str(failure)
    outcomes.append(Outcome(intended, began, loop.time(), error))
