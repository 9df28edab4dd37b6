"""`Client`: what a web server or a batch job embeds."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from zstreamer import config
from zstreamer.client.future import Future
from zstreamer.client.items import Items
from zstreamer.client.outputs import Options, Outputs
from zstreamer.client.port import ClientPort
from zstreamer.client.settings import Settings
from zstreamer.client.tally import Tallies
from zstreamer.client.threads import ThreadsDriver
from zstreamer.errors import Cancelled
from zstreamer.keys.credentials import Credentials, Keys
from zstreamer.system import native

if TYPE_CHECKING:
    from zstreamer.client.green import GreenDriver


class Client:
    """Sends items to a model behind a broker and waits for the outputs.

    Works in threads and, where gevent has patched the program, in greenlets. May be made
    before a fork and before gevent patches: nothing is connected before the first call, and
    a forked child connects anew, leaving its parent's connections alone.

    Args:
        address: the broker's client address, or several as a list or with commas between.
            ``tcp+dns://NAME:PORT`` and ``file:PATH`` name brokers that may change.
        model: which of the served models to call.
        timeout: seconds that a call may take, unless it says otherwise.
        connect_timeout: seconds after which a call that reaches no broker fails.
        keys: the file of the key that the brokers know (`zstreamer keys client NAME`), or the
            folder where it was made; None for what ZSTREAMER_KEYS says, if it does; "" for none.
        heartbeat, heartbeat_timeout: seconds between pings, and of silence before a broker
            counts as lost.
        tenant: to whom this client's work counts, where its key does not say it: all clients of
            a tenant share its turns in the queue and its limits.

    Raises:
        ValueError: an argument makes no sense; the message says how to fix it.

        >>> with Client("tcp://127.0.0.1:7787") as client:
        ...     client.predict(["Happy birthday to [MASK]."])
        ['you']
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
        self._closed = False
        self._lock = native.lock()
        self._drivers: dict[object, ThreadsDriver | GreenDriver] = {}
        self._hub: Callable[[], object] | None = None  # the caller's, once one has a driver
        _clients.add(self)

    @property
    def addresses(self) -> tuple[str, ...]:
        """The brokers' client addresses."""
        return tuple(self._settings.addresses)

    @property
    def credentials(self) -> Credentials | None:
        """The key that it shows to the brokers."""
        return self._settings.credentials

    @property
    def open_calls(self) -> int:
        """How many calls of this process have not ended."""
        return sum(driver.core.open_calls for driver in list(self._drivers.values()))

    @property
    def connected(self) -> int:
        """How many connections of this process to brokers stand."""
        return sum(driver.connected for driver in list(self._drivers.values()))

    @property
    def tallies(self) -> Tallies:
        """What became of the calls of this process; for `zstreamer.metrics`."""
        return self._settings.tallies

    def predict(
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

        Args:
            items: a list or tuple of anything that `codec.encode` takes: text, bytes,
                numbers, None, lists, dicts, numpy arrays. Of an array each row is an item; deques
                and views of a dict will do too.
            model: which model to call; the client's own where None.
            timeout: seconds for the whole call; the client's own where None.
            priority: a whole number; higher goes first, and most calls have 0.
            idempotent: whether the items may run twice if a worker is lost; where not, they
                fail with `WorkerLost` instead.
            return_exceptions: put each failed item's error in its place instead of raising.

        Raises:
            TypeError: ``items`` is one item, or has no order.
            ValueError: another argument makes no sense.
            ZStreamerError: see `zstreamer.errors`; with several failed items the error of the
                lowest index is raised and the others are cancelled.
        """
        call = self._settings.call(items, model, timeout, priority, idempotent, return_exceptions)
        self._driver().wait(call)
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
    ) -> Future:
        """Return at once, with the future of what `predict` would return or raise.

        Arguments as for `predict`. The future's ``cancel()`` takes the items out of all queues.

        Raises:
            TypeError, ValueError: an argument makes no sense, as in `predict`.
            BadRequest: an item cannot be sent, or ``model`` cannot be a model's name.
            Cancelled: the client is closed.
        """
        call = self._settings.call(items, model, timeout, priority, idempotent, return_exceptions)
        return self._driver().submit(call)

    def map(
        self,
        items: Iterable[object],
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
    ) -> Outputs:
        """Return an iterator of the outputs, in order, of any number of items.

        A bounded number of items is under way at once, so the items may be more than memory holds:
        they are read as outputs are taken. What is refused for now (`Overloaded`) or meets a broker
        or worker that restarts is submitted again later.

        Args:
            items: an iterable; a thread reads it, unless it is a list, a tuple or a range. A
                `ZStreamerError` among them is not submitted, and stands in the outputs as it is.
            start: index of the first item to run; those before it are passed over.
            chunk: items that are submitted together; None to fit it to speed and size.
            progress: whether to show a progress bar (needs tqdm).
            model: which model to call; the client's own where None.
            timeout: seconds that each item may take once it is submitted.
            patience: seconds to wait for a broker and a worker that have gone.
            priority: higher goes first; below that of other calls where not given.
            idempotent: as for `predict`.
            return_exceptions: put each failed item's error in its place; where not, the first one
                is raised. Its ``index`` is that in the whole.

        Returns:
            An iterator. Its ``index`` is where a later job has to ``start``; its ``close()``
            gives up what is under way, as happens when nobody holds it any more.

        Raises:
            TypeError, ValueError: an argument makes no sense.
            ModuleNotFoundError: ``progress`` is set and tqdm is not installed.
            ZStreamerError: while it is iterated: what ends the job, with the ``index`` of the
                next output.
        """
        options = Options(items, start, chunk, patience, progress, return_exceptions)
        port = ClientPort(self._settings, self._driver, model, timeout, priority, idempotent)
        return Outputs(options, port)

    def wait_ready(self, timeout: float | None = None, *, model: str | None = None) -> None:
        """Wait until a warm worker serves the model.

        Args:
            timeout: seconds; the client's own where None.
            model: which model; the client's own where None.

        Raises:
            BrokerUnreachable: no broker answered within ``connect_timeout``.
            NoWorker: none was ready within ``timeout`` seconds, or none will start; the message
                says why.
            Cancelled: the client is closed.
        """
        watch = self._settings.watch(model, timeout)
        self._driver().wait(watch)
        if watch.error is not None:
            raise watch.error

    def close(self) -> None:
        """End all calls, with `Cancelled`, and all connections. Closing twice is fine."""
        self._closed = True
        with self._lock:
            drivers, self._drivers = list(self._drivers.values()), {}
        for driver in drivers:
            driver.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        addresses = ", ".join(self._settings.addresses)
        return f"<Client {addresses}, model {self._settings.model!r}>"

    def _driver(self) -> ThreadsDriver | GreenDriver:
        """Return the driver for the caller: one for each hub, one for all other threads."""
        if self._hub is not None and (hub := self._hub()) is not None:
            driver = self._drivers.get(hub)
            if driver is not None:
                return driver
        key: object = None
        if native.patched() and native.in_hub_thread():
            from gevent.hub import get_hub

            key = get_hub()
        driver = self._drivers.get(key)
        return self._start(key) if driver is None else driver

    def _start(self, key: object) -> ThreadsDriver | GreenDriver:
        with self._lock:
            if self._closed:
                raise Cancelled("the client is closed")
            if key not in self._drivers:
                if key is None:
                    self._drivers[key] = ThreadsDriver(self._settings)
                else:
                    from gevent._hub_local import get_hub_if_exists

                    from zstreamer.client.green import GreenDriver

                    self._drivers[key] = GreenDriver(self._settings)
                    self._hub = get_hub_if_exists
            return self._drivers[key]

    def _after_fork(self) -> None:
        for driver in self._drivers.values():
            driver.abandon()
        _orphans.extend(self._drivers.values())
        self._lock = native.lock()  # another thread may have held it when the program forked
        self._drivers = {}
        self._settings.tallies.begin_anew()


_clients: weakref.WeakSet[Client] = weakref.WeakSet()
_orphans: list[object] = []  # kept alive: collecting them would close the parent's sockets


def _after_fork() -> None:
    for client in list(_clients):
        client._after_fork()


os.register_at_fork(after_in_child=_after_fork)
