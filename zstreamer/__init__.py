"""Batching middleware between web servers and deep-learning models.

`Client` talks to a cluster of a broker and workers; `Streamer` runs one of its own on this
machine; `ThreadedStreamer` does without processes. `ManagedModel` is what a worker loads.
"""

from zstreamer import errors
from zstreamer.client.client import Client
from zstreamer.client.future import Future
from zstreamer.model import ManagedModel

__version__ = "0.1.0"

__all__ = ["Client", "Future", "ManagedModel", "__version__", "errors"]
