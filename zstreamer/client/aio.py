"""The client's driver for asyncio, and the `Client` that is awaited.

coroutine ── core.submit, then awaits ──┐       once for all that was submitted before the
coroutine ── core.submit, then awaits ──┼─ turn loop came round: one bundle
descriptor ready, or timer ─────────────┘
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from types import TracebackType

from zstreamer import errors
from zstreamer.client.calls import Call, Watch
from zstreamer.client.driver import Driver
from zstreamer.client.link import Link
from zstreamer.client.settings import Items, Settings
from zstreamer.wire import transport

SWEEP = 1.0
"""Seconds between two looks at the sockets while calls are open, should an edge be missed."""


class AsyncioDriver(Driver):
    """Serves the coroutines of the running loop; see `Driver` for the arguments."""

    def __init__(
        self, addresses: Sequence[str], connect_timeout: float, options: transport.Options
    ) -> None:
        super().__init__(addresses, connect_timeout, options)
        self.loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._scheduled = False
        self._filenos: dict[Link, tuple[int, int]] = {}

    def submit(self, call: Call | Watch) -> asyncio.Future[None]:
        """Submit a call; the future is done when the call has ended."""
        done: asyncio.Future[None] = self.loop.create_future()
        call.token = done
        if isinstance(call, Watch):
            self.core.watch(call)
        else:
            self.core.submit(call)
        self._schedule()
        return done

    def start(self, call: Call, done: Callable[[Call], None]) -> None:
        """Submit a call; `done` is called with it when it has ended, and must not raise."""
        call.token = done
        self.core.submit(call)
        self._schedule()

    def cancel(self, call: Call | Watch) -> None:
        """Give a call up."""
        self.core.cancel(call)
        self._schedule()

    def close(self) -> None:
        """End all calls and close the connections."""
        self.shut_down()
        if self._timer is not None:
            self._timer.cancel()

    def complete(self, call: Call | Watch) -> None:
        """Wake the coroutine that awaits it, or call back."""
        token = call.token
        if isinstance(token, asyncio.Future):
            if not token.done():
                token.set_result(None)
        elif callable(token):
            token(call)

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self.loop.call_soon(self._turn)

    def _turn(self) -> None:
        self._scheduled = False
        wake_at = self.turn()
        now = time.monotonic()
        if self.core.open_calls:
            wake_at = min(wake_at, now + SWEEP)
        if self._timer is not None:
            if now < self._timer_at <= wake_at:
                return
            self._timer.cancel()
            self._timer = None
        if wake_at != float("inf"):
            self._timer_at = wake_at
            self._timer = self.loop.call_later(max(0.0, wake_at - now), self._wake)

    def _wake(self) -> None:
        self._timer = None  # some loops round, and come a little too early: then set it again
        self._turn()

    def watch(self, link: Link, connection: transport.Connection) -> None:
        """Have the loop watch the connection's descriptors."""
        self._filenos[link] = connection.filenos()
        for fileno in self._filenos[link]:
            self.loop.add_reader(fileno, self._turn)

    def unwatch(self, link: Link) -> None:
        """Have the loop forget them."""
        for fileno in self._filenos.pop(link):
            self.loop.remove_reader(fileno)


class Client:
    """`zstreamer.Client` for coroutines; the arguments are the same.

    Belongs to the event loop in which it makes its first call.
    """

    def __init__(
        self,
        address: str | Sequence[str] = "tcp://127.0.0.1:7787",
        *,
        model: str = "default",
        timeout: float = 20.0,
        connect_timeout: float = 5.0,
        keys: object = None,
        heartbeat: float = 0.5,
        heartbeat_timeout: float = 2.0,
    ) -> None:
        self._settings = Settings(
            address, model, timeout, connect_timeout, keys, heartbeat, heartbeat_timeout
        )
        self._running: AsyncioDriver | None = None
        self._closed = False

    async def predict(
        self,
        items: Items,
        *,
        model: str | None = None,
        timeout: float | None = None,
        priority: int = 0,
        idempotent: bool = True,
        return_exceptions: bool = False,
    ) -> list[object]:
        """Return one output for each item, in order; as `zstreamer.Client.predict`.

        Cancelling the task that awaits it takes its items out of all queues.
        """
        call = self._settings.call(items, model, timeout, priority, idempotent, return_exceptions)
        await self._wait(call)
        return call.results()

    def submit(
        self,
        items: Items,
        *,
        model: str | None = None,
        timeout: float | None = None,
        priority: int = 0,
        idempotent: bool = True,
        return_exceptions: bool = False,
    ) -> asyncio.Task[list[object]]:
        """Return at once, with the task of what `predict` would return or raise."""
        return asyncio.ensure_future(
            self.predict(
                items,
                model=model,
                timeout=timeout,
                priority=priority,
                idempotent=idempotent,
                return_exceptions=return_exceptions,
            )
        )

    def start(
        self,
        items: Items,
        done: Callable[[Call], None],
        *,
        model: str | None = None,
        timeout: float | None = None,
        priority: int = 0,
        idempotent: bool = True,
        return_exceptions: bool = False,
    ) -> Call:
        """Begin a call without a coroutine: a task costs more than all else that a call does.

        ``done(call)`` is called in the event loop when the call has ended, and must not raise;
        ``call.results()`` then returns the outputs or raises the error. All else is as for
        `predict`. Returns the call, which `cancel` gives up.
        """
        call = self._settings.call(items, model, timeout, priority, idempotent, return_exceptions)
        # Not `_driver`: to ask which loop runs costs a system call before Python 3.12.
        driver = self._running or self._driver()
        driver.start(call, done)
        return call

    def cancel(self, call: Call) -> None:
        """Give up a call of `start`: its items leave all queues, and it ends as cancelled."""
        if self._running is not None:
            self._running.cancel(call)

    async def wait_ready(self, timeout: float | None = None, *, model: str | None = None) -> None:
        """Wait until a warm worker serves the model; as `zstreamer.Client.wait_ready`."""
        now = time.monotonic()
        budget = self._settings.timeout if timeout is None else timeout
        watch = Watch(self._settings.named(model), now + budget, now)
        await self._wait(watch)
        if watch.error is not None:
            raise watch.error

    async def close(self) -> None:
        """End all calls, with `Cancelled`, and all connections. Closing twice is fine."""
        self._closed = True
        if self._running is not None:
            self._running.close()
            self._running = None

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def _wait(self, call: Call | Watch) -> None:
        driver = self._driver()
        done = driver.submit(call)
        try:
            await done
        except BaseException:
            driver.cancel(call)
            raise

    def _driver(self) -> AsyncioDriver:
        if self._closed:
            raise errors.Cancelled("the client is closed")
        settings = self._settings
        if self._running is None:
            self._running = AsyncioDriver(
                settings.addresses, settings.connect_timeout, settings.options
            )
        elif self._running.loop is not asyncio.get_running_loop():
            raise RuntimeError(
                "this client belongs to another event loop; make one client for each loop"
            )
        return self._running
