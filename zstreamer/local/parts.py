"""What a `Streamer` has started on this machine, and how it ends."""

from __future__ import annotations

import os
import shutil
import time
from dataclasses import dataclass

from zstreamer.client.client import Client
from zstreamer.system.process import Process
from zstreamer.worker.forkserver import ForkServer

QUIET = 0.1
LAST_ANSWERS = 1.0
"""Seconds without an answer, or in all, after which the last one has come from ended workers."""


@dataclass(frozen=True)
class Parts:
    """What a `Streamer` has started, and how it ends.

    Attributes:
        owner: the process id of the program.
        folder: of the sockets.
    """

    owner: int
    workers: Process
    broker: Process
    forks: ForkServer | None
    client: Client
    folder: str

    def end(self, grace: float = 0.0) -> None:
        """End everything; grace: seconds that running batches get while anyone waits for them."""
        client, workers, broker = self.client, self.workers, self.broker
        if os.getpid() != self.owner:
            client.close()
            return
        workers.terminate()
        end = time.monotonic() + grace
        pause = 0.001
        while client.open_calls and workers.poll() is None and time.monotonic() < end:
            time.sleep(pause)
            pause = min(2 * pause, 0.05)
        if grace:
            _await_last_answers(client)
        client.close()
        broker.terminate()
        for process in (workers, broker):
            process.close()
        if self.forks is not None:
            self.forks.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def _await_last_answers(client: Client) -> None:
    """Pass on the last answers of the workers; what waited will not be answered."""
    end = time.monotonic() + LAST_ANSWERS
    before = client.open_calls
    while before and time.monotonic() < end:
        time.sleep(QUIET)
        left = client.open_calls
        if left == before:
            return
        before = left
