"""The whole thing on one machine: `ThreadedStreamer` in this process, `Streamer` in its own.

ThreadedStreamer    caller ─> batcher ─> a thread that runs predict
Streamer            caller ─> Client ─> private broker ─> workers, over Unix sockets
"""

from __future__ import annotations

import os
import shutil
import weakref
from collections.abc import Collection, Iterable, Sequence

from zstreamer import pickled
from zstreamer.client.client import Client
from zstreamer.client.future import Future
from zstreamer.client.items import Items
from zstreamer.client.outputs import Options, Outputs
from zstreamer.client.settings import whole_priority
from zstreamer.client.status import fetch
from zstreamer.config import JOB_PATIENCE, JOB_PRIORITY, JOB_TIMEOUT, TIMEOUT, BrokerConfig
from zstreamer.doctor import Report, examine
from zstreamer.errors import Cancelled
from zstreamer.local.folder import socket_folder
from zstreamer.local.held_model import HeldModel
from zstreamer.local.parts import Parts
from zstreamer.local.threaded import Batches
from zstreamer.local.threaded_port import BatchesPort
from zstreamer.model import ManagedModel, PredictFunction
from zstreamer.system.process import FOLDER_FLAG, Process
from zstreamer.worker import target

READY_TIMEOUT = 600.0
"""Seconds that `wait_for_worker_ready` waits for a model to load."""

