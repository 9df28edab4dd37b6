"""One HTTP/1.1 connection of the gateway: one request at a time, responses in order.

    socket ── buffer_updated ──> receiver ── take ──> interface ── Predict ──> client ──┐
    socket <── write ────────────────── Response <── step.answered, step.failed <───────┘

No task and no future is made for a request: the client calls back when the answer is there. A
caller that hangs up is seen as the end of its connection, and its call is given up.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from typing import cast

from zstreamer.client.calls import Call
from zstreamer.errors import Cancelled, ZStreamerError
from zstreamer.web.api.snapshot import Snapshot
from zstreamer.web.api.steps import Look, Predict, Request, Response, Step
from zstreamer.web.http.receiver import Receiver
from zstreamer.web.http.response_head import CLOSE, head
from zstreamer.web.http.service import LEAST_RATE, LINGER, MOST_IGNORED, PATIENCE, Service

JOINED = 64 * 1024
"""Bytes of a body up to which head and body are written as one."""


class Connection(asyncio.BufferedProtocol):
    """Takes requests and writes responses, on behalf of a `Service`.

    Attributes:
        deadline: when `overdue` is to be called, in the loop's seconds.
    """

    def __init__(self, service: Service) -> None:
        self.service = service
        self.deadline = math.inf
        self._transport: asyncio.Transport = None  # type: ignore[assignment]  # until connected
        self._receiver = Receiver(self, service.max_body)
        self._queue: deque[tuple[Request, bytes] | Response] = deque()
        self._busy = False  # with a request, whose response is to say:
        self._connection = b""
        self._step: Predict | None = None
        self._call: Call | None = None
        self._turning = False  # through the queue
        self._stuck = False  # its client does not read
        self._unsent = math.inf
        self._held = 0
        self._ignored = 0

    # What the loop says

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has connected."""
        self._transport = cast("asyncio.Transport", transport)
        self.deadline = self.service.loop.time() + self.service.keep_alive
        self.service.connections.add(self)

    def connection_lost(self, _error: Exception | None) -> None:
        """The client has hung up, or we have: nobody waits for an answer any more."""
        self._receiver.close()
        self._queue.clear()
        self._hold(-self._held)
        self.service.connections.discard(self)
        if self._call is not None:
            self.service.client.cancel(self._call)

    def get_buffer(self, _sizehint: int) -> memoryview:
        """Where to put what comes; it is read at once, so all connections share one place."""
        return self.service.buffer

    def buffer_updated(self, size: int) -> None:
        """Bytes have come; whole requests among them begin at once."""
        self._receiver.feed(self.service.buffer[:size])
        if self._receiver.deaf:
            self._ignored += size
            if self._ignored > MOST_IGNORED:
                self.abort()

    def pause_writing(self) -> None:
        """The client reads more slowly than it is answered: nothing more until it has."""
        self._stuck = True

    def resume_writing(self) -> None:
        """It has caught up."""
        self._stuck = False
        self._next()

    # What the receiver says

    def begun(self) -> None:
        """A request must come in time."""
        self.deadline = self.service.loop.time() + self.service.read_timeout

    def expects(self) -> None:
        """Have the client send its body; where others go first, it will do so by itself."""
        if not self._busy:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def grew(self, size: int) -> None:
        """A body is held in memory, of which all connections together have so much."""
        self._hold(size)
        self.deadline += size / LEAST_RATE
        if self.service.held > self.service.most_held:
            self._receiver.refuse(503, "too many large requests are open at once; try again")

    def take(self, request: Request, connection: bytes) -> None:
        """Begin a request, or have it wait until those before it are answered."""
        if self._busy or self._queue or self._stuck:
            self._queue.append((request, connection))
            self._transport.pause_reading()
        else:
            self._begin(request, connection)

    def refuse(self, status: int, detail: str = "") -> None:
        """Answer for what cannot be read, once what came before it is answered."""
        self._queue.append(self.service.interface.refuse(status, detail))
        self._next()

    # One request after the other

    def _begin(self, request: Request, connection: bytes) -> None:
        self._busy = True
        self._connection = connection
        self.deadline = math.inf  # its budget ends it
        self._follow(self.service.interface.begin(request))

    def _follow(self, step: Step) -> None:
        if isinstance(step, Predict):
            self._predict(step)
        elif isinstance(step, Response):
            self._respond(step)
        else:
            self._look(step)

    def _predict(self, step: Predict) -> None:
        if self._transport.is_closing():
            step.failed(Cancelled("the caller has gone"))
            return
        self._step = step
        try:
            self._call = self.service.client.start(
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
        loop = self.service.loop

        def found(answer: Snapshot | ZStreamerError) -> None:
            if isinstance(answer, ZStreamerError):
                self._follow(step.failed(answer))
            else:
                self._follow(step.answered(answer))

        def tell(answer: Snapshot | ZStreamerError) -> None:
            loop.call_soon_threadsafe(found, answer)

        self.service.directory.ask(tell)  # it may call back from a thread of its own

    def _respond(self, response: Response) -> None:
        self._busy = False
        if self._transport.is_closing():
            return
        connection = CLOSE if self.service.draining else self._connection
        begin = head(response, self.service.date, connection)
        if len(response.body) <= JOINED:
            self._transport.write(begin + response.body)
        else:
            self._transport.write(begin)
            self._transport.write(response.body)
        if self._held:
            self._hold((self._receiver.size if self._receiver.receiving else 0) - self._held)
        self._rest(connection)

    def _rest(self, connection: bytes) -> None:
        """What comes after a response: the end, the next request, or a wait for one."""
        service = self.service
        self._unsent = math.inf
        if connection is CLOSE:
            self._close()
        else:
            wait = service.read_timeout if self._receiver.receiving else service.keep_alive
            self.deadline = service.loop.time() + (PATIENCE if self._stuck else wait)
            if self._queue:
                self._next()

    def _next(self) -> None:
        """Begin what waits, until an answer is to be waited for; not one inside the other."""
        if self._turning:
            return
        self._turning = True
        try:
            while self._queue and not (self._busy or self._stuck):
                following = self._queue.popleft()
                if isinstance(following, Response):
                    self._connection = CLOSE
                    self._respond(following)
                else:
                    self._begin(*following)
        finally:
            self._turning = False
        if not (self._queue or self._receiver.deaf):
            self._transport.resume_reading()

    def _hold(self, size: int) -> None:
        self._held += size
        self.service.held += size

    # The way out

    def drain(self) -> None:
        """Close the connection once nothing is open on it."""
        if not (self._busy or self._queue or self._receiver.receiving):
            self._close()

    def abort(self) -> None:
        """Close the connection, whatever is open on it."""
        self._transport.abort()

    def overdue(self) -> None:
        """The deadline has passed: tell a slow sender, leave an idle or stuck client."""
        unsent = self._transport.get_write_buffer_size()
        if self._busy:
            self.deadline = math.inf  # it is of what follows the open request
            if self._receiver.receiving:
                self._receiver.refuse(408)
        elif 0 < unsent < self._unsent:
            self._unsent = unsent
            self.deadline = self.service.loop.time() + PATIENCE
        elif unsent or self._receiver.deaf or self._transport.is_closing():
            self.abort()
        elif self._receiver.receiving:
            self._receiver.refuse(408)
        else:
            self._close()

    def _close(self) -> None:
        refused = self._receiver.deaf
        self.deadline = self.service.loop.time() + (LINGER if refused else PATIENCE)
        self._receiver.close()
        self._queue.clear()
        if refused:
            self._transport.write_eof()
        else:
            self._transport.close()
