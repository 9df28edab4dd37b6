"""Batching middleware between web servers and deep-learning models.

`Client` talks to a cluster of a broker and workers; `Streamer` runs one of its own on this
machine; `ThreadedStreamer` does without processes. `ManagedModel` is what a worker loads.
"""

from typing import TYPE_CHECKING

from zstreamer import errors
from zstreamer.client.client import Client
from zstreamer.client.future import Future
from zstreamer.errors import FatalError
from zstreamer.model import ItemError, ManagedModel
from zstreamer.signature import Tensor

if TYPE_CHECKING:
    from zstreamer.streamer import Streamer, ThreadedStreamer

__version__ = "0.1.0"

__all__ = [
    "Client",
    "FatalError",
    "Future",
    "ItemError",
    "ManagedModel",
    "Streamer",
    "Tensor",
    "ThreadedStreamer",
    "__version__",
    "errors",
]

_REDIS = ("RedisStreamer", "RedisWorker", "run_redis_workers_forever")


def __getattr__(name: str) -> object:
    if name in ("Streamer", "ThreadedStreamer"):  # a program that needs only Client starts faster
        from zstreamer import streamer

        return getattr(streamer, name)
    if name in _REDIS:
        raise ImportError(
            f"zstreamer has no {name}: its cluster needs no Redis. Run `zstreamer broker` and "
            "`zstreamer worker MODULE:CLASS`, and call them with zstreamer.Client(address)"
        )
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
