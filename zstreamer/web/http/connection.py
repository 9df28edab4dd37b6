"""One HTTP/1.1 connection without its socket: one request at a time, responses in order. Pure.

    bytes ── receive ──> receiver ──> queue ── next ──> the driver answers ── answered ─┐
                                        └──────────────────────── next <────────────────┘

A driver reads and writes, calls `next` until it returns None, and says with `answered` when it has
written a response. Time is the shared clock's, see `Shared`.
"""

from __future__ import annotations

import math
from collections import deque
from enum import Enum

from zstreamer.web.api.problem import Refused
from zstreamer.web.http.receiver import Received, Receiver
from zstreamer.web.http.response_head import CLOSE
from zstreamer.web.http.shared import Shared

LEAST_RATE = 64 * 1024
"""Bytes a second of a body that lengthen the time it may take."""

LINGER = 2.0
"""Seconds for which a refused client may go on sending: closing at once would have the kernel
reset the connection, and the client might never read why."""

MOST_IGNORED = 16 * 1024 * 1024
"""Bytes that it may send meanwhile."""

ARRIVAL = 1.0
"""Seconds in which the first request of a connection must come where the server stops: its client
may have sent it already, and does not expect a refusal."""

JOINED = 64 * 1024
"""Bytes of a body up to which drivers copy it, to write head and body as one."""

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Overdue(Enum):
    """What a driver does with a connection whose deadline has passed."""

    WAIT = "the client makes progress"
    ANSWER = "a refusal is next"
    CLOSE = "close it"
    ABORT = "close it, whatever has not been sent"


class Connection:
    """Says which request is next, how its response ends, and when the client is too slow.

    Attributes:
        deadline: when `overdue` is to be called, by the shared clock.
        busy: a request is being answered.
        blocked: set by a driver while the client does not read; nothing is begun meanwhile.
    """

    __slots__ = (
        "_connection",
        "_expects",
        "_first_by",
        "_held",
        "_ignored",
        "_queue",
        "_receiver",
        "_shared",
        "_unsent",
        "blocked",
        "busy",
        "deadline",
    )

    def __init__(self, shared: Shared) -> None:
        self.deadline = shared.now + shared.bounds.keep_alive
        self.busy = False
        self.blocked = False
        self._shared = shared
        self._receiver = Receiver(self, shared.bounds.max_body)
        self._queue: deque[tuple[Received | Refused, bytes]] = deque()
        self._connection = b""
        self._expects = False
        self._first_by = shared.now + ARRIVAL
        self._unsent = math.inf
        self._held = 0
        self._ignored = 0

    def receive(self, data: bytes | memoryview) -> bool:
        """Take what has come; return whether the client may send more."""
        receiver = self._receiver
        receiver.feed(data)
        if receiver.deaf:
            self._ignored += len(data)
        return self._ignored <= MOST_IGNORED

    @property
    def receiving(self) -> bool:
        """Whether a request has begun that is not whole yet."""
        return self._receiver.receiving

    @property
    def waiting(self) -> bool:
        """Whether requests are whole that have not been begun: read no more for now."""
        return bool(self._queue)

    @property
    def idle(self) -> bool:
        """Whether nothing is open that closing the connection would lose."""
        if self.busy or self._queue or self._receiver.receiving:
            return False
        return self._shared.now >= self._first_by

    @property
    def connection(self) -> bytes:
        """The Connection header for the open request: `CLOSE`, `KEEP` or nothing."""
        return CLOSE if self._shared.closes else self._connection

    def next(self) -> Received | Refused | None:
        """Begin the next request, or refusal; None where there is nothing to do now."""
        if self.busy or self.blocked or not self._queue:
            return None
        following, self._connection = self._queue.popleft()
        self.busy = True
        self.deadline = math.inf  # the call's own budget ends it
        return following

    def answered(self, connection: bytes) -> bool:
        """The response has been written; return whether the connection goes on.

        Args:
            connection: the header that the response carried.
        """
        self.busy = False
        shared, receiving = self._shared, self._receiver.receiving
        self._unsent = math.inf
        if self._held:
            self._hold((self._receiver.size if receiving else 0) - self._held)
        if connection is CLOSE:
            return False
        self._first_by = 0.0
        bounds = shared.bounds
        wait = bounds.read_timeout if receiving else bounds.keep_alive
        self.deadline = shared.now + (bounds.write_timeout if self.blocked else wait)
        return True

    def interim(self) -> bytes:
        """What to write before a body comes: 100 Continue, where the client waits for it."""
        if not self._expects or self.busy or self._queue:
            return b""
        self._expects = False
        return CONTINUE if self._receiver.receiving else b""

    # The way out

    def overdue(self, unsent: int = 0) -> Overdue:
        """The deadline has passed: say what to do.

        Args:
            unsent: bytes of responses that the client has not taken.
        """
        if self.busy:
            self.deadline = math.inf
            return Overdue.WAIT
        if 0 < unsent < self._unsent:
            self._unsent = unsent
            self.deadline = self._shared.now + self._shared.bounds.write_timeout
            return Overdue.WAIT
        if unsent or self._receiver.deaf:
            return Overdue.ABORT
        if self._receiver.receiving:
            self._receiver.refuse(408)
            return Overdue.ANSWER
        return Overdue.CLOSE

    def finish(self) -> bool:
        """Read no further; return whether the client may go on sending, see `LINGER`."""
        refused = self._receiver.deaf
        self.deadline = self._shared.now + (
            LINGER if refused else self._shared.bounds.write_timeout
        )
        self._receiver.close()
        self._queue.clear()
        return refused

    def lost(self) -> None:
        """The connection is over: give back what it holds."""
        self._receiver.close()
        self._queue.clear()
        self._hold(-self._held)

    # What the receiver says

    def begun(self) -> None:
        """A request must come in time."""
        if not self.busy:
            self.deadline = self._shared.now + self._shared.bounds.read_timeout

    def expects(self) -> None:
        """The client waits for 100 Continue before it sends the body."""
        self._expects = True

    def grew(self, size: int) -> None:
        """A body is held in memory, of which all connections together have so much."""
        self._hold(size)
        self.deadline += size / LEAST_RATE
        if self._shared.held > self._shared.most_held:
            self._receiver.refuse(503, "too many large requests are open at once; try again")

    def take(self, request: Received, connection: bytes) -> None:
        """Keep a request until those before it are answered."""
        self._queue.append((request, connection))

    def refuse(self, status: int, detail: str = "") -> None:
        """Keep the answer to what cannot be read until what came before it is answered."""
        self._queue.append((Refused(status, detail), CLOSE))

    def _hold(self, size: int) -> None:
        self._held += size
        self._shared.held += size
