"""A broker that strangers with unknown keys connect to, a thousand times a second."""

import contextlib
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from tests.helpers.cluster import Cluster
from tests.helpers.keys import Keys

MiB = 2**20
RATE = 1000
"""Connections a second."""

PAUSE = 0.002
"""Seconds between two calls of the good client."""

SLOWER = 2.0
"""How much longer its calls may take, at the 99th per cent."""

LEAST = 0.010
"""Seconds of the 99th per cent that are good in any case: below, other programs decide."""

MOST_GROWTH = 16 * MiB
"""Bytes by which the broker may grow between the first second of the flood and its end."""


@dataclass
class Outcome:
    """What came of it.

    Args:
        before: seconds of the good client's calls without strangers.
        during: the same with them.
        strangers: connections that they opened.
        memory: bytes of the broker, each second of the flood.
        cpu: seconds of the broker's CPU time during the flood.
        seconds: how long it was.
    """

    before: list = field(default_factory=list)
    during: list = field(default_factory=list)
    strangers: int = 0
    memory: list = field(default_factory=list)
    cpu: float = 0.0
    seconds: float = 0.0

    @property
    def good(self):
        """Whether the good client and the broker's memory hardly noticed."""
        slow = p99(self.during) > max(SLOWER * p99(self.before), LEAST)
        return not slow and self.growth < MOST_GROWTH

    @property
    def growth(self):
        """Bytes by which the broker has grown."""
        return self.memory[-1] - self.memory[0]

    def __str__(self):
        before, during = (1000 * p99(each) for each in (self.before, self.during))
        cost = 1e6 * self.cpu / max(1, self.strangers)
        return (
            f"{self.strangers:,} connections with unknown keys in {self.seconds:.0f} s: the good "
            f"client's p99 {before:.2f} ms before, {during:.2f} ms meanwhile "
            f"({len(self.during):,} calls); the broker {self.memory[0] / MiB:.1f} MiB, then "
            f"{self.growth / MiB:+.1f} MiB; {cost:.0f} µs of its CPU time for each"
        )


def p99(delays):
    """The time within which 99 of 100 calls were answered."""
    return sorted(delays)[len(delays) * 99 // 100]


def run(seconds, rate=RATE):
    """Measure a good client for so long, and as long again beside strangers."""
    outcome = Outcome()
    with tempfile.TemporaryDirectory() as folder:
        keys = Keys(Path(folder) / "keys")
        client_file, worker_file = keys.client("good"), keys.worker("gpu")
        with Cluster(tcp=True, keys=str(keys.path), log_level="error") as cluster:
            cluster.worker("echo", batch_size=8, keys=worker_file)
            client = cluster.client(timeout=20, keys=client_file)
            client.wait_ready(30)
            outcome.before = calls(client, min(seconds, 10))
            port, server = cluster.address.rpartition(":")[2], keys.folder.servers[0].decode()
            command = [sys.executable, "-m", "tests.hostile.flood", port, server, str(rate)]
            broker = psutil.Process(cluster.broker.pid)
            with _running(command) as flood:
                first = int(flood.stdout.readline())  # it is under way
                before = sum(broker.cpu_times()[:2])
                begin = time.monotonic()
                for _ in range(max(1, round(seconds))):
                    outcome.memory.append(broker.memory_info().rss)
                    outcome.during += calls(client, 1.0)
                outcome.memory.append(broker.memory_info().rss)
                outcome.seconds = time.monotonic() - begin
                outcome.cpu = sum(broker.cpu_times()[:2]) - before
                flood.kill()
                told = flood.stdout.read().split()
            outcome.strangers = int(told[-1]) - first if told else 0
            assert cluster.broker.poll() is None
            assert client.predict([1]) == [1]
    return outcome


@contextlib.contextmanager
def _running(command):
    """A program that is killed at the end of the block."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as program:
        try:
            yield program
        finally:
            program.kill()


def calls(client, seconds):
    """Call for so long; return how long each call took."""
    delays = []
    end = time.monotonic() + seconds
    while (begin := time.monotonic()) < end:
        assert client.predict([1]) == [1]
        delays.append(time.monotonic() - begin)
        time.sleep(PAUSE)
    return delays
