"""Waits for another thread: blocks a thread of the system, or one greenlet alone.

caller ── here() ── hands `wake` out ── wait ──┐
any thread ─────────────────────────── wake ───┘
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zstreamer.system import native

if TYPE_CHECKING:
    from gevent.hub import Hub


class ThreadWaiter:
    """Blocks the thread that waits."""

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        self._lock = native.lock()
        self._lock.acquire()

    def wait(self, seconds: float) -> bool:
        """Wait until `wake` is called, for so long at most; return whether it was."""
        return self._lock.acquire(timeout=seconds)

    def wake(self) -> None:
        """End the wait; from any thread, once."""
        self._lock.release()


class GreenWaiter:
    """Lets other greenlets of a hub run while one waits."""

    __slots__ = ("_hub", "_waiter")

    def __init__(self, hub: Hub) -> None:
        from gevent.hub import Waiter

        self._hub = hub
        self._waiter = Waiter(hub)

    def wait(self, seconds: float) -> bool:
        """Wait until `wake` is called, for so long at most; return whether it was."""
        # The timer also keeps a loop alive that has nothing else to wait for.
        with self._hub.loop.timer(seconds) as timer:
            # Without update, the time counts from the loop's last turn, which may be long ago.
            timer.start(self._waiter.switch, False, update=True)
            return bool(self._waiter.get())

    def wake(self) -> None:
        """End the wait; from any thread, once."""
        self._hub.loop.run_callback_threadsafe(self._waiter.switch, True)


def here() -> ThreadWaiter | GreenWaiter:
    """Return what lets the caller wait without stopping other greenlets of its thread."""
    hub = native.hub()
    return ThreadWaiter() if hub is None else GreenWaiter(hub)


class Bell:
    """Wakes one waiter, who may come later, as often as there is something new."""

    def __init__(self) -> None:
        self._lock = native.lock()
        self._rung = False
        self._waiter: ThreadWaiter | GreenWaiter | None = None

    def ring(self) -> None:
        """End the wait that is under way, or the next one; from any thread."""
        with self._lock:
            self._rung = True
            waiter, self._waiter = self._waiter, None
        if waiter is not None:
            waiter.wake()

    def wait(self, seconds: float) -> None:
        """Wait until it rings, for so long at most; only one may wait."""
        with self._lock:
            if self._rung or seconds <= 0:
                self._rung = False
                return
            waiter = self._waiter = here()
        try:
            waiter.wait(seconds)
        finally:
            with self._lock:
                self._rung = False
                self._waiter = None
