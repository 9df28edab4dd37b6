"""The client's driver for asyncio, and the `AsyncClient` that is awaited.

coroutine ── core.submit, then awaits ──┐       once for all that was submitted before the
coroutine ── core.submit, then awaits ──┼─ turn loop came round: one bundle
descriptor ready, or timer ─────────────┘
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import threading
from collections.abc import AsyncIterable, Callable, Iterable, Sequence
from typing import Any

from zstreamer import config, errors
from zstreamer.client.aio_outputs import AsyncOutputs
from zstreamer.client.calls import Call, Watch
from zstreamer.client.driver import LoopDriver
from zstreamer.client.items import Items
from zstreamer.client.outputs import Options
from zstreamer.client.port import ClientPort
from zstreamer.client.settings import Settings
from zstreamer.client.tally import Tallies
from zstreamer.keys.credentials import Keys
from zstreamer.wire import transport


class AsyncioDriver(LoopDriver):
    """Serves the coroutines of the running loop; see `Driver` for the arguments.

    Attributes:
        loop: the event loop.
        thread: where that loop runs, or ran when last asked for.
    """

    def __init__(self, settings: Settings) -> None:
        self.loop = asyncio.get_running_loop()
        super().__init__(settings, self.loop.call_soon)
        self.thread = threading.get_ident()
        self._timer: asyncio.TimerHandle | None = None

    def submit(self, call: Call | Watch) -> asyncio.Future[None]:
        """Submit a call; the future is done when the call has ended."""
        done: asyncio.Future[None] = self.loop.create_future()
        call.token = done
        self.begin(call)
        self._schedule()
        return done

    def start(self, call: Call | Watch, done: Callable[[Any], None]) -> None:
        """Submit a call; `done` is called with it when it has ended, and must not raise."""
        call.token = done
        self.begin(call)
        self._schedule()

    def cancel(self, call: Call | Watch) -> None:
        """Give a call up."""
        self.core.cancel(call)
        self._schedule()

    @property
    def here(self) -> bool:
        """Whether its loop is the one that runs in the caller's thread."""
        return self.loop.is_running() and self.thread == threading.get_ident()

    def close(self) -> None:
        """End all calls and close the connections; also of a loop that is closed."""
        self.shut_down()
        self.set_timer(math.inf, self._on_timer)

    def close_from_outside(self) -> None:
        """The same from where its loop does not run."""
        if self.loop.is_running():
            with contextlib.suppress(RuntimeError):  # it has ended meanwhile
                self.loop.call_soon_threadsafe(self.close)
                return
        self.close()

    def complete(self, call: Call | Watch) -> None:
        """Wake the coroutine that awaits it, or call back."""
        token = call.token
        if self.loop.is_closed():
            return  # nobody is left there who waits
        if isinstance(token, asyncio.Future):
            if not token.done():
                token.set_result(None)
        elif callable(token):
            token(call)

    def _schedule(self) -> None:
        # A coroutine may be thrown away, and give its call up, after its loop was closed.
        if not self.loop.is_closed():
            super()._schedule()

    def set_timer(self, seconds: float, function: Callable[[], None]) -> None:
        """Have the loop call a function later."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if seconds == math.inf else self.loop.call_later(seconds, function)

    def watch(self, connection: transport.Connection) -> None:
        """Have the loop watch the connection's descriptors."""
        for fileno in connection.filenos():
            self.loop.add_reader(fileno, self._turn)

    def unwatch(self, connection: transport.Connection) -> None:
        """Have the loop forget them."""
        for fileno in connection.filenos():
            if not self.loop.is_closed():
                self.loop.remove_reader(fileno)


