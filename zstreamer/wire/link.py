"""The relation of a client or a worker to its brokers, over one connection after another.

    DOWN ── Connect ──> CONNECTING ── HELLO ──> GREETING ── WELCOME ──> READY
      ^                     │                      │                      │
      └─────────────────────┴── lost, or dropped: Close, then a pause ────┘

`Link` is one broker as its peer sees it, and `Peer` the half of a core that looks after all links.
Clients and workers add what they carry. No socket, clock, thread or random source in here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Generic, TypeAlias, TypeVar

from zstreamer import errors
from zstreamer.errors import ZStreamerError
from zstreamer.wire import membership, protocol
from zstreamer.wire.protocol import Frames, ProtocolError
from zstreamer.wire.transfer import Receiver, Sender

BACKOFF = 0.05
MAX_BACKOFF = 0.5
"""Seconds between attempts to connect: short, because budgets are."""

GREETING_TIMEOUT = 5.0
"""Seconds from the start of a connection to its WELCOME, then it is tried anew."""


class LinkState(Enum):
    """Where the relation stands."""

    DOWN = "down"
    CONNECTING = "connecting"
    GREETING = "greeting"
    READY = "ready"


Row = TypeVar("Row")


class Link(ABC, Generic[Row]):
    """One broker, as a client or a worker sees it.

    Attributes:
        since: monotonic seconds at which `state` was entered.
        retry_at: when DOWN, the monotonic seconds of the next attempt.
        attempts: connections in a row that have not come to READY.
        refusal: why the broker would not speak with us.
        leaving: its address is none of the brokers' any more.
        trouble: why the last connection could not be made, where that is known.
        sender: large payloads on their way out; ``Row`` says whose they are.
    """

    def __init__(self, address: str, now: float, max_payload: int) -> None:
        self.address = address
        self.state = LinkState.DOWN
        self.since = now
        self.retry_at = now
        self.attempts = 0
        self.refusal: ZStreamerError | None = None
        self.leaving = False
        self.trouble = ""
        self._max_payload = max_payload
        self._fresh()

    def _fresh(self) -> None:
        """Begin a connection with empty hands."""
        self.receiver = Receiver(self._max_payload)
        self.sender: Sender[Row] = Sender()
        self._plain: list[Frames] = []

    def enter(self, state: LinkState, now: float) -> None:
        """Change the state."""
        self.state = state
        self.since = now
        if state is LinkState.DOWN:
            self._fresh()

    @property
    def is_ready(self) -> bool:
        """Whether messages can be sent."""
        return self.state is LinkState.READY

    @property
    @abstractmethod
    def flush_at(self) -> float:
        """Monotonic seconds at which `flush` has something to send that depends on time alone."""

    def tell(self, message: protocol.Message) -> None:
        """Send a message without payload."""
        self._plain.append(protocol.plain(message))

    def _flush(self) -> tuple[list[Frames], list[tuple[int, Row]]]:
        """Return what goes ahead of items, and the transfers whose parts are then all out."""
        messages, self._plain = self._plain, []
        parts, done = self.sender.poll()
        return messages + parts, done


L = TypeVar("L", bound=Link[Any])


@dataclass(frozen=True, slots=True)
class Connect(Generic[L]):
    """Open a new connection for this link."""

    link: L


@dataclass(frozen=True, slots=True)
class Close(Generic[L]):
    """Close this link's connection."""

    link: L


@dataclass(frozen=True, slots=True)
class Send(Generic[L]):
    """Send a message on this link's connection."""

    link: L
    frames: Frames


LinkAction: TypeAlias = Connect[L] | Close[L] | Send[L]
"""What a core asks of its driver for a link."""

A = TypeVar("A")


