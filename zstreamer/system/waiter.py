"""Waits for what another thread brings about: blocks a thread of the system, or one greenlet alone.

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
