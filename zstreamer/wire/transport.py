"""Sockets: the only place where ZeroMQ options are set and connections are made.

One connection is one socket. A DEALER here never reconnects by itself: when its connection
is gone it is closed, and its owner opens another one and says HELLO again. So a broker
always knows which of two messages came first, and nothing is delivered twice by a queue that
outlived its connection.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

import zmq

from zstreamer import config
from zstreamer.keys.secrets import Curve, Pair
from zstreamer.system import descriptors
from zstreamer.wire.protocol import MAX_FRAME, MAX_FRAMES, Frames

if TYPE_CHECKING:
    from collections.abc import Container, Sequence

SKIPPED_AT_ONCE = 10_000
"""Frames that are read in vain before others have their turn, at some 1 µs each. What else the
same ROUTER has read comes after them: libzmq gives out whole messages only."""


class Options(NamedTuple):
    """Liveness of a connection, in seconds.

    `heartbeat` is how often ZMTP pings an idle peer, `timeout` how long it may be silent
    before its connection is cut. libzmq's own threads do both, so a Python program that is
    busy does not look dead. Slow links need a `timeout` in which one frame of 1 MiB passes.
    """

    heartbeat: float = config.HEARTBEAT
    timeout: float = config.SILENCE


class Event(Enum):
    """What a connection has done."""

    UP = "up"
    DOWN = "down"
    REJECTED = "rejected"
    """The other side took it, and ended it before it was up."""


_UP = zmq.EVENT_HANDSHAKE_SUCCEEDED
_REJECTED = (
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
)
_DOWN = zmq.EVENT_DISCONNECTED | zmq.EVENT_CLOSED


_send = zmq.backend.Socket.send
_recv = zmq.backend.Socket.recv
_NOBLOCK, _MORE = int(zmq.NOBLOCK), int(zmq.NOBLOCK | zmq.SNDMORE)  # plain: enums are slow
_Frame = zmq.Frame
_EVENTS, _POLLIN = int(zmq.EVENTS), int(zmq.POLLIN)


def context() -> zmq.Context[zmq.Socket[bytes]]:
    """Return this process's context; a forked child gets one of its own."""
    return zmq.Context.instance()


def _common(socket: zmq.Socket[bytes], options: Options) -> None:
    # A full receive queue stops libzmq from reading PONGs, and the heartbeat then cuts a
    # healthy connection; and libzmq 4.3.5 aborts the process (`!_io_error`) where the peer goes
    # away meanwhile. Windows and caps bound memory instead.
    socket.setsockopt(zmq.RCVHWM, 0)
    socket.setsockopt(zmq.SNDHWM, 0)
    socket.setsockopt(zmq.MAXMSGSIZE, MAX_FRAME)
    socket.setsockopt(zmq.HEARTBEAT_IVL, int(options.heartbeat * 1000))
    # libzmq counts from the ping, which leaves up to one interval after the last word.
    socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, int((options.timeout - options.heartbeat) * 1000))
    socket.setsockopt(zmq.HEARTBEAT_TTL, int(options.timeout * 1000))
    # A ping waits behind what is being written, so it cannot tell of a peer that vanished
    # amid a large message; TCP can, by data that is not acknowledged.
    socket.setsockopt(zmq.TCP_MAXRT, int(options.timeout * 1000))
    socket.setsockopt(zmq.TCP_KEEPALIVE, 1)
    socket.setsockopt(zmq.TCP_KEEPALIVE_IDLE, 30)
    socket.setsockopt(zmq.TCP_KEEPALIVE_INTVL, 10)
    socket.setsockopt(zmq.TCP_KEEPALIVE_CNT, 3)
    socket.setsockopt(zmq.HANDSHAKE_IVL, 5000)
    socket.setsockopt(zmq.IPV6, 1)


def zap() -> zmq.Socket[bytes]:
    """Bind the socket at which libzmq asks whether a key may pass; see `zstreamer.broker.zap`.

    Raises:
        zmq.ZMQError: this process has one already.
    """
    socket = context().socket(zmq.REP)
    socket.setsockopt(zmq.LINGER, 0)
    try:
        socket.bind("inproc://zeromq.zap.01")
    except zmq.ZMQError:
        socket.close(linger=0)
        raise
    return socket


def secure(socket: zmq.Socket[bytes], pair: Pair, domain: bytes) -> None:
    """Have a ROUTER, before it is bound, ask peers for keys and prove its own."""
    socket.setsockopt(zmq.CURVE_SERVER, 1)
    socket.setsockopt(zmq.CURVE_SECRETKEY, pair.secret.reveal())
    socket.setsockopt(zmq.ZAP_DOMAIN, domain)
    # Without it libzmq would let everybody in where nobody answers for the keys.
    socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)


