"""The program of one side of a closed loop: clients that ask again, or workers that answer.

Through a broker they speak its protocol, and bundles become what the moment makes of them: what
came in one turn goes out as one message. Through `zmq.proxy` each item is a message of its own, as
libzmq is usually used. Both are the same loop around raw sockets, and both send bytes that were
made beforehand; see `tests.bench.through`.
"""

from __future__ import annotations

import time
from typing import NamedTuple, Protocol

import zmq

from tests.bench.peers import Client, Way, Worker
from tests.bench.program import PAUSED, READY, begin
from tests.bench.sockets import Ready, Speaker, dealer
from zstreamer.wire import protocol


class Side(NamedTuple):
    """What one program plays.

    Attributes:
        role: "client" or "worker".
        middle: "broker", "proxy" or "relay".
        address: the middle's, for this side.
        peers: sessions.
        first: the number of the first of them.
        open: items that each client has unanswered.
        batch: the batch size of each worker.
        size: bytes of a payload.
    """

    role: str
    middle: str
    address: str
    peers: int
    first: int
    open: int
    batch: int
    size: int


class Player(Speaker, Protocol):
    """One session of a side."""

    def start(self, count: int) -> None:
        """Begin, a client with so many items."""

    def turn(self) -> None:
        """Read what is there, and send what follows from it."""

    def idle(self) -> None:
        """Nothing has come for a second."""


class _Client(Client):
    def start(self, count: int) -> None:
        self.wait_welcome()
        self.submit(count)

    def turn(self) -> None:
        if items := self.read():
            self.submit(items)

    def idle(self) -> None:
        """Wait on."""


class _Worker(Worker):
    def start(self, count: int) -> None:
        self.wait_welcome()
        self.warm()

    def turn(self) -> None:
        self.read()

    def idle(self) -> None:
        self.ping()


class _SingleClient:
    """Sends items one a message, through a proxy."""

    def __init__(self, side: Side, tally: memoryview) -> None:
        self.socket = dealer(side.address)
        self._tally = tally
        payload = bytes(side.size)
        self._copied = side.size <= protocol.INLINE
        self._payload = payload if self._copied else zmq.Frame(payload)

    def start(self, count: int) -> None:
        for _ in range(count):
            self.socket.send(self._payload, copy=self._copied)

    def turn(self) -> None:
        items = 0
        try:
            while True:
                self.socket.recv(zmq.NOBLOCK, copy=self._copied)
                items += 1
        except zmq.Again:
            self._tally[Way.ANSWER] += items
            self._tally[4 + Way.ANSWER] += items
        self.start(items)

    def idle(self) -> None:
        """Wait on."""


class _SingleWorker:
    """Sends each message back as it came."""

    def __init__(self, side: Side, tally: memoryview) -> None:
        self.socket = dealer(side.address)
        self._copied = side.size <= protocol.INLINE

    def start(self, count: int) -> None:
        """Wait for the first."""

    def turn(self) -> None:
        try:
            while True:
                frames = self.socket.recv_multipart(zmq.NOBLOCK, copy=self._copied)
                self.socket.send_multipart(frames, copy=self._copied)
        except zmq.Again:
            return

    def idle(self) -> None:
        """Wait on."""


def _player(side: Side, number: int, tally: memoryview) -> Player:
    if side.middle != "broker":
        return (_SingleClient if side.role == "client" else _SingleWorker)(side, tally)
    if side.role == "client":
        return _Client(side.address, number, side.size, tally)
    return _Worker(side.address, side.size, tally, side.batch, 0)


def main() -> None:
    """Play a side until the benchmark ends."""
    settings, tally = begin()
    settings.pop("counters")
    side = Side(**settings)
    peers = [_player(side, side.first + number, tally) for number in range(side.peers)]
    for peer in peers:
        peer.start(side.open)
    tally[READY] = 1
    ready = Ready(peers)
    while True:
        while tally[PAUSED]:
            time.sleep(0.002)
        found = ready.wait(1.0)
        for peer in found:
            peer.turn()
            ready.sent(peer)
        if not found:
            for peer in peers:
                peer.idle()


if __name__ == "__main__":
    main()
