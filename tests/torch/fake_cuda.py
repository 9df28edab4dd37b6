"""A device with streams and graphs that has no hardware: what its model is asked to do, in order.

Work is done by the CPU when it is launched, and its results are hidden until the stream has come to
it, which takes `SECONDS` a batch in a thread of its own: who reads outputs before the event behind
them finds wrong numbers.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time

import torch

from zstreamer.torch.graphs import Graphs
from zstreamer.torch.sizes import Sizes
from zstreamer.torch.streams import Streams

SECONDS = 0.001


class FakeEvent:
    """Set when its stream has come to it."""

    def __init__(self):
        self.done = threading.Event()
        self.waits = 0

    def synchronize(self):
        self.waits += 1
        assert self.done.wait(30), "nobody will ever set it"


class FakeStream:
    """Does its work in order, in a thread."""

    def __init__(self, log, name):
        self.log, self.name = log, name
        self._work = queue.SimpleQueue()
        threading.Thread(target=self._run, daemon=True).start()

    @torch.inference_mode()
    def _run(self):
        while True:
            self._work.get()()

    def launch(self, work):
        self._work.put(work)

    def wait_stream(self, other):
        self.log.append(f"{self.name} waits for {other.name}")
        reached = threading.Event()
        other.launch(reached.set)
        self.launch(reached.wait)

    def record_event(self, event):
        self.log.append(f"{self.name} event")
        self.launch(event.done.set)
        return event


class FakeStreams(Streams):
    """Streams whose copies to the CPU come true only when the device has come to them."""

    def __init__(self):
        self.log = []
        names = iter(["in", "out"])
        self.compute = FakeStream(self.log, "compute")
        super().__init__(
            torch.device("cpu"),
            make=lambda: FakeStream(self.log, next(names)),
            current=lambda: self.compute,
            within=self._within,
            event=FakeEvent,
            pin=False,
        )

    @contextlib.contextmanager
    def _within(self, stream):
        self.log.append(f"within {stream.name}")
        yield

    def download(self, outputs):
        self.compute.launch(lambda: time.sleep(SECONDS))
        return super().download(outputs)

    def _fetch(self, tensor):
        there = tensor.clone()
        here = torch.full_like(there, 77) if there.dtype is not torch.bool else ~there
        self._out.launch(lambda: here.copy_(there))
        return here


class FakeCapture:
    """Graphs with fixed inputs and outputs, in one memory that each replay overwrites.

    Attributes:
        sizes: the shapes of inputs that were captured, in order.
        most: graphs that there is room for.
        error: raised in place of a graph.
    """

    def __init__(self, most=1000, error=None):
        self.sizes, self.most, self.error = [], most, error

    def room(self):
        return len(self.sizes) < self.most

    def __call__(self, forward, inputs):
        if self.error is not None:
            raise self.error
        self.sizes.append(tuple(next(iter(inputs.values())).shape))
        own = {name: tensor.clone() for name, tensor in inputs.items()}

        def replay(given):
            for name, tensor in given.items():
                own[name].copy_(tensor)
            return forward(own)

        return replay


def overlapping(model, capture=None):
    """Give a loaded model on the CPU the streams, and graphs, of a device; returns both."""
    streams, capture = FakeStreams(), capture or FakeCapture()
    model._streams = streams
    model._graphs = Graphs(model.forward, capture)
    model._forward = model._graphs
    model._learned = None if model.batch_buckets else Sizes()
    return streams, capture
