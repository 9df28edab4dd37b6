"""Batching middleware between web servers and deep-learning models.

`Client` talks to a cluster of a broker and workers; `Streamer` runs one of its own on this
machine; `ThreadedStreamer` does without processes. `ManagedModel` is what a worker loads.
"""

from zstreamer import errors
from zstreamer.client.client import Client
from zstreamer.client.future import Future
from zstreamer.model import ManagedModel
from zstreamer.streamer import Streamer, ThreadedStreamer

__version__ = "0.1.0"

__all__ = ["Client", "Future", "ManagedModel", "Streamer", "ThreadedStreamer", "__version__", "errors"]
