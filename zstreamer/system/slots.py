"""Keeps processes alive: each has a slot, in which another is started when one dies.

keep ─> start ─> runs ─> died: a pause that doubles while it dies soon ─> start …
          │                └─ with a final code: that slot is done
          └─ a request to stop, or the owner's end ─> drain
"""

from __future__ import annotations

import logging
import math
import select
import time
from collections.abc import Callable, Collection, Sequence
from typing import Final

from zstreamer.system import logs
from zstreamer.system.exitcodes import of_child
from zstreamer.system.process import Owner, Process
from zstreamer.system.signals import StopRequests

log = logging.getLogger(__name__)

GLANCE: Final = 0.2
"""Seconds between two looks at the processes."""

HEALTHY: Final = 5.0
"""Seconds after which a start counts as a success."""

BACKOFF: Final = 0.1
MAX_BACKOFF: Final = 10.0
"""Seconds before a process that died is started again, doubling while it dies soon."""


LAST_CALL: Final = 1.0
"""Seconds that a process gets to end what it has started itself, before it is killed."""


class ProcessSlot:
    """The place of one process.

    Args:
        name: what it is, for the log.
        start: starts the process.
        final: exit codes after which it is not started again.
        after: is told the process id of each one that has ended.

    Attributes:
        process: the one that runs now, if any.
        code: how the last one ended, None where none has.
        done: no other will be started.
    """

    def __init__(
        self,
        name: str,
        start: Callable[[], Process],
        final: Collection[int] = (),
        after: Callable[[int], None] | None = None,
    ) -> None:
        self.process: Process | None = None
        self.code: int | None = None
        self.done = False
        self._name = name
        self._start = start
        self._final = final
        self._after = after
        self._backoff = BACKOFF
        self._started = 0.0
        self._start_at = 0.0

    def keep(self, now: float) -> None:
        """Start a process where none runs and it is time; note where one has ended."""
        if self.done:
            return
        if self.process is None:
            if now >= self._start_at:
                self.process = self._start()
                self._started = now
            return
        healthy = self.is_healthy(now)
        if (code := self.ended()) is None:
            return
        if code in self._final:
            self.done = True
            return
        self._backoff = BACKOFF if healthy else self._backoff * 2
        self._start_at = now + min(self._backoff, MAX_BACKOFF)
        log.warning(logs.event(f"{self._name} died, starting it again", code=code))

    def is_healthy(self, now: float) -> bool:
        """Whether its process has run for long enough to count as started."""
        return self.process is not None and now - self._started > HEALTHY

    def ended(self) -> int | None:
        """Return its exit code where the process has just ended; what is left of it is cleared."""
        if self.process is None or (code := self.process.poll()) is None:
            return None
        self.code = code
        self.process.close()
        if self._after is not None:
            self._after(self.process.pid)
        self.process = None
        return code


def until_stopped(stop: StopRequests, owner: Owner | None, busy: Callable[[], bool]) -> None:
    """Look after something until a request to stop, the owner's end, or the end of the work.

    Args:
        stop: requests to stop.
        owner: the process that must be alive, where there is one.
        busy: looks after it; called five times a second. Returns whether it goes on.
    """
    watched: list[StopRequests | Owner] = [stop] if owner is None else [stop, owner]
    while not (stop.requests or _gone(owner)) and busy():
        select.select(watched, [], [], GLANCE)


def serve(slots: Sequence[ProcessSlot], stop: StopRequests, owner: Owner | None) -> None:
    """Keep all slots filled until a request to stop, the owner's end, or the end of all."""

    def busy() -> bool:
        for slot in slots:
            slot.keep(time.monotonic())
        return not all(slot.done for slot in slots)

    until_stopped(stop, owner, busy)


def drain(
    slots: Sequence[ProcessSlot],
    stop: StopRequests,
    owner: Owner | None,
    grace: float,
    stopping: Collection[ProcessSlot] = (),
) -> list[int]:
    """End all processes: on each request to stop they are asked, later they are killed.

    Before they are killed they are asked again and again, for `LAST_CALL`: the second request ends
    them at once, so that they end their own children, which nobody else knows.

    Args:
        slots: where they run; nothing is started any more.
        stop: the requests, those that have come included.
        owner: its end ends all at once.
        grace: seconds that they have from now on.
        stopping: those that were asked before; a second time would end them at once.

    Returns:
        Their exit codes, as `of_child` says them.
    """
    codes = []
    asked = 0
    end = time.monotonic() + grace
    ask_at = kill_at = math.inf
    while running := [(slot, slot.process) for slot in slots if slot.process is not None]:
        now = time.monotonic()
        if kill_at == math.inf and (now > end or _gone(owner)):
            ask_at, kill_at = now, now + LAST_CALL
        requests = stop.requests
        for slot, process in running:
            if now >= kill_at:
                process.kill()
            elif now >= ask_at or (requests > asked and (asked or slot not in stopping)):
                process.terminate()
        if now >= ask_at:
            ask_at = now + GLANCE  # not at once: two signals together may count as one
        asked = requests
        ended = [code for slot in slots if (code := slot.ended()) is not None]
        codes += [of_child(code, stopped=asked == 1 and kill_at == math.inf) for code in ended]
        select.select([stop], [], [], GLANCE / 10)
    return codes


def _gone(owner: Owner | None) -> bool:
    return owner is not None and owner.gone()
