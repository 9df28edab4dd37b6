"""Toy models that workers of the tests serve, by name: `tests.helpers.models:double`."""

import ctypes
import json
import os
import resource
import signal
import sys
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path

import msgpack
import numpy as np
import psutil

from zstreamer import ManagedModel, errors

DEVICE_AT_IMPORT = os.environ.get("CUDA_VISIBLE_DEVICES")


def double(batch):
    return [2 * item for item in batch]


def echo(batch):
    return list(batch)


class Tagged(ManagedModel):
    """Answers each item with itself and its version, and writes down what it has begun."""

    def init_model(self, version, folder):
        self.version = version
        self.begun = Path(folder, f"begun-{version}").open("a", buffering=1)  # noqa: SIM115  # for good

    def predict(self, batch):
        self.begun.write("".join(f"{item}\n" for item in batch))
        return [[item, self.version] for item in batch]


def batch_sizes(batch):
    """Answers each item with the size of the batch that it ran in; takes 5 ms."""
    time.sleep(0.005)
    return [len(batch)] * len(batch)


def slow_batch_sizes(batch):
    """The same, but takes 50 ms."""
    time.sleep(0.05)
    return [len(batch)] * len(batch)


def nap(batch):
    """Takes as many seconds as the largest item says."""
    time.sleep(max(batch))
    return batch


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


def careless(batch):
    """Forgets "drop"."""
    return [item for item in batch if item != "drop"]


ODD_OUTPUTS = {
    "tuple key": lambda: [{("a", "b"): 0.5}],
    "masked": lambda: np.ma.array([1.0, 2.0], mask=[0, 1]),
    "texts": lambda: np.array(["short", "x" * 40], dtype=np.dtypes.StringDType()),
    "time": lambda: datetime.min.replace(tzinfo=timezone(timedelta(hours=1))),
    "extension": lambda: {"x": msgpack.ExtType(5, b"x")},
    "bare tensor": object,
}


def odd_outputs(batch):
    """Answers the names of ODD_OUTPUTS with what they name, which no message can carry."""
    return [ODD_OUTPUTS[item]() if item in ODD_OUTPUTS else item for item in batch]


def large(batch):
    """Answers a number with so many bytes."""
    return [bytes(size) for size in batch]


def deadly(batch):
    """Kills its process on "die"."""
    if "die" in batch:
        os.kill(os.getpid(), signal.SIGKILL)
    return list(batch)


REFUSALS = {"bad": errors.BadRequest, "large": errors.TooLarge}


class Refusing(ManagedModel):
    """Refuses the items of REFUSALS: in "prepare", in "predict", or in their places."""

    def init_model(self, way):
        self.way = way

    def prepare(self, item):
        if self.way == "prepare" and item in REFUSALS:
            raise REFUSALS[item]("not with me")
        return item

    def predict(self, batch):
        refusals = [REFUSALS[item]("not with me") for item in batch if item in REFUSALS]
        if self.way == "predict" and refusals:
            raise refusals[0]
        return [REFUSALS[item]("not with me") if item in REFUSALS else item for item in batch]


class Sticky(ManagedModel):
    """Its device breaks on "poison", and fails every later batch of this process.

    Answers with the process that ran the item.
    """

    broken = False

    def init_model(self, error="CUDA error: device-side assert triggered", example=None):
        self.error = error
        self.example = example

    def predict(self, batch):
        if "poison" in batch or self.broken:
            self.broken = True
            if self.error == "fatal":
                raise errors.FatalError("the session is gone")
            raise RuntimeError(self.error)
        return [os.getpid()] * len(batch)


class Unfit(ManagedModel):
    """Cannot run its own example: it raises, returns errors, or forgets outputs."""

    example = (1,)

    def init_model(self, wrong):
        self.wrong = wrong

    def predict(self, batch):
        error = ValueError("unfit for its example")
        if self.wrong == "raise":
            raise error
        return [error] * len(batch) if self.wrong == "return" else []


