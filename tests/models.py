"""Toy models that workers of the tests serve, by name: `tests.models:double`."""

import os
import signal
import sys
import time
from pathlib import Path

from zstreamer import ManagedModel

DEVICE_AT_IMPORT = os.environ.get("CUDA_VISIBLE_DEVICES")


def double(batch):
    return [2 * item for item in batch]


def echo(batch):
    return list(batch)


def batch_sizes(batch):
    """Answers each item with the size of the batch that it ran in; takes 5 ms."""
    time.sleep(0.005)
    return [len(batch)] * len(batch)


def pids(batch):
    return [os.getpid()] * len(batch)


def picky(batch):
    """Raises on "boom", returns an error in the place of "bad"."""
    if "boom" in batch:
        raise ValueError("the model met boom")
    return [KeyError("bad") if item == "bad" else item for item in batch]


def forgetful(batch):
    """Returns one output too few."""
    return list(batch)[:-1]


def unsendable(batch):
    """Returns something that no message can carry, except for "fine"."""
    return ["fine" if item == "fine" else object() for item in batch]


def large(batch):
    """Answers a number with so many bytes."""
    return [bytes(size) for size in batch]


def deadly(batch):
    """Kills its process on "die"."""
    if "die" in batch:
        os.kill(os.getpid(), signal.SIGKILL)
    return list(batch)


class Sleeper(ManagedModel):
    """Takes `seconds` for a batch."""

    def init_model(self, seconds=0.05):
        self.seconds = seconds

    def predict(self, batch):
        time.sleep(self.seconds)
        return list(batch)


class Broken(ManagedModel):
    """Cannot start."""

    def init_model(self):
        raise RuntimeError("the weights are missing")

    def predict(self, batch):
        return list(batch)


class Gate(ManagedModel):
    """Writes each batch into the folder's file `begun`, then waits until `open` is there.

    So a test knows that a batch has begun, and decides when it ends. Answers the item and the
    process that ran it.
    """

    def init_model(self, folder):
        self.folder = Path(folder)

    def predict(self, batch):
        with (self.folder / "begun").open("a") as begun:
            for item in batch:
                begun.write(f"{item}\n")
        while not (self.folder / "open").exists():
            time.sleep(0.002)
        return [[item, os.getpid()] for item in batch]


class Device(ManagedModel):
    """Tells which devices its process saw before anything was imported, and its gpu_id."""

    def init_model(self, *args, **kwargs):
        self.arguments = [list(args), kwargs]

    def predict(self, batch):
        facts = {
            "at import": DEVICE_AT_IMPORT,
            "gpu_id": self.gpu_id,
            "arguments": self.arguments,
            "torch": "torch" in sys.modules,
            "pid": os.getpid(),
        }
        time.sleep(0.02)
        return [facts] * len(batch)
