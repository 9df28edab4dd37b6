"""Why a handshake failed, in words that name the cause.

libzmq tells a client whose key is refused so. A broker with another key, or one that asks for keys
where the client has none, just ends the connection; what it asks for stands in the first bytes
that every ZeroMQ peer sends, its greeting. So a connection that ended without a reason is followed
by a `Probe`, which reads that greeting and says nothing of its own but that it is there.
"""

from __future__ import annotations

from collections.abc import Iterator

import zmq

from zstreamer.errors import Unauthorized
from zstreamer.keys.credentials import Credentials
from zstreamer.wire.protocol import Frames
from zstreamer.wire.transport import Connection, Event, Options

MISMATCH = 0x11000002
"""ZMQ_PROTOCOL_ERROR_ZMTP_MECHANISM_MISMATCH: one side has keys, and the other has none."""

CRYPTOGRAPHIC = 0x11000001
"""ZMQ_PROTOCOL_ERROR_ZMTP_CRYPTOGRAPHIC: the broker did not prove the key that was expected."""

OTHER_PORT = 500
"""What `zstreamer.broker.zap` answers for a key that is known for the other port."""

_SIGNATURE = b"\xff\0\0\0\0\0\0\0\x01\x7f\x03"
"""The first 11 bytes of ZMTP 3; the rest of the peer's greeting follows on them."""

_MECHANISM = slice(12, 32)
"""Where the greeting has the name of the mechanism."""


class Probe(Connection):
    """Reads the greeting of a broker that ended a handshake without a reason.

    It looks like a connection that ends soon; `mechanism` is then what the broker asks for.

    Attributes:
        mechanism: "NULL", "CURVE" …; empty where no greeting of ZeroMQ came.
    """

    def __init__(self, address: str, options: Options) -> None:
        self.failed = None
        self.mechanism = ""
        self._read = b""
        self._ended = False
        self._open(address, options, 0.0, zmq.STREAM, None)

    def receive(self) -> Iterator[Frames]:
        """Read what has come of the greeting; yields nothing."""
        while not self._ended:
            try:
                peer, data = self.socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            if not data and not self._read:  # it is connected
                try:
                    self.socket.send_multipart([peer, _SIGNATURE], zmq.NOBLOCK)
                except zmq.ZMQError:  # it has gone again already
                    self._ended = True
                continue
            self._read += data
            self._ended = not data or len(self._read) >= _MECHANISM.stop
        if self._read[:1] == b"\xff" and len(self._read) >= _MECHANISM.stop:
            self.mechanism = self._read[_MECHANISM].rstrip(b"\0").decode("ascii", "replace")
        yield from ()

    def events(self) -> Iterator[Event]:
        """Yield its end, once."""
        for each in super().events():
            self._ended = self._ended or each is not Event.UP
        if self._ended and not self.monitor.closed:
            yield Event.DOWN


def needs_probe(connection: Connection) -> bool:
    """Whether a connection has ended in its handshake without a reason."""
    failed = connection.failed
    return failed is not None and failed.kind == zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL


def is_other_key(connection: Connection) -> bool:
    """Whether a broker asks for keys and did not prove the one that was expected."""
    if isinstance(connection, Probe):
        return connection.mechanism == "CURVE"
    failed = connection.failed
    return failed is not None and failed.value == CRYPTOGRAPHIC


def cause(
    connection: Connection, address: str, credentials: Credentials | None
) -> Unauthorized | None:
    """Return why a connection that has ended could not be made; None where keys are not why.

    Args:
        connection: the connection, or the probe that followed it.
        address: the broker's.
        credentials: what the connection was made with.
    """
    if isinstance(connection, Probe):
        return _of_mechanism(connection.mechanism, address, credentials)
    failed = connection.failed
    if failed is None:
        return None
    if failed.kind == zmq.EVENT_HANDSHAKE_FAILED_AUTH and credentials is not None:
        return _refused(failed.value, address, credentials)
    if failed.kind == zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL:
        if failed.value == MISMATCH:
            return _of_mechanism("NULL" if credentials else "CURVE", address, credentials)
        if failed.value == CRYPTOGRAPHIC and credentials is not None:
            return _of_mechanism("CURVE", address, credentials)
    return None


def _refused(status: int, address: str, credentials: Credentials) -> Unauthorized:
    key = f"the key {credentials.name!r} ({credentials.path})"
    if status == OTHER_PORT:
        return Unauthorized(
            f"the broker at {address} knows {key} for its other port: clients connect to one "
            "(7787), workers to the other (7788); check the address"
        )
    return Unauthorized(
        f"the broker at {address} does not know {key}: it was revoked, or was made for another "
        "broker; `zstreamer keys list` on its machine shows the keys that it knows"
    )


def _of_mechanism(
    mechanism: str, address: str, credentials: Credentials | None
) -> Unauthorized | None:
    if mechanism == "CURVE" and credentials is None:
        return Unauthorized(
            f"the broker at {address} asks for a key, and this program has none: make one on "
            "its machine with `zstreamer keys client NAME` (or `worker NAME`), and give its file "
            "as keys"
        )
    if mechanism == "CURVE":
        return Unauthorized(
            f"the broker at {address} does not have the key that {credentials.path} "  # type: ignore[union-attr]  # not None here
            "expects: it is another broker, or its key was changed; `zstreamer keys show` on its "
            "machine prints the server-key that the file must have"
        )
    if mechanism == "NULL" and credentials is not None:
        return Unauthorized(
            f"the broker at {address} has no keys, so nobody could tell whether it is the right "
            f"one: start it with --keys, or do not give keys ({credentials.path}) here"
        )
    return None
