"""The messages of the protocol and the words in them; docs/protocol.md says what each means.

`protocol` turns them into frames and back.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag
from typing import NamedTuple, Protocol, TypeAlias

VERSION = 1
MAGIC = "ZSP"

INLINE = 16 * 1024
"""Bytes up to which a payload lies inside the head. An extra frame costs some 3 µs at both
ends together, as much as copying 16 KiB a few times."""

PART = 1024 * 1024
"""Bytes of one part of a larger payload: small enough that a slow link carries one within
the heartbeat timeout and that small bundles are not kept waiting behind it."""

BUNDLE = 1024 * 1024
"""Bytes of payload after which a bundle is closed and another one begun."""

MAX_ROWS = 16 * 1024
"""Items after which a bundle is closed, so that a head stays small where payloads are tiny."""

MAX_FRAME = 2 * PART
"""Bytes of one frame that a socket accepts at all; a peer that sends more is disconnected. It is
what the head of a full bundle may need; no frame of a payload is longer than a part."""

MAX_FRAMES = 4096
"""Frames of one message that a receiver keeps; one of more is no message."""

MAX_OPEN = 50_000
"""Ids that one HELLO, WELCOME or CANCEL names, and so the largest window of a client."""

MAX_BUDGET = 7 * 24 * 3600 * 1000
"""Milliseconds; a longer budget is cut to this."""


MAX_NAME = 255
"""Characters of a model's name."""

TRACES = "traces"
"""The extension of SUBMIT and WORK that carries the contexts of traces."""

MAX_TRACEPARENT, MAX_TRACESTATE = 128, 512
"""Characters of a trace's context, as W3C Trace Context writes it."""

MAX_TRACES = 512
"""Contexts that a broker puts into one WORK, so that its head stays small; others are left out."""


class Buffer(Protocol):
    """Bytes of a payload: `bytes`, `memoryview`, or a received frame that is passed on as is."""

    def __len__(self) -> int: ...


Frames: TypeAlias = list[Buffer]
Slot: TypeAlias = "Buffer | int | list[object] | None"


class ProtocolError(Exception):
    """Frames that are no message. Never leaves the drivers: they count, log and refuse."""


class Kind(IntEnum):
    """The first field of every head."""

    HELLO = 1
    WELCOME = 2
    REFUSE = 3
    SUBMIT = 4
    CANCEL = 5
    ACK = 6
    ANSWER = 7
    PART = 8
    PART_OK = 9
    NOTICE = 10
    PING = 11
    WORK = 12
    REPORT = 13
    STATE = 14
    STATUS = 15


class Role(IntEnum):
    """Who says HELLO."""

    CLIENT = 1
    WORKER = 2
    OBSERVER = 3


class Flag(IntFlag):
    """Properties of items, in SUBMIT and WORK."""

    ONCE = 1  # not idempotent: must never be run twice
    ALONE = 2  # WORK only: these items form one batch of their own, with no others
    READY = 4  # SUBMIT only: to be taken only while a worker is ready; another broker may have one
    MORE = 8  # WORK only: more items of this batch are coming, and it is not to begin without them
    GO = 16  # WORK only: no more are coming


class Fate(IntEnum):
    """What a worker says in REPORT, in the place of an error code, of items it has no answer to."""

    RETURNED = 601  # not begun, and will not be: may run elsewhere at no charge
    LOST = 602  # begun when the model's process died; details say how many were in the batch
    DROPPED = 603  # cancelled or expired here before it began


class WorkerState(IntEnum):
    """What a worker says of itself in STATE."""

    BOOTING = 1
    WARM = 2
    RESTARTING = 3
    DRAINING = 4
    BROKEN = 5


class Hello(NamedTuple):
    """First message of every connection. `id` is 63 random bits, new for each incarnation.

    `info` of a client: open (ids whose answers it waits for and which it has sent before).
    `info` of a worker: model, batch_size, pool (items beyond 2 × batch_size that it can choose
    from), host, pid, number, device. Of both: extensions.
    """

    role: int
    id: int
    info: dict[str, object]
    version: int = VERSION


class Welcome(NamedTuple):
    """The broker's answer to HELLO. `epoch` differs for each start of a broker.

    `extensions` are those of HELLO's that the broker knows too. It leaves the field out where there
    are none: a peer of before knows no such field.
    """

    epoch: int
    resumed: bool
    known: list[int]
    window_items: int
    window_bytes: int
    max_payload: int
    extensions: list[str] | tuple[()] = ()


class Refuse(NamedTuple):
    """The broker will not speak with this peer; it closes and says why."""

    error: list[object]


class Run(NamedTuple):
    """Items of one SUBMIT that share model, priority, flags and lane."""

    model: str
    priority: int
    flags: int
    lane: int
    ids: list[int]
    budgets: list[int]
    slots: list[Slot]


class Traced(NamedTuple):
    """Items that belong to one call whose trace is recorded.

    `traceparent` and `tracestate` are the headers of W3C Trace Context. `ids` are tickets in WORK,
    where `waited` says for how many microseconds the items were queued.
    """

    traceparent: str
    tracestate: str
    ids: list[int]
    waited: int = 0


class Submit(NamedTuple):
    """Items for the broker's queue; `ack` counts the ANSWERs read on this connection.

    `traces` name those of the items that are traced, for a broker that knows the extension.
    """

    ack: int
    runs: list[Run]
    traces: list[Traced] | tuple[()] = ()


class Cancel(NamedTuple):
    """Ids (from a client) or tickets (from a broker) that are no longer wanted."""

    ids: list[int]


class Ack(NamedTuple):
    """`read` ANSWERs have been read on this connection."""

    read: int


class Answer(NamedTuple):
    """Outcomes of items, for the client that waits for them."""

    ids: list[int]
    slots: list[Slot]


class Part(NamedTuple):
    """One piece of a large payload: the single frame that follows the head."""

    transfer: int
    data: Buffer


class PartOk(NamedTuple):
    """One part of this transfer was read."""

    transfer: int


class Notice(NamedTuple):
    """Why items for `model` wait, as an error without which they would be run; [] ends it."""

    model: str
    error: list[object]


class Ping(NamedTuple):
    """Proof of life, or a probe for it."""


class Work(NamedTuple):
    """Items for a worker. A ticket numbers one dispatch of one item, and is used only once.

    `tags` are there where the broker logs at level debug: what the items are called in logs.
    `traces` name those of the items that are traced, for a worker that knows the extension.
    """

    flags: int
    tickets: list[int]
    budgets: list[int]
    slots: list[Slot]
    tags: list[str] | tuple[()] = ()
    traces: list[Traced] | tuple[()] = ()


class Report(NamedTuple):
    """Tickets that have begun, then tickets that are done, with their outcomes.

    `backlog` counts the items that the worker holds from other brokers; `beta` and `alpha` are
    microseconds of its batch time T(n) = beta + alpha·n, 0 where not yet known.
    """

    begun: list[int]
    done: list[int]
    slots: list[Slot]
    backlog: int
    beta: int
    alpha: int


class State(NamedTuple):
    """A worker's state has changed; `text` says why where it is not WARM."""

    state: int
    text: str


class Status(NamedTuple):
    """Asked with an empty `info`, answered with the broker's snapshot."""

    info: dict[str, object]


Message: TypeAlias = (
    Hello
    | Welcome
    | Refuse
    | Submit
    | Cancel
    | Ack
    | Answer
    | Part
    | PartOk
    | Notice
    | Ping
    | Work
    | Report
    | State
    | Status
)