MAX_GRACE = 24 * 3600.0
"""Seconds that a drain may take, however long the calls may."""


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
        predict_function: PredictFunction | type[ManagedModel],
        batch_size: int,
        max_latency: float = 0.1,
        worker_timeout: float = TIMEOUT,
    ) -> None:
        self._batches = Batches(predict_function, batch_size, max_latency, worker_timeout)

    def predict(
        self,
        batch: Items,
        *,
        timeout: float | None = None,
        priority: int = 0,
        return_exceptions: bool = False,
    ) -> list[object]:
        """Return one output for each input, in order.

        Args:
            batch: a list or tuple of inputs; an array, of which each row is one; a deque …
            timeout: seconds that this call may take; ``worker_timeout`` where None.
            priority: higher goes first.
            return_exceptions: put each failed input's error in its place instead of raising.

        Raises:
            TypeError, ValueError: an argument makes no sense.
            PredictError: the model failed on an item; ``index`` says which.
            DeadlineExceeded: the call's time has passed.
            Cancelled: the streamer was closed.
        """
        return self._batches.predict(batch, timeout, priority, return_exceptions)

    def submit(
        self,
        batch: Items,
        *,
        timeout: float | None = None,
        priority: int = 0,
        return_exceptions: bool = False,
    ) -> Future:
        """Return at once, with the future of what `predict` would return or raise.

        Arguments as for `predict`. The future's ``cancel()`` takes the inputs out of all queues.

        Raises:
            TypeError, ValueError: an argument makes no sense.
            Cancelled: the streamer is closed.
        """
        return self._batches.submit(batch, timeout, priority, return_exceptions)

    def map(
        self,
        items: Iterable[object],
        *,
        start: int = 0,
        chunk: int | None = None,
        progress: bool = False,
        timeout: float = JOB_TIMEOUT,
        patience: float = JOB_PATIENCE,
        priority: int = JOB_PRIORITY,
        return_exceptions: bool = True,
    ) -> Outputs:
        """Return an iterator of the outputs, in order, of any number of items.

        Arguments and errors as for `Client.map`.
        """
        options = Options(items, start, chunk, patience, progress, return_exceptions)
        return Outputs(options, BatchesPort(self._batches, timeout, whole_priority(priority)))

    def destroy_workers(self) -> None:
        """End the model's thread once the batch that runs is done, and its callers answered.

        Calls that wait fail with `Cancelled` at once. A predict that hangs is waited for as long
        as ``worker_timeout``, then left behind with a line in the log.
        """
        self._batches.close()

    close = destroy_workers

    def __enter__(self) -> ThreadedStreamer:
        return self

    def __exit__(self, *_: object) -> None:
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
        cuda_devices: device ids, dealt to the workers in turn as CUDA_VISIBLE_DEVICES; numbers,
            an array of them, or ids as "GPU-…".
        model_init_args, model_init_kwargs: passed to ``init_model``.
        wait_for_worker_ready: return only when a worker has loaded its model.
        mp_start_method: "spawn", or "forkserver", which is the same here; "fork" lets a model be
            anything this process holds. With ``cuda_devices`` it must not have used CUDA by then.
        worker_timeout: seconds that a call may take.
        prepare_workers: processes that prepare for each worker, for a `prepare` that is slow
            Python; not with "fork".

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
        cuda_devices: Collection[int | str] | None = None,
        model_init_args: Sequence[object] | None = None,
        model_init_kwargs: dict[str, object] | None = None,
        wait_for_worker_ready: bool = False,
        mp_start_method: str = "spawn",
        worker_timeout: float = TIMEOUT,
        prepare_workers: int = 0,
    ) -> None:
        self._closed = "the streamer is closed"
        if target.importing_model():
            self._closed = (
                "this process has imported its program for the model alone, so its Streamer "
                "started nothing; put calls at the top of a module into functions"
            )
            self._end = weakref.finalize(self, int)
            self._end.detach()
            return
        model = HeldModel(
            predict_function_or_model,
            model_init_args,
            model_init_kwargs,
            cuda_devices,
            mp_start_method,
        )
        folder = socket_folder()
        self._address, workers = f"ipc://{folder}/clients", f"ipc://{folder}/workers"
        self._owner = os.getpid()
        self._grace = worker_timeout
        try:
            self._client = _PrivateClient(self._address, worker_timeout)
            config = model.config(
                folder,
                broker=(workers,),
                num=worker_num,
                batch_size=batch_size,
                max_latency=max_latency,
                drain_grace=min(worker_timeout, MAX_GRACE),
                log_level="error",
                private=True,
                prepare_workers=prepare_workers,
            )
        except BaseException:
            shutil.rmtree(folder)
            raise
        forks = model.fork_server(config)
        self._broker = Process(
            "zstreamer.broker",
            BrokerConfig(
                client_address=self._address,
                worker_address=workers,
                http_port=0,
                log_level="error",
            ),
            # It outlives this process by a moment, also where that is killed.
            args=(FOLDER_FLAG, folder),
        )
        self._workers = Process("zstreamer.worker.supervisor", config)
        self._parts = Parts(self._owner, self._workers, self._broker, forks, self._client, folder)
        self._end = weakref.finalize(self, self._parts.end)
        if wait_for_worker_ready:
            try:
                self._client.wait_ready(READY_TIMEOUT)
            except BaseException:
                self.destroy_workers()
                raise

    def predict(
        self,
        batch: Items,
        *,
        timeout: float | None = None,
        priority: int = 0,
        return_exceptions: bool = False,
    ) -> list[object]:
        """Return one output for each input, in order.

        Args:
            batch: a list or tuple of inputs; an array, of which each row is one; a deque … An
                input may be anything that can be pickled.
            timeout: seconds that this call may take; ``worker_timeout`` where None.
            priority: higher goes first.
            return_exceptions: put each failed input's error in its place instead of raising.

        Raises:
            TypeError, ValueError: an argument makes no sense.
            ZStreamerError: as `Client.predict` does; `NoWorker` where the model cannot start,
                `Cancelled` where the streamer is closed.
        """
        self._refuse_closed()
        return self._client.predict(
            batch, timeout=timeout, priority=priority, return_exceptions=return_exceptions
        )

    def submit(
        self,
        batch: Items,
        *,
        timeout: float | None = None,
        priority: int = 0,
        return_exceptions: bool = False,
    ) -> Future:
        """Return at once, with the future of what `predict` would return or raise.

        Arguments as for `predict`. The future's ``cancel()`` takes the inputs out of all queues.

        Raises:
            TypeError, ValueError: an argument makes no sense.
            Cancelled: the streamer is closed.
        """
        self._refuse_closed()
        return self._client.submit(
            batch, timeout=timeout, priority=priority, return_exceptions=return_exceptions
        )

    def map(
        self,
        items: Iterable[object],
        *,
        start: int = 0,
        chunk: int | None = None,
        progress: bool = False,
        timeout: float = JOB_TIMEOUT,
        patience: float = JOB_PATIENCE,
        priority: int = JOB_PRIORITY,
        return_exceptions: bool = True,
    ) -> Outputs:
        """Return an iterator of the outputs, in order, of any number of items.

        Arguments and errors as for `Client.map`.
        """
        self._refuse_closed()
        return self._client.map(
            items,
            start=start,
            chunk=chunk,
            progress=progress,
            timeout=timeout,
            patience=patience,
            priority=priority,
            return_exceptions=return_exceptions,
        )

    def destroy_workers(self) -> None:
        """End the workers and the broker. In a forked child only its client.

        Batches that run are waited for, up to ``worker_timeout`` seconds, and their callers have
        their answers; all other calls fail with `Cancelled`.
        """
        if self._end.detach() is not None:
            self._parts.end(self._grace)

    close = destroy_workers

    @property
    def address(self) -> str:
        """The private broker's, for ``zstreamer status --address``; only this user can reach it."""
        return self._address

    def status(self) -> dict[str, object]:
        """Return what the private broker knows of its model, workers and queue.

        Returns:
            ``{"broker": {…}, "models": {"default": {…}}}``, as ``zstreamer status --json`` has it.

        Raises:
            Cancelled: the streamer is closed.
            BrokerUnreachable: the broker does not answer.
        """
        self._refuse_closed()
        return fetch(self._address, keys="")

    def doctor(self, seconds: float = 3.0) -> Report:
        """Look at the workers and the load for some seconds; return what is wrong, worst first.

        Args:
            seconds: how long to look. Print the result, or look at its ``findings``.

        Raises:
            Cancelled: the streamer is closed.
        """
        self._refuse_closed()
        return examine(self._address, seconds=seconds)

    def _refuse_closed(self) -> None:
        if not self._end.alive:
            raise Cancelled(self._closed)

    def _wait_for_worker_ready(self, timeout: float | None = None) -> None:
        """Wait until a worker is ready; for programs of the older library, which call this.

        Raises:
            NoWorker: none is within so many seconds, ten minutes where None.
        """
        self._refuse_closed()
        self._client.wait_ready(READY_TIMEOUT if timeout is None else timeout)

    def __enter__(self) -> Streamer:
        return self

    def __exit__(self, *_: object) -> None:
        self.destroy_workers()


class _PrivateClient(Client):
    """Sends what msgpack cannot carry as pickles, to a private broker and its own workers."""

    def __init__(self, address: str, timeout: float) -> None:
        super().__init__([address], timeout=timeout, keys="")  # its sockets are private
        self._settings.codec = pickled.private()
