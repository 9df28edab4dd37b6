"""Messages between an agent and the child that holds its model.

    agent ── Items, Traces, Plan, Drop ──> child  a stream of msgpack arrays over a
          <── Booted, Failed, Preparing, Prepared, ──   pair of Unix sockets
              Claim, Done

A batch is claimed before it runs: whatever becomes of the child afterwards, the agent reads which
items had begun. A plan that is claimed as it is is noted in memory that both share, see `claims`;
what is left of one, where some of its items are gone, is a `Claim`. `Preparing` says the same of
what the model's own code does on arrival.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple, TypeAlias

import msgpack

from zstreamer.wire.messages import Traced

Outcome: TypeAlias = "bytes | list[object]"
"""The payload of an output, or an error as `errors.to_wire` writes it."""


class Items(NamedTuple):
    """Payloads to be decoded and held; `once` marks those that may run only once.

    `alone`: suspects, which are prepared apart from others too.
    """

    ids: list[int]
    payloads: list[bytes]
    once: bool
    alone: bool = False


class Traces(NamedTuple):
    """Those of the next Items that are traced, as in WORK, with their ids in the tickets' place."""

    rows: list[Traced]


class Plan(NamedTuple):
    """The batch that may be claimed the moment the model is free; replaces the one before.

    `ahead`: also while one batch still computes, by a model that can start the next meanwhile.
    """

    serial: int
    ids: list[int]
    ahead: bool = False


class Drop(NamedTuple):
    """Items that are no longer wanted, if they have not begun."""

    ids: list[int]


class Booted(NamedTuple):
    """The model is loaded and warm; `has_cost` where `Prepared` will say what items cost.

    `inputs` and `outputs` are what `signature.declared` makes of the model's, `example` what
    `signature.example_text` does. `ahead`: it can start a batch while the one before computes.
    """

    has_cost: bool
    inputs: list[dict[str, object]] | None = None
    outputs: list[dict[str, object]] | None = None
    example: str = ""
    ahead: bool = False


class Failed(NamedTuple):
    """The model cannot be loaded, or can run nothing any more: then this process ends.

    `text` is the traceback, or the one line that says it.

    `final` where trying again cannot help: there is no such module or class.
    """

    text: str
    final: bool = False


class Preparing(NamedTuple):
    """The model's prepare() or cost() is about to see these."""

    ids: list[int]


class Prepared(NamedTuple):
    """It has seen them; what each costs where the model says, for batches of like sizes."""

    ids: list[int]
    costs: list[float]


class Claim(NamedTuple):
    """These items of a plan begin now."""

    serial: int
    ids: list[int]


class Done(NamedTuple):
    """Outcomes; `seconds` is how long predict ran, 0 where it tells nothing of batch times."""

    ids: list[int]
    outcomes: list[Outcome]
    seconds: float


PipeMessage: TypeAlias = (
    Items | Traces | Plan | Drop | Booted | Failed | Preparing | Prepared | Claim | Done
)

_CLASSES: tuple[type, ...] = (
    *(Items, Traces, Plan, Drop),
    *(Booted, Failed, Preparing, Prepared, Claim, Done),
)
_KINDS = {cls: kind for kind, cls in enumerate(_CLASSES)}

MAX_MESSAGE = 2**31 - 1
"""Bytes of one message: msgpack's own limit, since both ends trust each other."""


def pack(message: PipeMessage) -> bytes:
    """Return the bytes of one message."""
    packed: bytes = msgpack.packb((_KINDS[type(message)], *message))
    return packed


class Stream:
    """Turns the bytes of one direction back into messages."""

    def __init__(self) -> None:
        self._unpacker = msgpack.Unpacker(max_buffer_size=MAX_MESSAGE, strict_map_key=False)

    def feed(self, data: bytes) -> Iterator[PipeMessage]:
        """Take bytes as they come; yield each message that is then whole."""
        self._unpacker.feed(data)
        for kind, *fields in self._unpacker:
            yield _CLASSES[kind](*fields)


MOST_JOINED = 256
"""Items that are joined at most: the first of them waits until all have been prepared."""


def joined(messages: Iterable[PipeMessage]) -> Iterator[PipeMessage]:
    """Yield messages as they are, but Items that follow each other as one."""
    ahead: Items | None = None
    for message in messages:
        if ahead is not None and not _belong_together(ahead, message):
            yield ahead
            ahead = None
        if not isinstance(message, Items) or message.alone:
            yield message
        elif ahead is None:
            ahead = Items([*message.ids], [*message.payloads], message.once)
        else:
            ahead.ids.extend(message.ids)
            ahead.payloads.extend(message.payloads)
    if ahead is not None:
        yield ahead


def _belong_together(items: Items, message: PipeMessage) -> bool:
    return (
        isinstance(message, Items)
        and not message.alone
        and message.once == items.once
        and len(items.ids) + len(message.ids) <= MOST_JOINED
    )
