"""A broker under attack over raw ZMTP, and a good client beside that."""

import json
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass, field

import psutil

from tests.helpers.cluster import Cluster, free_port
from tests.helpers.waiting import until

MiB = 2**20
PAUSE = 0.05
"""Seconds between two calls of the good client."""

MOST_MEMORY = 300 * MiB
MOST_DELAY = 0.5
"""Bytes of the broker, and seconds of a call, that are too many."""


@dataclass
class Outcome:
    """What came of it.

    Args:
        calls: of the good client.
        errors: that it met.
        delays: seconds of each call.
        memory: the most bytes that the broker had.
        counts: what the broker has counted.
    """

    calls: int = 0
    errors: list = field(default_factory=list)
    delays: list = field(default_factory=list)
    memory: int = 0
    counts: dict = field(default_factory=dict)

    @property
    def good(self):
        """Whether nobody but the attackers noticed."""
        return not self.errors and max(self.delays) < MOST_DELAY and self.memory < MOST_MEMORY

    def __str__(self):
        ordered = sorted(self.delays)
        return (
            f"good client: {self.calls:,} calls, {len(self.errors)} errors, delays: median "
            f"{ordered[len(ordered) // 2] * 1000:.1f} ms, worst {ordered[-1] * 1000:.0f} ms\n"
            f"broker: at most {self.memory / MiB:.0f} MiB; {self.counts}"
        )


def run(seconds, seed=0):
    """Attack a broker of its own for so long; return what came of it.

    Raises:
        AssertionError: the broker has ended, or does not show its state afterwards.
    """
    outcome = Outcome()
    port = free_port()
    with Cluster(tcp=True, http_port=port, unread_bytes=32 * MiB, log_level="error") as cluster:
        cluster.worker("echo", batch_size=8)
        cluster.wait_warm(1)
        broker = psutil.Process(cluster.broker.pid)
        places = [each.rpartition(":")[2] for each in (cluster.address, cluster.worker_address)]
        client = cluster.client(timeout=10)
        client.predict(["warm"])
        command = [sys.executable, "-m", "tests.hostile.attacker", *places, str(seed)]
        attacker = subprocess.Popen(command)
        try:
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                call(client, outcome)
                outcome.memory = max(outcome.memory, broker.memory_info().rss)
                time.sleep(PAUSE)
            assert attacker.poll() is None
        finally:
            attacker.kill()
            attacker.wait()
        assert cluster.broker.poll() is None
        for page in ("healthz", "readyz", "status"):
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/{page}", timeout=5) as answer:
                json.load(answer)
        until(lambda: cluster.open_items("default") == 0)
        outcome.counts = cluster.status()["broker"]["counts"]
    return outcome


def call(client, outcome):
    """One call of the good client."""
    begin = time.monotonic()
    outcome.calls += 1
    try:
        assert client.predict([outcome.calls]) == [outcome.calls]
    except Exception as error:
        outcome.errors.append(error)
    outcome.delays.append(time.monotonic() - begin)
