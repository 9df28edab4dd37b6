"""The names of the older library's Redis mode, on a ZeroMQ broker.

RedisStreamer                 a `Client` of the model that `prefix` names
RedisWorker                   a worker of it
run_redis_workers_forever     several, until the program is told to stop

No Redis is needed: `zstreamer broker` takes its place.
"""

from __future__ import annotations

import logging
import os
import re
import select
import shutil
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple

from zstreamer.client import items as client_items
from zstreamer.client.client import Client
from zstreamer.client.future import Future
from zstreamer.client.items import Items
from zstreamer.config import TIMEOUT, BrokerConfig
from zstreamer.errors import ModelNotFound
from zstreamer.keys.credentials import VARIABLE
from zstreamer.local.folder import socket_folder
from zstreamer.local.held_model import HeldModel
from zstreamer.local.patient_call import Again, PatientCall
from zstreamer.model import Loaded, PredictFunction, listed
from zstreamer.system.exitcodes import of_child
from zstreamer.system.process import Process
from zstreamer.system.signals import StopRequests

log = logging.getLogger(__name__)

WORKER_TIMEOUT = TIMEOUT
"""The older library's name for the seconds that a call may take."""

REDIS_PORT = 6379
"""Stands for the broker's own ports: no broker listens on Redis's."""

PAUSE = 0.1
"""Seconds before a call for a model that has no worker yet is tried again."""

GLANCE = 0.2
"""Seconds between two looks at whether the workers are alive."""


class Broker(NamedTuple):
    """Where the broker is that stands for a Redis.

    Attributes:
        clients, workers: its addresses.
        model: what a prefix stands for.
    """

    clients: str
    workers: str
    model: str

    @classmethod
    def of(cls, redis_broker: str, prefix: str) -> Broker:
        """Return the broker of a "HOST:PORT" of Redis and the model of a prefix.

        Raises:
            ValueError: it is no host and port.
        """
        words = f'redis_broker must be "HOST:PORT", such as "localhost:6379", not {redis_broker!r}'
        found = re.fullmatch(r"(?:redis://)?(\[[^\]]+\]|[^:/\s]+)(?::(\d+))?/?", redis_broker)
        if found is None:
            raise ValueError(words)
        port = int(found[2] or REDIS_PORT)
        if not 1 <= port < 65535:
            raise ValueError(f"{words}: the port must be 1 to 65534")
        ports = (port, port + 1)
        if port == REDIS_PORT:
            ports = (BrokerConfig().port, BrokerConfig().worker_port)
        host = found[1]
        model = prefix or "default"
        return cls(f"tcp://{host}:{ports[0]}", f"tcp://{host}:{ports[1]}", model)


class RedisStreamer:
    """Sends items to the workers of `run_redis_workers_forever`, also on other machines.

    The same as ``Client("tcp://HOST:7787", model=prefix)``, which new programs use.

    Args:
        redis_broker: "HOST:PORT". The host is the broker's. Redis's own port, 6379, stands for
            the broker's usual 7787 and 7788; another one for itself (clients) and the one after it
            (workers).
        prefix: the model's name; "default" where it is empty.
        worker_timeout: seconds that a call may take.

    Raises:
        ValueError: an argument makes no sense.
    """

    def __init__(
        self,
        redis_broker: str = "localhost:6379",
        prefix: str = "",
        worker_timeout: float = WORKER_TIMEOUT,
    ) -> None:
        broker = Broker.of(redis_broker, prefix)
        self.prefix = prefix
        self._timeout = worker_timeout
        self._client = Client(broker.clients, model=broker.model, timeout=worker_timeout)
        self._again = Again(PAUSE)
        native = f'Client("{broker.clients}", model="{broker.model}")'
        _tell("RedisStreamer", redis_broker, prefix, broker.clients, broker.model, native)

    def predict(
        self,
        batch: Items,
        *,
        timeout: float | None = None,
        priority: int = 0,
        return_exceptions: bool = False,
    ) -> list[object]:
        """Return one output for each input, in order; arguments and errors as `Client.predict`.

        A Redis kept items for workers that were still to come, so it waits for those too.
        """
        end = time.monotonic() + (self._timeout if timeout is None else timeout)
        left = timeout
        while True:
            try:
                return self._client.predict(
                    batch, timeout=left, priority=priority, return_exceptions=return_exceptions
                )
            except ModelNotFound:
                left = end - time.monotonic() - PAUSE
                if left <= 0:
                    raise
                time.sleep(PAUSE)

    def submit(
        self,
        batch: Items,
        *,
        timeout: float | None = None,
        priority: int = 0,
        return_exceptions: bool = False,
    ) -> Future:
        """Return at once, with the future of what `predict` would return or raise."""
        items = list(client_items.listed(batch))  # as they are now, should it be submitted again

        def submit(left: float | None) -> Future:
            return self._client.submit(
                items, timeout=left, priority=priority, return_exceptions=return_exceptions
            )

        return PatientCall(submit, timeout, self._timeout, self._again).future

    def destroy_workers(self) -> None:
        """Raise NotImplementedError, as in the older library: its workers are other programs."""
        raise NotImplementedError(
            "the workers of a RedisStreamer are programs of their own: stop those. "
            "close() ends its connections"
        )

    def close(self) -> None:
        """End all calls, with `Cancelled`, and all connections."""
        self._client.close()

    def __enter__(self) -> RedisStreamer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class RedisWorker:
    """One worker of a model; the same as ``zstreamer worker MODULE:CLASS``.

    Args:
        model_class: a `ManagedModel` subclass, or a function from a list to a list.
        batch_size: most items that the model is given at once.
        max_latency: longest wait for a fuller batch, in seconds.
        redis_broker, prefix: as for `RedisStreamer`.
        model_init_args, model_init_kwargs: passed to ``init_model``.
    """

    def __init__(
        self,
        model_class: object,
        batch_size: int,
        max_latency: float = 0.1,
        redis_broker: str = "localhost:6379",
        prefix: str = "",
        model_init_args: Sequence[object] | None = None,
        model_init_kwargs: dict[str, object] | None = None,
    ) -> None:
        if not callable(model_class):
            raise TypeError(f"{model_class!r} is no model: give a ManagedModel class or a function")
        Broker.of(redis_broker, prefix)
        self.prefix = prefix
        self._model = model_class
        self._args = model_init_args
        self._kwargs = model_init_kwargs
        self._loaded: PredictFunction | None = None
        self._serve: Callable[..., None] = lambda **more: run_redis_workers_forever(
            model_class,
            batch_size,
            max_latency,
            redis_broker=redis_broker,
            prefix=prefix,
            model_init_args=model_init_args,
            model_init_kwargs=model_init_kwargs,
            **more,
        )

    def model_predict(self, batch_input: list[object]) -> list[object]:
        """Run the model on a batch in this process; the first time it is loaded here."""
        if self._loaded is None:
            self._loaded = Loaded(self._model, None, self._args or (), self._kwargs).predict
        return listed(self._loaded(batch_input), len(batch_input))

    def run_forever(self, gpu_id: int | str | None = None) -> None:
        """Serve until the program is told to stop; the model has a process of its own."""
        self._serve(cuda_devices=None if gpu_id is None else (gpu_id,))


