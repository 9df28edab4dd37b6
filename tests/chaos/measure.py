"""What processes use: memory, descriptors, threads."""

import contextlib
import statistics
import threading
from typing import NamedTuple

import psutil

MiB = 2**20


class Usage(NamedTuple):
    """What one process uses at one moment; memory in bytes."""

    memory: int
    descriptors: int
    threads: int


def usage(pid):
    """Return what a process uses now."""
    process = psutil.Process(pid)
    with process.oneshot():
        return Usage(process.memory_info().rss, process.num_fds(), process.num_threads())


class Watch:
    """Looks at processes while the block runs.

    Args:
        processes: names and process ids; they must live as long as the block.
        pause: seconds between two looks.

    Attributes:
        seen: for each name what it used, oldest first.
    """

    def __init__(self, pause=0.1, **processes):
        self._processes = processes
        self._pause = pause
        self.seen = {name: [usage(pid)] for name, pid in processes.items()}
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self):
        while not self._ending.wait(self._pause):
            self.look()

    def look(self):
        """Look once."""
        for name, pid in self._processes.items():
            with contextlib.suppress(psutil.Error):
                self.seen[name].append(usage(pid))

    def peak(self, name):
        """How many MiB a process grew by at most."""
        memory = [each.memory for each in self.seen[name]]
        return (max(memory) - memory[0]) / MiB

    def growth(self, name):
        """How many MiB more a process used in the last third than in the second one."""
        memory = [each.memory for each in self.seen[name]]
        third = max(1, len(memory) // 3)
        second, last = memory[-2 * third : -third] or memory[:1], memory[-third:]
        return (statistics.median(last) - statistics.median(second)) / MiB

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._ending.set()
        self._thread.join()
