"""Connections of an asyncio loop, answered by the interface and a client.

    socket ── buffer_updated ──> core ── next ──> interface ── Predict ──> client ──┐
    socket <── write ─────────── Response <── step.answered, step.failed <──────────┘

No task and no future is made for a request: the client calls back when the answer is there. A
caller that hangs up is seen as the end of its connection, and its call is given up.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection
from functools import partial
from typing import cast

from zstreamer.client.aio import AsyncClient
from zstreamer.client.calls import Call
from zstreamer.errors import Cancelled, ZStreamerError
from zstreamer.tracing.context import Under
from zstreamer.web.api.interface import Interface
from zstreamer.web.api.problem import Refused
from zstreamer.web.api.snapshot import Snapshot
from zstreamer.web.api.steps import Look, Order, Predict, Request, Response, Step
from zstreamer.web.directory import Directory
from zstreamer.web.http.connection import JOINED, Connection, Overdue
from zstreamer.web.http.response_head import head
from zstreamer.web.http.shared import LOOK, Bounds, Shared
from zstreamer.web.operator import NOBODY, Operator
from zstreamer.web.tenants import ByTenant

PIECE = 64 * 1024
"""Bytes that are read at once, always into the same place; left to itself, asyncio allocates
256 KiB for each read."""


class Service:
    """Serves connections by one interface and one client, in the running loop.

    Args:
        interface: says what requests mean.
        clients: for predictions.
        directory: for questions about models.
        bounds: what clients may take.
        pages: the only ones that are served, to everybody; None: all, to whom the interface lets.
        operator: for orders to load and unload models.

    Attributes:
        begin: what to do with a request.
        buffer: where what comes on any connection is put.
        shared: what the connections share.
    """

    def __init__(
        self,
        interface: Interface,
        clients: ByTenant[AsyncClient],
        directory: Directory,
        bounds: Bounds,
        pages: Collection[str] | None = None,
        operator: Operator = NOBODY,
    ) -> None:
        self.begin: Callable[[Request], Step] = interface.begin
        if pages is not None:
            self.begin = partial(interface.begin_open, pages=pages)
        self.loop = asyncio.get_running_loop()
        self.interface = interface
        self.clients = clients
        self.directory = directory
        self.operator = operator
        self.buffer = memoryview(bytearray(PIECE))
        self.shared = Shared(bounds, self.loop.time(), time.time())
        self._timer = self.loop.call_later(LOOK, self._look)

    def close(self) -> None:
        """Close all connections at once, with open requests too."""
        self._timer.cancel()
        for connection in list(self.shared.connections):
            cast("AsyncioConnection", connection).abort()

    def _look(self) -> None:
        self._timer = self.loop.call_later(LOOK, self._look)
        self.shared.look(self.loop.time(), time.time())


class AsyncioConnection(asyncio.BufferedProtocol):
    """Moves bytes and answers between a socket, a `Connection` and a `Service`."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._shared = service.shared
        self._core = Connection(service.shared)
        self._transport: asyncio.Transport = None  # type: ignore[assignment]  # until connected
        self._step: Predict | None = None
        self._call: Call | None = None
        self._client = service.clients.of("")
        self._serving = False
        self._paused = False

    @property
    def deadline(self) -> float:
        """When `overdue` is to be called."""
        return self._core.deadline

    # What the loop says

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has connected."""
        self._transport = cast("asyncio.Transport", transport)
        self._shared.connections.add(self)

    def connection_lost(self, _error: Exception | None) -> None:
        """The connection has ended: no answer is needed any more."""
        self._core.lost()
        self._shared.connections.discard(self)
        if self._call is not None:
            self._client.cancel(self._call)

    def get_buffer(self, _sizehint: int) -> memoryview:
        """Where to put what comes; it is read at once, so all connections share one place."""
        return self._service.buffer

    def buffer_updated(self, size: int) -> None:
        """Bytes have come; whole requests among them begin at once."""
        if self._core.receive(self._service.buffer[:size]):
            self._serve()
        else:
            self.abort()

    def pause_writing(self) -> None:
        """The client reads more slowly than it is answered: pause until it has caught up."""
        self._core.blocked = True

    def resume_writing(self) -> None:
        """It has caught up."""
        self._core.blocked = False
        self._serve()

    # One request after the other

    def _serve(self) -> None:
        """Begin requests that wait until one needs an answer from a model; not reentrant."""
        if self._serving:
            return
        self._serving = True
        core, service = self._core, self._service
        try:
            while (following := core.next()) is not None:
                if type(following) is Refused:
                    self._respond(service.interface.refuse(following))
                else:
                    self._follow(service.begin(following))  # type: ignore[arg-type]  # the rest
        finally:
            self._serving = False
        if core.waiting is not self._paused:
            self._paused = not self._paused
            (self._transport.pause_reading if self._paused else self._transport.resume_reading)()
        if interim := core.interim():
            self._transport.write(interim)

    def _follow(self, step: Step) -> None:
        if isinstance(step, Predict):
            self._predict(step)
        elif isinstance(step, Response):
            self._respond(step)
        elif self._transport.is_closing():
            step.failed(Cancelled("the caller disconnected"))
        elif isinstance(step, Order):
            self._order(step)
        else:
            self._look(step)

    def _predict(self, step: Predict) -> None:
        if self._transport.is_closing():
            step.failed(Cancelled("the caller disconnected"))
            return
        self._step = step
        self._client = self._service.clients.of(step.tenant)
        try:
            with Under(step.trace):
                self._call = self._client.start(
                    step.items,
                    self._predicted,
                    model=step.model,
                    timeout=step.timeout,
                    priority=step.priority,
                    return_exceptions=step.return_exceptions,
                )
        except ZStreamerError as error:
            self._follow(step.failed(error))

    def _predicted(self, call: Call) -> None:
        step = self._step
        self._step = self._call = None
        assert step is not None  # noqa: S101  # tells mypy
        try:
            outputs = call.results()
        except ZStreamerError as error:
            self._follow(step.failed(error))
        else:
            self._follow(step.answered(outputs))

    def _look(self, step: Look) -> None:
        loop, directory = self._service.loop, self._service.directory

        def found(answer: Snapshot | ZStreamerError) -> None:
            if isinstance(answer, ZStreamerError):
                self._follow(step.failed(answer))
            else:
                self._follow(step.answered(answer))

        def tell(answer: Snapshot | ZStreamerError) -> None:
            loop.call_soon_threadsafe(found, answer)

        # It may call back from a thread of its own.
        if step.wait:
            loop.call_later(step.wait, directory.ask, tell, step.oldest)
        else:
            directory.ask(tell, step.oldest)

    def _order(self, step: Order) -> None:
        service = self._service
        done = service.loop.run_in_executor(None, service.operator.give, step.action, step.name)

        def told(done: asyncio.Future[dict[str, object]]) -> None:
            try:
                said = done.result()
            except Exception as error:  # noqa: BLE001  # a caller waits, whatever it is
                self._follow(step.failed(error))  # type: ignore[arg-type]  # it takes them all
            else:
                self._follow(step.answered(said))

        done.add_done_callback(told)

    def _respond(self, response: Response) -> None:
        core, transport = self._core, self._transport
        if transport.is_closing():
            return
        connection = core.connection
        begin = head(response, self._shared.date, connection)
        if len(response.body) <= JOINED:
            transport.write(begin + response.body)
        else:
            transport.write(begin)
            transport.write(response.body)
        if not core.answered(connection):
            self._close()
        elif not self._serving:
            self._serve()

    # The way out

    def drain(self) -> None:
        """Close the connection once nothing is open on it."""
        if self._core.idle:
            self._close()

    def abort(self) -> None:
        """Close the connection at once, with open requests too."""
        self._transport.abort()

    def overdue(self) -> None:
        """The deadline has passed: tell a slow sender, leave an idle or stuck client."""
        verdict = self._core.overdue(self._transport.get_write_buffer_size())
        if verdict is Overdue.ANSWER:
            self._serve()
        elif verdict is Overdue.CLOSE:
            self._close()
        elif verdict is Overdue.ABORT:
            self.abort()

    def _close(self) -> None:
        if self._core.finish():
            if self._transport.can_write_eof():  # TLS cannot; its client reads until the end
                self._transport.write_eof()
        else:
            self._transport.close()
