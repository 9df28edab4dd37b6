"""Batching middleware between web servers and deep-learning models.

`Client` talks to a cluster of a broker and workers; `Streamer` runs one of its own on this
machine; `ThreadedStreamer` does without processes. `ManagedModel` is what a worker loads.

Where the code is, in the order in which an item passes:

    cli, web   ─> client ─> broker ─> worker ─> a ManagedModel (torch: a TorchModel)
    local      the same on one machine
    wire       what passes between them
    system     processes, signals, cores
"""

from importlib import import_module
from typing import TYPE_CHECKING

from zstreamer import errors
from zstreamer.errors import FatalError
from zstreamer.model import ItemError, ManagedModel
from zstreamer.signature import Tensor

if TYPE_CHECKING:
    from zstreamer.client.client import Client
    from zstreamer.client.future import Future
    from zstreamer.local.redis_names import (
        RedisStreamer,
        RedisWorker,
        run_redis_workers_forever,
    )
    from zstreamer.local.streamer import Streamer, ThreadedStreamer

__version__ = "0.1.0"

__all__ = [
    "Client",
    "FatalError",
    "Future",
    "ItemError",
    "ManagedModel",
    "RedisStreamer",
    "RedisWorker",
    "Streamer",
    "Tensor",
    "ThreadedStreamer",
    "__version__",
    "errors",
    "run_redis_workers_forever",
]

_PLACES = {
    "Client": "zstreamer.client.client",
    "Future": "zstreamer.client.future",
    "Streamer": "zstreamer.local.streamer",
    "ThreadedStreamer": "zstreamer.local.streamer",
    "RedisStreamer": "zstreamer.local.redis_names",
    "RedisWorker": "zstreamer.local.redis_names",
    "run_redis_workers_forever": "zstreamer.local.redis_names",
}
"""Imported when they are asked for: a broker needs no client, a client no worker."""


def __getattr__(name: str) -> object:
    if name in _PLACES:
        found: object = getattr(import_module(_PLACES[name]), name)
        globals()[name] = found
        return found
    if name in ("aio", "codec"):
        return import_module(f"zstreamer.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
