"""The whole thing on one machine: `ThreadedStreamer` in this process, `Streamer` in its own.

ThreadedStreamer    caller ─> batcher ─> a thread that runs predict
Streamer            caller ─> Client ─> private broker ─> workers, over Unix sockets
"""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from collections.abc import Sequence
from types import TracebackType
from typing import NoReturn

from zstreamer.client.client import Client
from zstreamer.client.future import Future
from zstreamer.client.settings import Items
from zstreamer.config import AgentConfig, BrokerConfig
from zstreamer.errors import Cancelled
from zstreamer.local.threaded import Batches
from zstreamer.model import Loaded, PredictFunction
from zstreamer.setting import ConfigError
from zstreamer.system.process import Process
from zstreamer.worker import target
from zstreamer.worker.forkserver import ForkServer

READY_TIMEOUT = 600.0
"""Seconds that `wait_for_worker_ready` waits for a model to load."""


class ThreadedStreamer:
    """Batches calls from many threads, greenlets or coroutines onto one model in this process.

    Args:
        predict_function: takes a list of inputs, returns a list of as many outputs; an object
            with such a method ``predict`` will do. It runs in one thread of its own.
        batch_size: most items that it is given at once.
        max_latency: longest hold of a free model, in seconds, for callers who are about to
            return: those who were just answered and, as measured before, ask again at once. A
            lone caller is never held. 0 is greedy: a free model runs what is there.
        worker_timeout: seconds that a call may take.

    Raises:
        TypeError, ValueError: an argument makes no sense.

        >>> streamer = ThreadedStreamer(lambda batch: [2 * x for x in batch], batch_size=64)
        >>> streamer.predict([1, 2, 3])
        [2, 4, 6]
    """

    def __init__(
        self,
        predict_function: PredictFunction,
        batch_size: int,
        max_latency: float = 0.1,
        worker_timeout: float = 20,
    ) -> None:
        self._batches = Batches(predict_function, batch_size, max_latency, worker_timeout)

    def predict(self, batch: Items) -> list[object]:
        """Return one output for each input, in order.

        Raises:
            PredictError: the model failed on an item; ``index`` says which.
            DeadlineExceeded: ``worker_timeout`` has passed.
            Cancelled: the streamer was closed.
        """
        return self._batches.predict(batch)

    def submit(self, batch: Items) -> Future:
        """Return at once, with the future of what `predict` would return or raise."""
        return self._batches.submit(batch)

    def destroy_workers(self) -> None:
        """End the model's thread; open calls fail with `Cancelled`."""
        self._batches.close()

    close = destroy_workers

    def __enter__(self) -> ThreadedStreamer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.destroy_workers()