def run_redis_workers_forever(
    model_class: object,
    batch_size: int,
    max_latency: float = 0.1,
    worker_num: int = 1,
    cuda_devices: Collection[int | str] | None = None,
    redis_broker: str = "localhost:6379",
    prefix: str = "",
    mp_start_method: str = "spawn",
    model_init_args: Sequence[object] | None = None,
    model_init_kwargs: dict[str, object] | None = None,
) -> None:
    """Run workers of a model until the program is told to stop; then drain them.

    It waits for a broker that is not there yet, and says so in the log. From a thread other than
    the main one it runs until the program ends.

    Args:
        model_class: a `ManagedModel` subclass, or a function from a list to a list.
        batch_size: most items that a model is given at once.
        max_latency: longest wait for a fuller batch, in seconds.
        worker_num: how many workers.
        cuda_devices: device ids, dealt to the workers in turn.
        redis_broker: as for `RedisStreamer`.
        prefix: as for `RedisStreamer`.
        mp_start_method: as for `Streamer`.
        model_init_args: passed to ``init_model``.
        model_init_kwargs: passed to ``init_model``.

    Raises:
        TypeError, ValueError, RuntimeError: as `Streamer` raises them.
        SystemExit: the workers ended by themselves with this exit code: the model cannot start.
    """
    broker = Broker.of(redis_broker, prefix)
    model = HeldModel(
        model_class, model_init_args, model_init_kwargs, cuda_devices, mp_start_method
    )
    with ExitStack() as stack:
        folder = socket_folder()
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        config = model.config(
            folder,
            broker=(broker.workers,),
            model=broker.model,
            keys=os.environ.get(VARIABLE) or None,
            num=worker_num,
            batch_size=batch_size,
            max_latency=max_latency,
            log_level="info",  # at least that no broker answers
        )
        native = f"zstreamer worker MODULE:CLASS --broker {broker.workers} --model {broker.model}"
        _tell("workers", redis_broker, prefix, broker.workers, broker.model, native)
        forks = model.fork_server(config)
        if forks is not None:
            stack.callback(forks.close)
        workers = stack.enter_context(Process("zstreamer.worker.supervisor", config))
        code = _until_stopped(workers)
    if code:
        raise SystemExit(code)


def _until_stopped(workers: Process) -> int:
    """Wait for a request to stop, or for the workers to end by themselves; return their code."""
    try:
        stop = StopRequests()
    except ValueError:  # another thread than the main one, which alone takes signals
        return of_child(workers.wait() or 0)
    asked = 0
    with stop:
        while (code := workers.poll()) is None:
            select.select([stop], [], [], GLANCE)
            for _ in range(stop.requests - asked):
                workers.terminate()
            asked = stop.requests
    return of_child(code, stopped=asked == 1)


def _tell(*line: Any) -> None:
    """Say once what stands for what, where one sees it without setting up a log."""
    if line not in _told:
        _told.add(line)
        log.warning(
            "%s: redis_broker=%r prefix=%r stand for broker=%s model=%s; natively: %s", *line
        )


_told: set[tuple[Any, ...]] = set()