def router(
    address: str, options: Options, pair: Pair | None = None, domain: bytes = b""
) -> zmq.Socket[bytes]:
    """Bind a ROUTER.

    Args:
        address: where.
        options: its liveness.
        pair: the broker's own; with it, peers need keys.
        domain: what ZAP calls this socket.

    Raises:
        zmq.ZMQError: the address cannot be bound.
    """
    socket = context().socket(zmq.ROUTER)
    _common(socket, options)
    # With MANDATORY a send says at once that a peer is gone; never without NOBLOCK.
    socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
    socket.setsockopt(zmq.BACKLOG, 1024)
    socket.setsockopt(zmq.LINGER, 1000)
    if pair is not None:
        secure(socket, pair, domain)
    try:
        socket.bind(address)
    except zmq.ZMQError:
        socket.close(linger=0)
        raise
    return socket


def unbind(socket: zmq.Socket[bytes], address: str) -> None:
    """Have a socket that is bound take nobody new; who is connected stays."""
    bound = socket.getsockopt(zmq.LAST_ENDPOINT)
    socket.unbind(bound.rstrip(b"\0") if isinstance(bound, bytes) else address)


class Connection:
    """A DEALER's one connection, and the monitor that tells what becomes of it.

    Args:
        address: the broker's.
        options: its liveness.
        linger: seconds that what was sent last gets to leave when it is closed.
        curve: the keys of both sides, where the broker asks for them.

    Attributes:
        failed: how its handshake failed, as the monitor told it.

    Raises:
        OSError: this process may open no more descriptors.
        zmq.ZMQError: the address is malformed.
    """

    def __init__(
        self, address: str, options: Options, linger: float = 0.0, curve: Curve | None = None
    ) -> None:
        self.failed: Monitored | None = None
        self._open(address, options, linger, zmq.DEALER, curve)

    def _open(
        self,
        address: str,
        options: Options,
        linger: float,
        kind: zmq.SocketType,
        curve: Curve | None,
    ) -> None:
        descriptors.require()
        self.socket = context().socket(kind)
        _common(self.socket, options)
        if curve is not None:
            self.socket.setsockopt(zmq.CURVE_PUBLICKEY, curve.pair.public)
            self.socket.setsockopt(zmq.CURVE_SECRETKEY, curve.pair.secret.reveal())
            self.socket.setsockopt(zmq.CURVE_SERVERKEY, curve.server)
        # Without IMMEDIATE, messages for a dead broker would reach its successor.
        self.socket.setsockopt(zmq.IMMEDIATE, 1)
        self.socket.setsockopt(zmq.RECONNECT_IVL, -1)
        self.socket.setsockopt(zmq.CONNECT_TIMEOUT, 3000)
        self.socket.setsockopt(zmq.LINGER, int(linger * 1000))
        self.monitor = self.socket.get_monitor_socket(_UP | _REJECTED | _DOWN)
        try:
            self.socket.connect(address)
        except zmq.ZMQError:
            self.close()
            raise

    def filenos(self) -> tuple[int, int]:
        """Return the two descriptors to watch for reading; both are edge-triggered."""
        return self.socket.getsockopt(zmq.FD), self.monitor.getsockopt(zmq.FD)  # type: ignore[return-value]

    def register(self, poller: zmq.Poller) -> None:
        """Have a poller watch it."""
        poller.register(self.socket, zmq.POLLIN)
        poller.register(self.monitor, zmq.POLLIN)

    def unregister(self, poller: zmq.Poller) -> None:
        """Have a poller forget it."""
        poller.unregister(self.socket)
        poller.unregister(self.monitor)

    def receive(self) -> Iterator[Frames]:
        """Yield the messages that are here now."""
        while (frames := receive(self.socket)) is not None:
            yield frames  # where it is cut short, its rest makes no message either

    def events(self) -> Iterator[Event]:
        """Yield what has become of the connection since the last look, until it is closed."""
        while not self.monitor.closed and (told := event(self.monitor)):
            if told.kind & _UP:
                yield Event.UP
            else:
                if told.kind & _REJECTED:
                    self.failed = told
                yield Event.REJECTED if told.kind & _REJECTED else Event.DOWN

    def pending(self) -> bool:
        """Whether anything is to be read; must be asked after each send.

        The descriptors tell edges only, and a send may swallow one.
        """
        return _readable(self.socket) or _readable(self.monitor)

    def send(self, frames: Frames) -> bool:
        """Send a message; False where there is no connection any more."""
        return send(self.socket, frames)

    def close(self) -> None:
        """Close the socket and its monitor."""
        self.socket.disable_monitor()
        self.monitor.close(linger=0)
        self.socket.close()