class Sleeper(ManagedModel):
    """Takes `seconds` for a batch."""

    def init_model(self, seconds=0.05):
        self.seconds = seconds

    def predict(self, batch):
        time.sleep(self.seconds)
        return list(batch)


def deaf(batch):
    """Holds the GIL for a minute, as C code may."""
    ctypes.PyDLL(None).sleep(60)
    return batch


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


class Dormant(ManagedModel):
    """`nap`, which starts when the folder's file `awake` is there."""

    def init_model(self, folder):
        while not Path(folder, "awake").exists():
            time.sleep(0.01)

    def predict(self, batch):
        return nap(batch)


class Costly(ManagedModel):
    """Echoes text, which costs its length."""

    def cost(self, item):
        return len(item)

    def predict(self, batch):
        return batch


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


class Mute(Exception):
    """Cannot be shown."""

    def __str__(self):
        raise RuntimeError("no words")

    __repr__ = __str__


ODD = {
    "mute": Mute,
    "surrogate": lambda: ValueError("a lone \udc80 surrogate"),
    "long": lambda: KeyError("long " * 4 * 2**20),
}
"""Exceptions that are hard to show or to send."""


def rude(batch):
    """Meets "raise …" and "return …" with one of ODD; answers others with its process."""
    for item in batch:
        if item.startswith("raise "):
            error = ODD[item.removeprefix("raise ")]()
            raise error
    names = [item.removeprefix("return ") for item in batch]
    return [ODD[name]() if name in ODD else os.getpid() for name in names]


ENDS = {
    "abort": os.abort,
    "segfault": lambda: ctypes.string_at(0),
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "exit": lambda: os._exit(3),
    "hang": lambda: time.sleep(1000),
}
"""What can become of a process."""


def leave_no_core():
    """A process that is meant to crash leaves no file behind."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


class Mortal(ManagedModel):
    """An item [end, times] is its process's end so many times; others are echoed.

    Writes each batch that it begins into the folder's file `batches`, a line each.
    """

    def init_model(self, folder):
        leave_no_core()
        self.batches = Path(folder, "batches")

    def predict(self, batch):
        with self.batches.open("a") as batches:
            batches.write(json.dumps(batch) + "\n")
        begun = [item for line in self.batches.open() for item in json.loads(line)]
        for item in batch:
            if isinstance(item, list) and begun.count(item) <= item[1]:
                ENDS[item[0]]()
        return batch


class Frail(Mortal):
    """The same as soon as such an item arrives."""

    def prepare(self, item):
        if isinstance(item, list):
            ENDS[item[0]]()
        return item


class Sickly(ManagedModel):
    """Its first `failures` starts fail: with an exception, or with what ENDS calls `end`.

    Writes a line into the folder's file `starts` each time.
    """

    def init_model(self, folder, failures, end=None):
        leave_no_core()
        with Path(folder, "starts").open("a+") as starts:
            starts.write("start\n")
            starts.seek(0)
            number = len(starts.readlines())
        if number <= failures:
            if end:
                ENDS[end]()
            raise RuntimeError(f"start number {number} has failed")

    def predict(self, batch):
        return batch


MiB = 2**20


class Hungry(ManagedModel):
    """Needs `piece` bytes for each item, and has memory for `fits` of them at once.

    Answers with the size of the batch that an item ran in, and how often memory has run out.
    """

    def init_model(self, piece, fits):
        self.piece = piece
        self.failures = 0
        # Besides, what Python's threads reserve: stacks of 8 MiB, and 64 MiB for small objects.
        slack = 200 * MiB
        assert piece > slack, "one item more would fit"
        limit = psutil.Process().memory_info().vms + fits * piece + slack
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))

    def predict(self, batch):
        held = []
        try:
            # Their pages are never touched, so the machine itself gives nothing.
            held.extend(bytes(self.piece) for _ in batch)
        except MemoryError:
            self.failures += 1
            raise
        return [[len(batch), self.failures]] * len(batch)
