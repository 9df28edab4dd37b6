"""A broker under a load that holds its bundles: each way, every message carries the same items.

    client c    ── SUBMIT k ──▶ ┌────────┐ ── WORK k ───▶    worker w
    (any other) ◀── ANSWER k ── │ broker │ ◀── REPORT k ──   (the same, a moment before)
                                └────────┘
                                 a queue that never runs dry, windows that are full

Left to themselves bundles become what the moment makes of them, and no two runs are the same. Here
every worker's window is full and a few bundles wait, so that exactly what a REPORT of k frees is
filled by a WORK of k; and a REPORT holds k items of one client, so that they make one ANSWER of k.
A SUBMIT of k goes out with each REPORT. Some such pairs are in flight, each of another worker and
of another client where there are as many; where there are fewer, what meets in the broker leaves
together, and the bundles are larger than k.
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from itertools import cycle
from typing import NamedTuple

from tests.bench import usage
from tests.bench.holder import Holder, Turns
from tests.bench.peers import Bundles, Client, Peer, Way, bundles
from tests.bench.sockets import CURVES, PATIENCE, Ready
from tests.helpers.cluster import Cluster
from zstreamer.keys.secrets import Curve

FEW_CLIENTS = 16
"""Up to so many clients a worker's window holds a bundle of each, and so always k of one."""

SETTLING = 0.2
"""Share of a round that runs before its figures are taken."""


class Shape(NamedTuple):
    """A load that is to be held.

    Attributes:
        bundle: items a message, k.
        workers, clients: how many sessions of each.
        size: bytes of a payload, at least 8; outputs are as large as inputs.
        flight: pairs of SUBMIT and REPORT in flight.
    """

    bundle: int = 16
    workers: int = 16
    clients: int = 16
    size: int = 64
    flight: int = 16

    @property
    def pool(self) -> int:
        """What a worker's window needs beyond two batches."""
        # Of each client k − 1 items may lie there without k of any being together.
        groups = self.clients if self.bundle > 1 and self.clients <= FEW_CLIENTS else 0
        return self.bundle * (groups + -(-self.flight // self.workers))

    def __str__(self) -> str:
        peers = in_peers(self.workers, self.clients)
        return f"{in_bytes(self.size)}, k={self.bundle}, {peers}, {self.flight} in flight"


class Sample(NamedTuple):
    """What a round has found.

    Attributes:
        cpu: µs of the broker's CPU an item, all its threads.
        rate: items a second.
        bundles: the bundles that really were.
    """

    cpu: float
    rate: float
    bundles: Bundles


class Pairs:
    """A broker of its own under a held load, for as long as the block.

    curves: the keys of clients and workers, where it asks for them.
    settings: for the broker, as in `BrokerConfig`.
    """

    def __init__(
        self, shape: Shape, curves: tuple[Curve, Curve] | None = None, **settings: object
    ) -> None:
        self.shape = shape
        self._curves = curves
        self._settings = settings
        self._tally = [0] * 8
        self._idle = shape.flight
        self._stack = contextlib.ExitStack()

    def round(self, seconds: float) -> Sample:
        """Run for so many seconds, the first fifth of them to settle."""
        self._run(time.monotonic() + SETTLING * seconds)
        before, start, used = list(self._tally), time.monotonic(), usage.all_cpu(self._pid)
        self._run(start + (1 - SETTLING) * seconds)
        used = usage.all_cpu(self._pid) - used
        elapsed = time.monotonic() - start
        items = sum(self._tally[4:]) / 4 - sum(before[4:]) / 4
        return Sample(used / items * 1e6, items / elapsed, bundles(before, self._tally))

    def trace(self, every: int) -> None:
        """Have one of so many items traced from now on; 0 for none."""
        for client in self._all_clients:
            client.traced = every

    def idle(self, seconds: float) -> float:
        """Send nothing for so many seconds; return the share of a core that the broker uses."""
        used = usage.cpu(self._pid)
        time.sleep(seconds)
        return (usage.cpu(self._pid) - used) / seconds

    def __enter__(self) -> Pairs:
        with contextlib.ExitStack() as stack:
            cluster = stack.enter_context(Cluster(tcp=True, **self._settings))
            self._pid = cluster.broker.pid
            self._connect(cluster, stack)
            self._fill()
            self._settle()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _connect(self, cluster: Cluster, stack: contextlib.ExitStack) -> None:
        shape, tally = self.shape, self._tally
        if self._curves is not None:
            addresses = (cluster.address, cluster.worker_address)
            CURVES.update(zip(addresses, self._curves, strict=True))
        turns = Turns()
        self._workers = [
            Holder(cluster.worker_address, shape.size, tally, shape.bundle, shape.pool, turns)
            for _ in range(shape.workers)
        ]
        clients = [
            Client(cluster.address, number, shape.size, tally) for number in range(shape.clients)
        ]
        for peer in (*self._workers, *clients):
            stack.callback(peer.close)
        for peer in (*self._workers, *clients):
            peer.wait_welcome()
        for worker in self._workers:
            worker.warm()
        self._all_clients, self._clients = clients, cycle(clients)
        self._ready: Ready[Peer] = Ready((*self._workers, *clients))

    def _fill(self) -> None:
        """Fill every window, and put twice as many bundles as are in flight behind them."""
        room = sum(worker.window for worker in self._workers)
        for _ in range(-(-room // self.shape.bundle) + 2 * self.shape.flight):
            self._submit()
        while sum(worker.held for worker in self._workers) < room:
            self._read()
        self._turn = deque(self._workers)

    def _settle(self) -> None:
        """Let go what filled the windows: it was handed out while all of them were empty."""
        worked = 4 + Way.WORK
        end = self._tally[worked] + sum(worker.window for worker in self._workers)
        while self._tally[worked] < end:
            self._run(time.monotonic() + 0.02)

    def _run(self, end: float) -> None:
        received = 0
        while time.monotonic() < end:
            while self._idle and self._fire():
                self._idle -= 1
            received += self._read()
            pairs, received = divmod(received, self.shape.bundle)
            self._idle += pairs

    def _read(self) -> int:
        """Read what is there; return how many items have come to workers."""
        before = self._tally[4 + Way.WORK]
        ready = self._ready.wait()
        if not ready:
            raise TimeoutError(f"{self.shape}: nothing came within {PATIENCE:g} s")
        for peer in ready:
            peer.read()
        return self._tally[4 + Way.WORK] - before

    def _fire(self) -> bool:
        """Send one pair; False where no worker has a bundle."""
        for _ in self._workers:
            worker = self._turn[0]
            self._turn.rotate(-1)
            if worker.finish():
                self._ready.sent(worker)
                self._submit()
                return True
        return False

    def _submit(self) -> None:
        client = next(self._clients)
        client.submit(self.shape.bundle)
        self._ready.sent(client)


def in_peers(workers: int, clients: int) -> str:
    """Return how many sessions there are in words."""
    counts = ((workers, "worker"), (clients, "client"))
    return ", ".join(f"{count:,} {who}{'s' * (count > 1)}" for count, who in counts)


def in_bytes(size: int) -> str:
    """Return a number of bytes in words."""
    for unit, factor in (("MB", 10**6), ("KB", 1024)):
        if size >= factor:
            return f"{size / factor:.3g} {unit}"
    return f"{size} B"
