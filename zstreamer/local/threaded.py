"""Batches in this process: a worker's batcher, and one thread that runs the model.

    caller ─ queue ─> model's thread: gather ─> prepare ─> predict ─> wake the callers

The model's thread is one of the operating system, also where gevent has patched Python's own,
so that a predict which computes does not stop the hub. Greenlets are woken through their hub.
"""

from __future__ import annotations

import operator
import os
import time
import weakref
from _queue import SimpleQueue  # C's own: gevent replaces the one in `queue`
from collections.abc import Callable, Sequence
from queue import Empty

from zstreamer import failure
from zstreamer.batching import Batcher, BatchTime
from zstreamer.client.future import Future
from zstreamer.client.settings import Items, check_items
from zstreamer.errors import (
    Cancelled,
    DeadlineExceeded,
    NoWorker,
    WorkerLost,
    ZStreamerError,
)
from zstreamer.model import Loaded, PredictFunction
from zstreamer.system import native
from zstreamer.worker.runner import ModelBroken, Runner


class _Call:
    """Items that were passed together.

    Attributes:
        wake: tells the caller, from any thread, that the call has ended.
    """

    __slots__ = ("__weakref__", "deadline", "done", "error", "left", "outputs", "wake")

    def __init__(self, count: int, deadline: float) -> None:
        self.outputs: list[object] = [None] * count
        self.left = count
        self.deadline = deadline
        self.error: ZStreamerError | None = None
        self.done = False
        self.wake: Callable[[], None] = _nothing

    def results(self) -> list[object]:
        if self.error is not None:
            raise self.error
        return self.outputs


class _Item:
    """One input of a call."""

    __slots__ = ("arrived", "call", "cost", "id", "index", "value")

    def __init__(self, id: int, call: _Call, index: int, value: object, arrived: float) -> None:
        self.id = id
        self.call = call
        self.index = index
        self.value = value
        self.arrived = arrived
        self.cost = 0.0

    @property
    def deadline(self) -> float:
        return self.call.deadline


