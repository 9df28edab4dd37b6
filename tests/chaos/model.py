"""Models of known answers and known times, which keep a journal of what they have begun."""

import os
import time
from array import array
from collections import Counter
from pathlib import Path

from zstreamer import ItemError, ManagedModel


def answer(number):
    """What a model makes of an item."""
    return 3 * number + 1


class Timed(ManagedModel):
    """Takes beta + alpha·n seconds for n items; writes down its start and each batch it begins."""

    def init_model(self, folder, name="", beta=0.02, alpha=0.001):
        self.beta = beta
        self.alpha = alpha
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        self.journal = os.open(Path(folder, "journal"), flags)
        starts = os.open(Path(folder, "starts"), flags)
        os.write(starts, f"{name} {os.getppid()} {os.getpid()}\n".encode())
        os.close(starts)

    def predict(self, batch):
        os.write(self.journal, array("q", batch).tobytes())
        self.work(batch)
        return [answer(number) for number in batch]

    def work(self, batch):
        time.sleep(self.beta + self.alpha * len(batch))


class Flawed(Timed):
    """Fails on negative items: `manner` is "returned" in their place, "raised" for the batch, or
    "named" where what is raised says which item it was.
    """

    def init_model(self, folder, manner="returned", **settings):
        super().init_model(folder, **settings)
        self.manner = manner

    def predict(self, batch):
        # The time is spent before the exception, as where a model meets the item at its end.
        answers = super().predict(batch)
        if self.manner == "named" and any(number < 0 for number in batch):
            first = next(i for i, number in enumerate(batch) if number < 0)
            raise ItemError(first, "a negative number")
        if self.manner == "raised" and any(number < 0 for number in batch):
            raise ValueError("a negative number")
        return [
            ValueError("a negative number") if number < 0 else right
            for number, right in zip(batch, answers, strict=True)
        ]


class Verbose(Timed):
    """Answers each number with so many bytes."""

    def predict(self, batch):
        self.work(batch)
        return [bytes(size) for size in batch]


def starts(folder):
    """The models that have started, oldest first: (name, agent's pid, own pid)."""
    path = Path(folder, "starts")
    lines = path.read_text().splitlines() if path.exists() else []
    return [(name, int(agent), int(pid)) for name, agent, pid in map(str.split, lines)]


def executions(folder):
    """How often each item was begun."""
    numbers = array("q")
    path = Path(folder, "journal")
    if path.exists():
        data = path.read_bytes()
        numbers.frombytes(data[: len(data) // 8 * 8])
    return Counter(numbers)
