"""Models that are ill in one way each."""

import os
import threading
import time
from pathlib import Path

from zstreamer import ManagedModel


def steady(batch):
    """Well: 10 ms a batch."""
    time.sleep(0.01)
    return list(batch)


def slow(batch):
    """20 ms an item: some 50 items a second."""
    time.sleep(0.02 * len(batch))
    return list(batch)


def hung(batch):
    time.sleep(60)
    return list(batch)


def failing(batch):
    time.sleep(0.002)
    raise ValueError("no weights for this input")


def dying(batch):
    os._exit(3)


class Unborn(ManagedModel):
    """Cannot be loaded."""

    def init_model(self):
        raise FileNotFoundError("no weights at /models/bert")

    def predict(self, batch):
        return list(batch)


class Costly(ManagedModel):
    """Has a cost."""

    def cost(self, item):
        return 10.0

    def predict(self, batch):
        time.sleep(0.01)
        return list(batch)


class Uneven(ManagedModel):
    """The worker that wins the lock is slow, the others are not."""

    def init_model(self, folder):
        try:
            Path(folder, "slow").mkdir()
            self.seconds = 0.06
        except FileExistsError:
            self.seconds = 0.01

    def predict(self, batch):
        time.sleep(self.seconds)
        return list(batch)


class Threads(ManagedModel):
    """Computes in many threads, which use all of its CPUs."""

    def init_model(self):
        import zlib

        def burn():
            data = bytes(4_000_000)
            while True:
                zlib.crc32(data)  # without the GIL

        for _ in range(6):
            threading.Thread(target=burn, daemon=True).start()

    def predict(self, batch):
        time.sleep(0.01)
        return list(batch)
