"""Asks a broker how it is, over the clients' port."""

from __future__ import annotations

import contextlib
import math
import time
from collections import deque
from typing import Any

import zmq

from zstreamer.config import CONNECT_TIMEOUT
from zstreamer.errors import BrokerUnreachable, Unauthorized, from_wire
from zstreamer.keys.credentials import Credentials, Keys, given
from zstreamer.keys.ring import Role
from zstreamer.wire import handshake, protocol, transport


def fetch(address: str, timeout: float = CONNECT_TIMEOUT, keys: Keys = None) -> dict[str, object]:
    """Return the broker's snapshot: ``{"broker": {…}, "models": {name: {…}}}``.

    Args:
        address: one broker's client address.
        timeout: seconds.
        keys: as `zstreamer.Client` takes them.

    Raises:
        BrokerUnreachable: nothing that is a broker answered in time.
        ZStreamerError: the broker refused, and says why.
    """
    credentials = given(keys, Role.CLIENT)
    attempt = 0
    end = time.monotonic() + timeout
    problem = f"no broker answered at {address} within {timeout:g} s"
    while (left := end - time.monotonic()) > 0:
        try:
            curve = credentials.curve(attempt) if credentials else None
            connection = transport.Connection(address, transport.Options(), curve=curve)
        except (OSError, zmq.ZMQError) as error:
            raise BrokerUnreachable(f"{address}: {error.strerror or error}") from None
        try:
            snapshot = _ask(connection, min(left, 1.0))
        except protocol.ProtocolError as error:
            problem = f"{address} is not a broker: {error}"
            snapshot = None
        finally:
            connection.close()
        if snapshot is not None:
            return snapshot
        attempt += 1
        why = _why_not(connection, address, credentials, end)
        if why is not None and (credentials is None or attempt >= credentials.servers):
            raise why
        # A refused connection fails at once; trying again at once would only burn the time.
        time.sleep(min(0.05, max(0.0, end - time.monotonic())))
    raise BrokerUnreachable(f"{problem}; check the address and that `zstreamer broker` runs there")


def _why_not(
    connection: transport.Connection, address: str, credentials: Credentials | None, end: float
) -> Unauthorized | None:
    """Return why a broker would not shake hands; None where keys are not why."""
    if not handshake.needs_probe(connection):
        return handshake.cause(connection, address, credentials)
    probe = handshake.Probe(address, transport.Options())
    poller = zmq.Poller()
    probe.register(poller)
    try:
        while (left := end - time.monotonic()) > 0:
            poller.poll(math.ceil(left * 1000))
            deque(probe.receive())
            if any(probe.events()):
                break
        return handshake.cause(probe, address, credentials)
    finally:
        probe.close()


def _ask(connection: transport.Connection, timeout: float) -> dict[str, object] | None:
    poller = zmq.Poller()
    connection.register(poller)
    end = time.monotonic() + timeout
    found: dict[str, object] = {}
    while (left := end - time.monotonic()) > 0:
        poller.poll(math.ceil(left * 1000))
        for event in connection.events():
            if event is not transport.Event.UP:
                return None
            connection.send(protocol.plain(protocol.Status({})))
        for frames in connection.receive():
            message = protocol.decode(frames)
            if isinstance(message, protocol.Status):
                following = message.info.pop("next", None)
                _add(found, message.info)
                if following is None:
                    return found
                connection.send(protocol.plain(protocol.Status({"from": following})))
            if isinstance(message, protocol.Refuse):
                raise from_wire(message.error)
    return None


def _add(found: dict[str, object], page: dict[str, object]) -> None:
    """Add a page of the snapshot to those before; a model may be on several, with its workers."""
    models, more = found.get("models"), page.get("models")
    if not isinstance(models, dict) or not isinstance(more, dict):
        found.update(page)
        return
    for name, model in more.items():
        known: Any = models.setdefault(name, model)
        if known is not model:
            with contextlib.suppress(TypeError, KeyError):  # no broker of ours
                known["workers"] += model["workers"]