class Batches:
    """What `ThreadedStreamer` is made of; see there for the arguments."""

    def __init__(
        self,
        predict_function: PredictFunction,
        batch_size: int,
        max_latency: float,
        worker_timeout: float,
    ) -> None:
        if operator.index(batch_size) < 1:
            raise ValueError(f"batch_size must be a whole number of at least 1, not {batch_size!r}")
        self._model = Loaded(predict_function)
        check = self._model.warm_up if self._model.example else None
        self._runner = Runner(self._model.predict, check)
        self._broken = ""
        self._batch_size = batch_size
        self._max_latency = max_latency
        self._timeout = worker_timeout
        self._inbox: SimpleQueue[list[_Item] | None] = SimpleQueue()
        self._overdue: SimpleQueue[weakref.ref[_Call] | None] = SimpleQueue()
        self._callbacks: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._ending = native.lock()
        self._closed = False
        self._open: weakref.WeakSet[_Call] = weakref.WeakSet()
        self._next_id = 0
        self._started: set[str] = set()
        self._process = -1

    def predict(self, items: Items) -> list[object]:
        """Return the outputs of one call."""
        call = self._call(items)
        wait = self._green_wait(call) if _green() else self._thread_wait(call)
        self._put(call, items)
        try:
            wait()
        except BaseException:
            self._end(call, Cancelled("the caller gave up"))
            raise
        if not call.done:
            self._end(call, self._late())
        return call.results()

    def submit(self, items: Items) -> Future:
        """Return the future of the outputs of one call."""
        call = self._call(items)
        if _green():
            import gevent

            hub = gevent.get_hub()
            future = Future(
                lambda: self._end(call, Cancelled("the call was cancelled")), gevent.spawn
            )
            call.wake = lambda: hub.loop.run_callback_threadsafe(_settle, future, call)
        else:
            future = Future(
                lambda: self._end(call, Cancelled("the call was cancelled")), self._run_apart
            )
            call.wake = lambda: _settle(future, call)
        self._start("watchdog", self._watch)
        self._overdue.put(weakref.ref(call))
        self._put(call, items)
        return future

    def close(self) -> None:
        """End the threads; open calls fail."""
        self._closed = True
        for queue in (self._inbox, self._overdue, self._callbacks):
            queue.put(None)
        for call in list(self._open):
            self._end(call, Cancelled("the streamer was closed"))

    # In the callers' threads

    def _call(self, items: Items) -> _Call:
        check_items(items)
        if self._closed:
            raise Cancelled("the streamer is closed")
        return _Call(len(items), time.monotonic() + self._timeout)

    def _put(self, call: _Call, items: Items) -> None:
        if not items:
            self._end(call, None)
            return
        now = time.monotonic()
        self._open.add(call)
        self._start("model", self._run)
        self._inbox.put([_Item(0, call, i, value, now) for i, value in enumerate(items)])

    def _thread_wait(self, call: _Call) -> Callable[[], object]:
        lock = native.lock()
        lock.acquire()
        call.wake = lock.release
        return lambda: lock.acquire(timeout=self._timeout)

    def _green_wait(self, call: _Call) -> Callable[[], object]:
        import gevent
        from gevent.hub import Waiter

        hub = gevent.get_hub()
        waiter = Waiter(hub)
        call.wake = lambda: hub.loop.run_callback_threadsafe(waiter.switch, None)

        def wait() -> None:
            with gevent.Timeout(self._timeout, False):
                waiter.get()

        return wait

    def _start(self, name: str, function: Callable[[], None]) -> None:
        """Start a thread with the first use in this process: a fork takes none along."""
        with self._ending:
            if self._process != os.getpid():
                self._process = os.getpid()
                self._started.clear()
            if name in self._started:
                return
            self._started.add(name)
        native.start_thread(function)

    def _run_apart(self, function: Callable[[], None]) -> None:
        self._start("callbacks", self._call_back)
        self._callbacks.put(function)

    # In any thread

    def _end(self, call: _Call, error: ZStreamerError | None) -> None:
        with self._ending:
            if call.done:
                return
            call.done = True
            call.error = error
        self._open.discard(call)
        call.wake()

    def _late(self) -> DeadlineExceeded:
        return DeadlineExceeded(f"no answer within {self._timeout:.3g} s")

    # In the model's thread

    def _run(self) -> None:
        batch_time = BatchTime()
        batcher: Batcher[_Item] = Batcher(self._batch_size, self._max_latency, None, batch_time)
        hold: float | None = None
        while True:
            if not self._gather(batcher, hold):
                return
            plan = batcher.next(time.monotonic(), running=0)
            hold = plan.hold_until
            if plan.items:
                batcher.remove([item.id for item in plan.items])
                if not self._run_batch(batcher, plan.items, batch_time):
                    return

    def _gather(self, batcher: Batcher[_Item], hold: float | None) -> bool:
        """Take in what has arrived; wait for it where nothing can run. False at the end."""
        if not len(batcher):
            return self._take_in(batcher, None)
        return self._take_in(batcher, max(0.0, hold - time.monotonic()) if hold else 0.0)

    def _take_in(self, batcher: Batcher[_Item], wait: float | None) -> bool:
        try:
            items = self._inbox.get(timeout=wait) if wait != 0.0 else self._inbox.get_nowait()
            while items is not None:
                for item in items:
                    self._next_id += 1
                    item.id = self._next_id
                if items:
                    batcher.add(items[0].arrived, items)
                items = self._inbox.get_nowait()
            return False
        except Empty:
            return True

    def _run_batch(
        self, batcher: Batcher[_Item], planned: Sequence[_Item], batch_time: BatchTime
    ) -> bool:
        """Run a batch and wake its callers. False at the end."""
        items = [item for item in planned if self._prepare(item)]
        if not items:
            return True
        start = time.perf_counter()
        outputs = self._outputs(items)
        if self._runner.clean:
            batch_time.observe(len(items), time.perf_counter() - start)
        more = self._take_in(batcher, 0.0)  # what came while it ran, so not in answer to it
        batcher.ended(time.monotonic(), len(items))
        ended: dict[int, _Call] = {}
        for item, output in zip(items, outputs, strict=True):
            call = item.call
            call.outputs[item.index] = output
            call.left -= 1
            if not call.left or isinstance(output, BaseException):
                ended[id(call)] = call
        for call in ended.values():
            self._end(call, _first_error(call))
        return more

    def _outputs(self, items: Sequence[_Item]) -> Sequence[object]:
        """Run a batch; where the model is broken nobody waits for what no batch can bring."""
        if self._broken:
            return [NoWorker(self._broken, final=True)] * len(items)
        try:
            return self._runner.run([item.value for item in items], [False] * len(items))
        except ModelBroken as error:
            self._broken = (
                f"the model in this process is broken and can run nothing any more ({error}); "
                "start the process again, or use a Streamer, which does so itself"
            )
            return [WorkerLost(self._broken)] * len(items)

    def _prepare(self, item: _Item) -> bool:
        """Give an item the form that predict takes; end its call where that fails."""
        if item.call.done:
            return False
        try:
            item.value = self._model.prepare(item.value)
        except BaseException as error:  # noqa: BLE001  # the user's code; it must not end this thread
            item.call.outputs[item.index] = failure.raised(error)
            self._end(item.call, _first_error(item.call))
            return False
        return True

    # In the other threads

    def _watch(self) -> None:
        """End calls whose time is over; all have the same, so the oldest comes first."""
        while (reference := self._overdue.get()) is not None:
            call = reference()
            if call is None or call.done:
                continue
            deadline = call.deadline
            del call
            time_left = deadline - time.monotonic()
            if time_left > 0 and self._sleep(time_left):
                return
            call = reference()
            if call is not None:
                self._end(call, self._late())

    def _sleep(self, seconds: float) -> bool:
        """Sleep natively; True where the streamer was closed meanwhile."""
        lock = native.lock()
        lock.acquire()
        end = time.monotonic() + seconds
        while not self._closed and (left := end - time.monotonic()) > 0:
            lock.acquire(timeout=min(left, 0.5))
        return self._closed

    def _call_back(self) -> None:
        while (function := self._callbacks.get()) is not None:
            function()


def _green() -> bool:
    return native.patched() and native.in_hub_thread()


def _settle(future: Future, call: _Call) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(call.results())
    except ZStreamerError as error:
        future.set_exception(error)


def _first_error(call: _Call) -> ZStreamerError | None:
    for index, output in enumerate(call.outputs):
        if isinstance(output, BaseException):
            error = failure.returned(output)
            error.index = index
            return error
    return None


def _nothing() -> None: ...