class Streamer:
    """Batches calls onto models in processes of their own, on this machine.

    Starts a private broker and ``worker_num`` workers, which end with this process however
    it ends. May be used from threads, greenlets, coroutines and forked children.

    Args:
        predict_function_or_model: a `ManagedModel` subclass, or a function from a list of
            inputs to a list of outputs; either must be importable by the workers, so defined
            at the top of a module, or of a script whose start is under
            ``if __name__ == "__main__":``.
        batch_size: most items that a model is given at once.
        max_latency: longest hold of a free model, in seconds, for callers who are about to
            return: those who were just answered and, as measured before, ask again at once. A
            lone caller is never held. 0 is greedy: a free model runs what is there.
        worker_num: how many workers.
        cuda_devices: device ids, dealt to the workers in turn as CUDA_VISIBLE_DEVICES.
        model_init_args, model_init_kwargs: passed to ``init_model``.
        wait_for_worker_ready: return only when a worker has loaded its model.
        mp_start_method: "spawn"; "fork" lets a model be anything this process holds, and
            cannot be used with ``cuda_devices``.
        worker_timeout: seconds that a call may take.

    Raises:
        TypeError: the model cannot be sent to a process; the message says what to do.
        RuntimeError: the program's main module starts it without a guard.
        ValueError: an argument makes no sense.
        NoWorker: ``wait_for_worker_ready`` is set and the model could not start.
    """

    def __init__(
        self,
        predict_function_or_model: object,
        batch_size: int,
        max_latency: float = 0.1,
        worker_num: int = 1,
        cuda_devices: Sequence[int | str] | None = None,
        model_init_args: Sequence[object] | None = None,
        model_init_kwargs: dict[str, object] | None = None,
        wait_for_worker_ready: bool = False,
        mp_start_method: str = "spawn",
        worker_timeout: float = 20,
    ) -> None:
        if mp_start_method not in ("spawn", "fork"):
            raise ValueError(f'mp_start_method must be "spawn" or "fork", not {mp_start_method!r}')
        if mp_start_method == "fork" and cuda_devices:
            raise ValueError(
                'mp_start_method="fork" cannot be used with cuda_devices: CUDA does not survive '
                'a fork; use "spawn"'
            )
        target.refuse_unguarded_main()
        model = predict_function_or_model
        args, kwargs = tuple(model_init_args or ()), dict(model_init_kwargs or {})
        forked = mp_start_method == "fork"
        pickled = "" if forked else target.freeze(model, args, kwargs)
        folder = tempfile.mkdtemp(prefix="zstreamer-")
        fork_address = f"{folder}/fork" if forked else ""
        clients, workers = f"ipc://{folder}/clients", f"ipc://{folder}/workers"
        self._owner = os.getpid()
        try:
            self._client = Client(clients, timeout=worker_timeout)
            config = AgentConfig(
                broker=(workers,),
                num=worker_num,
                devices=tuple(str(device) for device in cuda_devices or ()),
                batch_size=batch_size,
                max_latency=max_latency,
                pickled=pickled,
                fork_address=fork_address,
                log_level="error",
            )
        except ConfigError as error:
            shutil.rmtree(folder)
            raise ValueError(str(error).replace("AgentConfig.", "")) from None
        except BaseException:
            shutil.rmtree(folder)
            raise
        forks: ForkServer | None = None
        if forked:
            forks = ForkServer(fork_address, lambda: Loaded(model, None, args, kwargs))
        self._broker = Process(
            "zstreamer.broker",
            BrokerConfig(
                client_address=clients, worker_address=workers, http_port=0, log_level="error"
            ),
        )
        self._workers = Process("zstreamer.worker.supervisor", config)
        self._end = weakref.finalize(
            self, _end, self._owner, self._workers, self._broker, forks, self._client, folder
        )
        if wait_for_worker_ready:
            try:
                self._client.wait_ready(READY_TIMEOUT)
            except BaseException:
                self.destroy_workers()
                raise

    def predict(self, batch: Items) -> list[object]:
        """Return one output for each input, in order.

        Raises:
            ZStreamerError: as `Client.predict` does; `NoWorker` where the model cannot start,
                `Cancelled` where the streamer is closed.
        """
        self._refuse_closed()
        return self._client.predict(batch)

    def submit(self, batch: Items) -> Future:
        """Return at once, with the future of what `predict` would return or raise."""
        self._refuse_closed()
        return self._client.submit(batch)

    def destroy_workers(self) -> None:
        """End the workers and the broker; open calls fail. In a forked child only its client."""
        self._end()

    close = destroy_workers

    def _refuse_closed(self) -> None:
        if not self._end.alive:
            raise Cancelled("the streamer is closed")

    def _wait_for_worker_ready(self, *_: object, **__: object) -> NoReturn:
        """Tell programs of the older library, which call this, what does it here."""
        raise AttributeError(
            "Streamer has no _wait_for_worker_ready(): make it with "
            "Streamer(…, wait_for_worker_ready=True), which returns once a worker is ready; "
            "without that, calls wait for the first worker by themselves"
        )

    def __enter__(self) -> Streamer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.destroy_workers()


def _end(
    owner: int,
    workers: Process,
    broker: Process,
    forks: ForkServer | None,
    client: Client,
    folder: str,
) -> None:
    client.close()
    if os.getpid() != owner:
        return
    for process in (workers, broker):
        process.terminate()
    for process in (workers, broker):
        process.close()
    if forks is not None:
        forks.close()
    shutil.rmtree(folder, ignore_errors=True)
