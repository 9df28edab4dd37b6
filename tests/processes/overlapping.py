"""A model on a fake device, which computes in a thread of its own while batches are begun."""

from __future__ import annotations

import os
import queue
import signal
import threading
import time

from zstreamer import ManagedModel
from zstreamer.errors import FatalError


class Device:
    """Runs one thing after the other, as a GPU's stream does."""

    def __init__(self):
        self._todo = queue.SimpleQueue()
        threading.Thread(target=self._run, daemon=True).start()

    def launch(self, work):
        done = threading.Event()
        self._todo.put((work, done))
        return done

    def _run(self):
        while True:
            work, done = self._todo.get()
            work()
            done.set()


class Batch:
    """A batch on the device."""

    def __init__(self, model, items):
        self.items = items
        self.begun = time.monotonic()
        self.beside = model.open
        model.open += 1
        self._model = model
        self._done = model.device.launch(self._compute)

    def _compute(self):
        time.sleep(0.02)
        if "kill" in self.items:
            os.kill(os.getpid(), signal.SIGKILL)
        if "hang" in self.items:
            time.sleep(600)

    def wait(self):
        self._done.wait()
        if "lost" in self.items:
            raise FatalError("the device is lost")

    def outputs(self):
        self._model.open -= 1
        if "bad" in self.items:
            raise ValueError("a bad batch")
        return [[item, self.beside, len(self.items)] for item in self.items]


class Overlapping(ManagedModel):
    """Answers each item with itself, how many batches were begun beside its own, and its size.

    "kill", "hang", "lost" and "bad" do to their batch what they say.
    """

    overlaps = True

    def init_model(self):
        self.device = Device()
        self.open = 0

    def begin(self, batch):
        if "unbegun" in batch:
            raise ValueError("a bad begin")
        return Batch(self, batch)

    def predict(self, batch):
        begun = self.begin(batch)
        begun.wait()
        return begun.outputs()