class Peer(ABC, Generic[L, A]):
    """The half of a core that looks after its links; ``A`` is what the other half asks for.

    Args:
        role: what HELLO says that it is.
        id: 63 random bits, new for each incarnation.
        links: one for each broker.
        jitter: returns numbers in [0, 1); spreads the attempts to connect of many peers.
        info: plain values that go into HELLO, for people who look at the broker.
    """

    def __init__(
        self,
        role: protocol.Role,
        id: int,
        links: Sequence[L],
        jitter: Callable[[], float],
        info: dict[str, object] | None,
    ) -> None:
        self.id = id
        self.links = list(links)
        self._role = role
        self._jitter = jitter
        self._info = info or {}
        self._whereabouts = ""
        self._actions: list[LinkAction[L] | A] = []

    # What a connection has done

    def on_addresses(self, now: float, addresses: Sequence[str], words: str = "") -> None:
        """The brokers' addresses are now these; ``words`` say how they were found."""
        membership.update(self.links, addresses, lambda address: self._link(now, address))
        self._whereabouts = words

    def on_connected(self, now: float, link: L) -> None:
        """The connection is open: say HELLO."""
        if link.state is not LinkState.CONNECTING:
            return
        link.enter(LinkState.GREETING, now)
        info = {**self._info, "extensions": [protocol.TRACES], **self._greeting(link)}
        hello = protocol.Hello(self._role, self.id, info)
        self._send(link, [protocol.hello(hello)])

    def on_lost(self, now: float, link: L) -> None:
        """The connection is gone, or could not be made."""
        if link.state is LinkState.DOWN:
            return
        if link.state is LinkState.READY:
            link.attempts = 0
        link.enter(LinkState.DOWN, now)
        delay = min(MAX_BACKOFF, BACKOFF * 2**link.attempts) * (0.5 + 0.5 * self._jitter())
        link.retry_at = now + delay
        link.attempts = min(link.attempts + 1, 10)

    def on_failed(self, now: float, link: L, why: str) -> None:
        """As `on_lost`, with the reason where that is known."""
        link.trouble = why
        self.on_lost(now, link)

    def on_denied(self, now: float, link: L, why: ZStreamerError) -> None:
        """The connection could not be made: the broker and this peer do not trust each other."""
        if link.state is not LinkState.DOWN:
            link.refusal = why
            self.on_lost(now, link)

    def on_message(self, now: float, link: L, frames: Frames) -> None:
        """A message has come."""
        if link.state not in (LinkState.GREETING, LinkState.READY):
            return  # read together with what ended the connection
        try:
            message = protocol.decode(frames)
        except ProtocolError as error:
            self._drop(now, link, errors.BadRequest(f"{link.address} is not a broker: {error}"))
            return
        match message:
            case protocol.Part():
                link.receiver.part(message.transfer, message.data)
                link.tell(protocol.PartOk(message.transfer))
            case protocol.PartOk():
                link.sender.ok()
            case protocol.Welcome():
                if link.state is LinkState.GREETING:
                    link.enter(LinkState.READY, now)
                    link.attempts = 0
                    link.refusal = None
                    link.trouble = ""
                    self._welcome(now, link, message)
            case protocol.Refuse():
                self._refused(now, link, errors.from_wire(message.error))
            case _:
                self._message(now, link, message, frames)

    # What to do

    def wake_at(self) -> float:
        """Return the monotonic seconds at which `poll` must be called at the latest."""
        wake = float("inf")
        for link in self.links:
            if link.state is LinkState.READY:
                wake = min(wake, link.flush_at)
            elif link.state is not LinkState.DOWN:
                wake = min(wake, link.since + GREETING_TIMEOUT)
            elif self._wanted(link):
                wake = min(wake, link.retry_at)
        return wake

    def _check(self, now: float, link: L) -> None:
        """Connect it where it should be up, and give up a connection without WELCOME."""
        if link.state is LinkState.DOWN:
            if now >= link.retry_at and self._wanted(link):
                self._connect(now, link)
        elif link.state is not LinkState.READY and now >= link.since + GREETING_TIMEOUT:
            self._drop(now, link)

    def _connect(self, now: float, link: L) -> None:
        link.enter(LinkState.CONNECTING, now)
        self._actions.append(Connect(link))

    def _drop(self, now: float, link: L, why: ZStreamerError | None = None) -> None:
        link.refusal = why or link.refusal
        self._actions.append(Close(link))
        self.on_lost(now, link)

    def _send(self, link: L, messages: Sequence[Frames]) -> None:
        self._actions.extend(Send(link, frames) for frames in messages)

    def _leave(self, now: float) -> list[L]:
        """Drop the links of brokers that are gone from the addresses; return them."""
        gone = membership.remove(self.links, self._may_leave)
        for link in gone:
            if link.state is not LinkState.DOWN:
                self._drop(now, link)
        return gone

    def _take_actions(self) -> list[LinkAction[L] | A]:
        actions, self._actions = self._actions, []
        return actions

    # What clients and workers add

    @abstractmethod
    def _link(self, now: float, address: str) -> L:
        """Return a new link that is down."""

    @abstractmethod
    def _may_leave(self, link: L) -> bool:
        """Whether nothing is open any more on a link that is leaving, or it is lost."""

    @abstractmethod
    def _wanted(self, link: L) -> bool:
        """Whether a link that is down should be up."""

    @abstractmethod
    def _greeting(self, link: L) -> dict[str, object]:
        """What HELLO says besides `info`."""

    @abstractmethod
    def _welcome(self, now: float, link: L, welcome: protocol.Welcome) -> None:
        """The link is ready."""

    def _refused(self, now: float, link: L, error: ZStreamerError) -> None:
        """The broker will not speak with this peer."""
        self._drop(now, link, error)

    @abstractmethod
    def _message(self, now: float, link: L, message: protocol.Message, frames: Frames) -> None:
        """A message has come that is not of the link's own."""
