"""The names of the older library's module of this name; new programs import them from zstreamer."""

from zstreamer.client.future import Future
from zstreamer.local.redis_names import (
    WORKER_TIMEOUT,
    RedisStreamer,
    RedisWorker,
    run_redis_workers_forever,
)
from zstreamer.local.streamer import Streamer, ThreadedStreamer
from zstreamer.model import ManagedModel

__all__ = [
    "WORKER_TIMEOUT",
    "Future",
    "ManagedModel",
    "RedisStreamer",
    "RedisWorker",
    "Streamer",
    "ThreadedStreamer",
    "run_redis_workers_forever",
]