class AsyncClient:
    """`zstreamer.Client` for coroutines; the arguments are the same.

    May be used in several event loops, one after the other or, each in its thread, at once: it
    has connections of its own for each, and closes those of a loop that was closed.
    """

    def __init__(
        self,
        address: str | Sequence[str] = config.CLIENTS_ADDRESS,
        *,
        model: str = "default",
        timeout: float = config.TIMEOUT,
        connect_timeout: float = config.CONNECT_TIMEOUT,
        keys: Keys = None,
        heartbeat: float = config.HEARTBEAT,
        heartbeat_timeout: float = config.SILENCE,
        tenant: str = "",
    ) -> None:
        self._settings = Settings(
            address, model, timeout, connect_timeout, keys, heartbeat, heartbeat_timeout, tenant
        )
        self._latest: AsyncioDriver | None = None
        self._drivers: dict[asyncio.AbstractEventLoop, AsyncioDriver] = {}
        self._lock = threading.Lock()
        self._closed = False

    @property
    def open_calls(self) -> int:
        """How many calls have not ended."""
        return sum(driver.core.open_calls for driver in list(self._drivers.values()))

    @property
    def connected(self) -> int:
        """How many connections to brokers stand."""
        return sum(driver.connected for driver in list(self._drivers.values()))

    @property
    def tallies(self) -> Tallies:
        """What became of its calls; for `zstreamer.metrics`."""
        return self._settings.tallies

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
        """Return one output for each item, in order.

        Arguments and errors as for `zstreamer.Client.predict`. Cancelling the task that awaits it
        takes its items out of all queues.
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
        """Return at once, with the task of what `predict` would return or raise.

        Arguments as for `predict`; what is wrong with them is raised by the task, too.

        Raises:
            RuntimeError: no event loop runs in this thread.
        """
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
        ``call.results()`` then returns the outputs or raises the error. The other arguments are
        as for `predict`.

        Returns:
            The call, which `cancel` gives up.

        Raises:
            RuntimeError: no event loop runs in this thread.
            TypeError, ValueError: an argument makes no sense, as in `predict`.
            BadRequest: an item cannot be sent, or ``model`` cannot be a model's name.
            Cancelled: the client is closed.
        """
        call = self._settings.call(items, model, timeout, priority, idempotent, return_exceptions)
        self._driver().start(call, done)
        return call

    def cancel(self, call: Call) -> None:
        """Give up a call of `start`: its items leave all queues, and it ends as cancelled.

        Called in the event loop in which the call was begun.
        """
        if not self._closed:  # which has ended it
            self._driver().cancel(call)

    def map(
        self,
        items: Iterable[object] | AsyncIterable[object],
        *,
        start: int = 0,
        chunk: int | None = None,
        progress: bool = False,
        model: str | None = None,
        timeout: float = config.JOB_TIMEOUT,
        patience: float = config.JOB_PATIENCE,
        priority: int = config.JOB_PRIORITY,
        idempotent: bool = True,
        return_exceptions: bool = True,
    ) -> AsyncOutputs:
        """Return an asynchronous iterator of outputs; arguments as for `zstreamer.Client.map`.

        The items may be an asynchronous iterable, which a task reads; others are read in a thread,
        unless they are a list, a tuple or a range.
        """
        options = Options(items, start, chunk, patience, progress, return_exceptions)
        port = ClientPort(self._settings, self._driver, model, timeout, priority, idempotent)
        return AsyncOutputs(options, port)

    async def wait_ready(self, timeout: float | None = None, *, model: str | None = None) -> None:
        """Wait until a warm worker serves the model.

        Arguments and errors as for `zstreamer.Client.wait_ready`.
        """
        watch = self._settings.watch(model, timeout)
        await self._wait(watch)
        if watch.error is not None:
            raise watch.error

    async def close(self) -> None:
        """End all calls, with `Cancelled`, and all connections. Closing twice is fine."""
        with self._lock:
            self._closed = True
            drivers, self._drivers, self._latest = list(self._drivers.values()), {}, None
        for driver in drivers:
            if driver.here:
                driver.close()
            else:
                driver.close_from_outside()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *_: object) -> None:
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
        """Return the driver of the loop that runs."""
        # Mostly the latest; to ask which loop runs costs a system call before Python 3.12.
        latest = self._latest
        if latest is not None and latest.here:
            return latest
        loop = asyncio.get_running_loop()
        with self._lock:
            if self._closed:
                raise errors.Cancelled("the client is closed")
            for other in [each for each in self._drivers if each.is_closed()]:
                self._drivers.pop(other).close()
            driver = self._drivers.get(loop)
            if driver is None:
                driver = self._drivers[loop] = AsyncioDriver(self._settings)
            driver.thread = threading.get_ident()
            self._latest = driver
            return driver