class Monitored(NamedTuple):
    """What a monitor tells: zmq.EVENT_…, and a descriptor or an error, as that event has it."""

    kind: int
    value: int


def event(monitor: zmq.Socket[bytes]) -> Monitored | None:
    """Return the next event of a monitor, None where there is none now.

    Read by hand, since pyzmq's parser imports asyncio, a third of all import time. The first
    frame holds 16 bits of the event and 32 of its value, in the machine's order
    (zmq_socket_monitor(3)).
    """
    if not _readable(monitor):
        return None
    words, _ = monitor.recv_multipart(_NOBLOCK)
    kind, value = (int.from_bytes(each, sys.byteorder) for each in (words[:2], words[2:6]))
    return Monitored(kind, value)


def receive(socket: zmq.Socket[bytes]) -> Frames | None:
    """Return the next message of a DEALER, or None where there is none now.

    The head is copied out, being small; payloads stay in libzmq's memory and are passed on
    from there. Of a message of more than `MAX_FRAMES` the rest is not read.
    """
    if not _readable(socket):
        return None
    return _frames(socket, socket.recv(_NOBLOCK, copy=False))


def _readable(socket: zmq.Socket[bytes]) -> bool:
    """Whether there is a message; to ask costs a third of the exception where there is none."""
    return bool(int(socket.get(_EVENTS)) & _POLLIN)


def _frames(socket: zmq.Socket[bytes], head: zmq.Frame) -> Frames:
    frames: Frames = [head.bytes]
    frame = head
    while frame.more:
        frame = socket.recv(_NOBLOCK, copy=False)
        frames.append(frame)
        if len(frames) > MAX_FRAMES:
            break
    return frames


class Inbox:
    """What comes to a ROUTER, message by message; one of endless frames is read a piece at a time.

    Args:
        socket: the ROUTER.
        deaf: sessions of which nothing is to be read; may change meanwhile.

    Attributes:
        skipping: the last message goes on with more frames, which are read in vain.
    """

    def __init__(self, socket: zmq.Socket[bytes], deaf: Container[bytes] = ()) -> None:
        self._socket = socket
        self._deaf = deaf
        self.skipping = False
        self._head: zmq.Frame | None = None

    def receive(self) -> tuple[bytes, Frames] | None:
        """Return session and frames of the next message, None where there is none now.

        A message of a deaf session has no frames, and one of too many has one that is empty.
        """
        if self.skipping and not self._skip():
            return None
        try:
            session = self._socket.recv(_NOBLOCK)
            self._head = head = self._socket.recv(_NOBLOCK, copy=False)
        except zmq.Again:
            return None
        if session in self._deaf:
            if head.more:
                self._skip()
            return session, []
        if not head.more:
            return session, [head.bytes]
        frames = _frames(self._socket, head)
        if len(frames) > MAX_FRAMES:
            self.skipping = bool(self._socket.getsockopt(zmq.RCVMORE))
            return session, [b""]
        return session, frames

    def waiting(self) -> bool:
        """Whether there is another message, or more of the last one."""
        return _readable(self._socket)

    @property
    def descriptor(self) -> int:
        """The descriptor of the connection on which the last message came; -1 where unknown."""
        try:
            return int(self._head.get(zmq.SRCFD))  # type: ignore[union-attr]  # or it raises
        except (zmq.ZMQError, AttributeError):
            return -1

    @property
    def user(self) -> str:
        """Whose key the connection of the last message has; empty where it has none."""
        try:
            return str(self._head.get("User-Id"))  # type: ignore[union-attr]  # or it raises
        except (zmq.ZMQError, AttributeError):
            return ""

    def _skip(self) -> bool:
        """Read on to the end of a message and keep nothing; False where that takes longer."""
        for _ in range(SKIPPED_AT_ONCE):
            if not _recv(self._socket, _NOBLOCK, False).more:
                self.skipping = False
                return True
        self.skipping = True
        return False


def send(socket: zmq.Socket[bytes], frames: Sequence[object]) -> bool:
    """Send a message; False where the peer cannot be reached.

    The first frame decides: once libzmq has taken it, it takes the rest. Received frames go on
    without a copy. Others are copied (some 0.1 ms for 1 MiB): without, pyzmq would watch over
    them in a Python thread, which under gevent's monkey-patching is a greenlet that blocks.
    """
    left = len(frames)
    try:
        for frame in frames:
            left -= 1
            # Not `socket.send`: half of its time goes into options that are not used here.
            _send(socket, frame, _MORE if left else _NOBLOCK, not isinstance(frame, _Frame))  # type: ignore[call-overload]  # as above
    except zmq.Again:
        return False
    except zmq.ZMQError as error:
        if error.errno == zmq.EHOSTUNREACH:
            return False
        raise
    return True
