"""Locks and threads of the operating system, also where gevent has patched Python's own."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from threading import Lock

    from gevent.hub import Hub


def _original(module: str, name: str) -> Callable[..., object]:
    monkey = sys.modules.get("gevent.monkey")
    if monkey is not None:
        found: Callable[..., object] = monkey.get_original(module, name)
        return found
    return getattr(__import__(module), name)  # type: ignore[no-any-return]


def lock() -> Lock:
    """Return a lock that blocks the thread, not only the greenlet."""
    return _original("_thread", "allocate_lock")()  # type: ignore[return-value]


def start_thread(function: Callable[[], None]) -> None:
    """Run a function in a daemon thread of the operating system."""
    _original("_thread", "start_new_thread")(function, ())


def getaddrinfo(host: str, port: int, *, type: int) -> list[tuple[Any, ...]]:
    """`socket.getaddrinfo` that blocks its thread: gevent's own would make a hub there."""
    return _original("socket", "getaddrinfo")(host, port, type=type)  # type: ignore[return-value]


class Thread:
    """A daemon thread of the operating system that can be waited for.

    Args:
        function: what it runs.
    """

    def __init__(self, function: Callable[[], None]) -> None:
        self._function = function
        self._ended = lock()
        self._ended.acquire()
        self._ident: object = None
        start_thread(self._run)

    def join(self, timeout: float) -> bool:
        """Wait for its end, blocking the caller's thread; return whether it has ended."""
        if not self._ended.acquire(timeout=timeout):
            return False
        self._ended.release()
        return True

    def is_current(self) -> bool:
        """Whether it is the caller's."""
        return self._ident == _original("_thread", "get_ident")()

    def _run(self) -> None:
        self._ident = _original("_thread", "get_ident")()
        try:
            self._function()
        finally:
            self._ended.release()


def patched() -> bool:
    """Whether gevent has patched this program's sockets, so that its threads are greenlets."""
    monkey = sys.modules.get("gevent.monkey")
    return monkey is not None and bool(monkey.is_module_patched("socket"))


def in_hub_thread() -> bool:
    """Whether the caller is a greenlet, so that waiting must let others run.

    True in the main thread of a patched program, and in any thread that has a hub already.
    """
    hubs = sys.modules.get("gevent._hub_local")
    if hubs is not None and hubs.get_hub_if_exists() is not None:
        return True
    # gevent gives the main thread's object another ident, but leaves its native id alone.
    import threading

    return threading.main_thread().native_id == threading.get_native_id()


def hub() -> Hub | None:
    """Return the hub that must go on while the caller waits; None where its thread may block."""
    if not in_hub_thread() or "gevent" not in sys.modules:
        return None
    from gevent._hub_local import get_hub, get_hub_if_exists

    return get_hub() if patched() else get_hub_if_exists()
