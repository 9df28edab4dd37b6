"""The program that makes load: single items, sent by one asyncio client.

    python -m tests.bench.callers ADDRESS MODEL [TENANT]

Each line of its input is a `Spec` as JSON, each line of its output the `Tally` of that load.

open loop     items at random moments (Poisson), at a rate that heeds no answer
closed loop   callers that each send an item, wait for its answer, think, and send the next

Callers in threads and in greenlets are in `tests.bench.callers_threads`.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import json
import random
import sys
import time
from collections import Counter
from dataclasses import dataclass, field

from zstreamer.aio import Client
from zstreamer.errors import ZStreamerError

PAUSE = 0.005
"""Seconds before a caller goes on after an error: a refusal must not become a busy loop."""


@dataclass
class Spec:
    """One load.

    Args:
        rate: items a second of an open loop; 0 for none.
        burst: items that the open loop sends together.
        callers: of a closed loop; it may run beside the open one.
        think: mean seconds between an answer and the next item; 0 for none.
        spread: whether the think time is exponential, else constant.
        seed: of what is random, so that two loads are alike; None for another one each time.
        warm_up: seconds before the window.
        seconds: length of the window, in which figures are taken.
        timeout: seconds that an item may take.
        items: to be sent in turn.
    """

    rate: float = 0.0
    burst: int = 1
    callers: int = 0
    think: float = 0.0
    spread: bool = True
    seed: int | None = None
    warm_up: float = 0.5
    seconds: float = 1.0
    timeout: float = 20.0
    items: list[object] = field(default_factory=lambda: [1])

    def pause(self, chance: random.Random) -> float:
        """Return the seconds that a caller thinks this time."""
        think = self.think
        return chance.expovariate(1 / think) if think and self.spread else think


@dataclass
class Tally:
    """What became of a load.

    Attributes:
        start, end: the window, in monotonic seconds.
        made: items sent in the window.
        answered: answers that came in the window.
        before, last: when the last answer before the window came, and the last one in it; answers
            come in batches, so that a rate is best taken between two of them.
        latencies: microseconds from sending to answer, of the items that were sent in the window.
        beyond: the same less what the model says that its batch took, where it says so.
        errors: how many items ended in which, at any time.
    """

    start: float
    end: float
    made: int = 0
    answered: int = 0
    before: float = 0.0
    last: float = 0.0
    latencies: list[int] = field(default_factory=list)
    beyond: list[int] = field(default_factory=list)
    errors: dict[str, int] = field(default_factory=Counter)

    @property
    def rate(self) -> float:
        """Answers a second."""
        if self.before and self.last:
            return self.answered / (self.last - self.before)
        return self.answered / (self.end - self.start)

    def answer(self, sent: float, now: float, output: object) -> None:
        """An item that was sent then has its answer now."""
        if now < self.start:
            self.before = now
        elif now < self.end:
            self.answered += 1
            self.last = now
        if self.start <= sent < self.end:
            self.latencies.append(int(1e6 * (now - sent)))
            if type(output) is float:
                self.beyond.append(int(1e6 * (now - sent - output)))


class Work:
    """One load being made by a client."""

    def __init__(self, client: Client, spec: Spec) -> None:
        start = time.monotonic() + spec.warm_up
        self.tally = Tally(start, start + spec.seconds)
        self._client = client
        self._spec = spec
        self._items = itertools.cycle(spec.items)
        self._random = random.Random(spec.seed)
        self._open: set[asyncio.Future[bool]] = set()

    async def run(self) -> Tally:
        """Make the load, and wait for the answers that are still to come."""
        loops = [self._caller() for _ in range(self._spec.callers)]
        if self._spec.rate:
            loops.append(self._arrivals())
        await asyncio.gather(*loops)
        if self._open:
            await asyncio.wait(self._open)
        return self.tally

    async def _arrivals(self) -> None:
        # Of its own: a closed loop beside it must not change when its items come.
        chance = random.Random(self._spec.seed)
        burst = self._spec.burst
        now = due = time.monotonic()
        while now < self.tally.end:
            while due <= now:
                due += chance.expovariate(self._spec.rate / burst)
                for _ in range(burst):
                    task = asyncio.ensure_future(self._send())
                    self._open.add(task)
                    task.add_done_callback(self._open.discard)
            # A whole turn of the loop at least, or a client that lags would never read answers.
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            now = time.monotonic()

    async def _caller(self) -> None:
        while time.monotonic() < self.tally.end:
            pause = self._spec.pause(self._random) if await self._send() else PAUSE
            if pause:
                await asyncio.sleep(pause)

    async def _send(self) -> bool:
        """Send one item; returns whether it was answered."""
        sent = time.monotonic()
        self.tally.made += self.tally.start <= sent < self.tally.end
        try:
            [output] = await self._client.predict([next(self._items)], timeout=self._spec.timeout)
        except ZStreamerError as error:
            self.tally.errors[type(error).__name__] += 1
            return False
        self.tally.answer(sent, time.monotonic(), output)
        return True


async def main(address: str, model: str, tenant: str = "") -> None:
    """Make each load that is asked for, until the input ends."""
    async with Client(address, model=model, connect_timeout=20.0, tenant=tenant) as client:
        await client.wait_ready(120)
        gc.freeze()
        loop = asyncio.get_running_loop()
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            tally = await Work(client, Spec(**json.loads(line))).run()
            print(json.dumps(vars(tally)), flush=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
