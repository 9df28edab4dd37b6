"""Closed loops of raw peers through a broker, and through a proxy or a relay in its place.

    clients' programs ──▶ middle's program ──▶ workers' programs
         (asks again when answered)               (answers at once)

The sides have programs of their own, more of them on a machine with more cores, so that the load is
as little in the way as may be. How much of a core each program was busy tells what was: a middle
far below 1.0 could have forwarded more.
"""

from __future__ import annotations

import contextlib
import os
import time
from typing import NamedTuple

from tests.bench import usage
from tests.bench.closed import Side
from tests.bench.pairs import SETTLING, Sample, in_bytes, in_peers
from tests.bench.peers import Way, bundles
from tests.bench.program import PAUSED, Program
from tests.helpers.cluster import Cluster, free_port

CORES_A_PROGRAM = 4
"""One more program of each side for each so many cores of the machine."""


class Loop(NamedTuple):
    """A closed loop.

    Attributes:
        workers, clients: how many sessions of each.
        open: items that each client has unanswered.
        batch: the batch size of each worker, whose window is twice that.
        size: bytes of a payload.
    """

    workers: int = 4
    clients: int = 16
    open: int = 64
    batch: int = 64
    size: int = 64

    def __str__(self) -> str:
        peers = in_peers(self.workers, self.clients)
        return f"{in_bytes(self.size)}, {peers}, {self.open} open a client"


class Through:
    """A middle and both sides of its loop, for as long as the block.

    middle: "broker", or "proxy" or "relay" as in `tests.bench.forward`.

    After a round, ``busy`` holds how many cores each kind of program used, by its name.
    """

    def __init__(self, middle: str, loop: Loop) -> None:
        self.loop = loop
        self.busy: dict[str, float] = {}
        self._middle = middle
        self._stack = contextlib.ExitStack()
        self._programs: list[Program] = []
        self._pids: dict[str, list[int]] = {}

    def round(self, seconds: float) -> Sample:
        """Let it run for so many seconds, the first fifth of them to settle."""
        self._pause(False)
        time.sleep(SETTLING * seconds)
        before, used, start = self._tally(), self._used(), time.monotonic()
        time.sleep((1 - SETTLING) * seconds)
        after, used_then, elapsed = self._tally(), self._used(), time.monotonic() - start
        self._pause(True)
        items = after[4 + Way.ANSWER] - before[4 + Way.ANSWER]
        if not items:
            raise TimeoutError(f"{self.loop}: nothing came through the {self._middle}")
        self.busy = {name: (used_then[name] - used[name]) / elapsed for name in used}
        cpu = self.busy[self._middle] * elapsed / items
        return Sample(cpu * 1e6, items / elapsed, bundles(before, after))

    def answered(self) -> int:
        """Return how many items have been answered since it was made."""
        return self._tally()[4 + Way.ANSWER]

    def __enter__(self) -> Through:
        with contextlib.ExitStack() as stack:
            front, back = self._start_middle(stack)
            self._start_side(stack, "worker", back, self.loop.workers)
            self._start_side(stack, "client", front, self.loop.clients)
            for program in self._programs:
                program.wait_ready()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _start_middle(self, stack: contextlib.ExitStack) -> tuple[str, str]:
        """Start the middle; return its addresses for clients and for workers."""
        if self._middle == "broker":
            cluster = stack.enter_context(Cluster(tcp=True))
            self._pids["broker"] = [cluster.broker.pid]
            return cluster.address, cluster.worker_address
        front, back = (f"tcp://127.0.0.1:{free_port()}" for _ in range(2))
        settings = {"middle": self._middle, "front": front, "back": back}
        middle = stack.enter_context(Program("tests.bench.forward", **settings))
        middle.wait_ready()
        self._pids[self._middle] = [middle.pid]
        return front, back

    def _start_side(self, stack: contextlib.ExitStack, role: str, address: str, peers: int) -> None:
        """Share the peers of one side out among its programs; clients stand still for now."""
        loop = self.loop
        count = min(peers, max(1, (os.cpu_count() or 1) // CORES_A_PROGRAM))
        for number in range(count):
            first, end = (peers * n // count for n in (number, number + 1))
            side = Side(
                role, self._middle, address, end - first, first, loop.open, loop.batch, loop.size
            )
            program = stack.enter_context(Program("tests.bench.closed", **side._asdict()))
            program.counters[PAUSED] = role == "client"
            self._programs.append(program)
            self._pids.setdefault(f"{role}s", []).append(program.pid)

    def _pause(self, pause: bool) -> None:
        """Let the clients stand still, so that others can be measured; workers then starve."""
        for program in self._programs:
            program.counters[PAUSED] = pause and program.pid in self._pids["clients"]

    def _tally(self) -> list[int]:
        return [sum(program.counters[n] for program in self._programs) for n in range(8)]

    def _used(self) -> dict[str, float]:
        return {name: sum(map(usage.cpu, pids)) for name, pids in self._pids.items()}
