"""Batches in this process: a worker's batcher, and one thread that runs the model.

    caller ─ queue ─> model's thread: gather ─> prepare ─> predict ─> wake the callers

At the end the running batch is waited for, and its callers have their answers.

The model's thread is one of the operating system, also where gevent has patched Python's own,
so that a predict which computes does not stop the hub. Greenlets are woken through their hub.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import logging
import operator
import os
import time
import weakref
from _queue import SimpleQueue  # C's own: gevent replaces the one in `queue`
from collections.abc import Callable, Sequence
from functools import partial
from queue import Empty

from zstreamer import failure
from zstreamer.batching import Batcher, BatchTime
from zstreamer.client.future import Future
from zstreamer.client.items import Items, listed
from zstreamer.client.settings import positive_seconds, whole_priority
from zstreamer.errors import Cancelled, NoWorker, WorkerLost, ZStreamerError
from zstreamer.local.calls import Backlog, Call, Item, late
from zstreamer.local.traces import Traces
from zstreamer.model import Loaded, ManagedModel, PredictFunction
from zstreamer.system import native, waiter
from zstreamer.wire.protocol import MAX_BUDGET
from zstreamer.worker.preparation import Raised, prepared
from zstreamer.worker.runner import ModelBroken, Runner

log = logging.getLogger(__name__)

GLANCE = 0.005
"""Seconds between two looks of a greenlet at whether the model's thread has ended."""

LONGEST = MAX_BUDGET / 1000
"""Seconds; the longest wait that a lock's timeout can hold; longer ones are cut to it."""


class Batches:
    """What `ThreadedStreamer` is made of; see there for the arguments.

    Attributes:
        batch_size: most items that the model is given at once.
    """

    def __init__(
        self,
        predict_function: PredictFunction | type[ManagedModel],
        batch_size: int,
        max_latency: float,
        worker_timeout: float,
    ) -> None:
        if operator.index(batch_size) < 1:
            raise ValueError(f"batch_size must be a whole number of at least 1, not {batch_size!r}")
        latency: object = max_latency  # whatever a caller without type checks gives
        if isinstance(latency, bool) or not isinstance(latency, int | float) or not latency >= 0:
            raise ValueError(f"max_latency must be 0 or more seconds, not {max_latency!r}")
        self._model = Loaded(predict_function)
        check = self._model.warm_up if self._model.example else None
        self._runner = Runner(self._model.predict, check)
        self._broken = ""
        self.batch_size = batch_size
        self._max_latency = max_latency
        self._timeout = min(positive_seconds("worker_timeout", worker_timeout), LONGEST)
        self._backlog = Backlog()
        self._traces = Traces()
        self._inbox: SimpleQueue[list[Item] | None] = SimpleQueue()
        self._deadlines: list[tuple[float, int, weakref.ref[Call]]] = []
        self._numbers = itertools.count()
        self._sooner: SimpleQueue[None] = SimpleQueue()
        self._callbacks: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._ending = native.lock()
        self._closed = False
        self._open: weakref.WeakSet[Call] = weakref.WeakSet()
        self._next_id = 0
        self._started: dict[str, native.Thread] = {}
        self._process = -1

    def predict(
        self, items: Items, timeout: float | None, priority: int, keep_errors: bool
    ) -> list[object]:
        """Return the outputs of one call."""
        call = self._call(items, timeout, priority, keep_errors)
        here = waiter.here()
        call.wake = here.wake
        self._put(call)
        try:
            here.wait(call.timeout)
        except BaseException:
            self._end(call, Cancelled("the caller gave up"))
            raise
        if not call.done:
            self._end(call, late(call))
        return call.results()

    def submit(
        self, items: Items, timeout: float | None, priority: int, keep_errors: bool
    ) -> Future:
        """Return the future of the outputs of one call."""
        call = self._call(items, timeout, priority, keep_errors)
        give_up = partial(self._end, call, Cancelled("the call was cancelled"))
        if _green():
            import gevent

            loop = gevent.get_hub().loop
            future = Future(give_up, gevent.spawn)
            call.wake = lambda: loop.run_callback_threadsafe(future.settle, call.results)
        else:
            future = Future(give_up, self._run_apart)
            call.wake = lambda: future.settle(call.results)
        self._start("watchdog", self._watch)
        self._watch_for(call)
        self._put(call)
        return future

    def start(
        self, items: Items, timeout: float, priority: int, done: Callable[[Call], None]
    ) -> Callable[[], None]:
        """Submit a call that keeps errors; `done` is called from any thread, and must not raise.

        Returns what cancels it.
        """
        call = self._call(items, timeout, priority, True)
        call.wake = lambda: done(call)
        self._start("watchdog", self._watch)
        self._watch_for(call)
        self._put(call)
        return partial(self._end, call, Cancelled("the call was cancelled"))

    def close(self) -> None:
        """End the threads: what runs is answered, and waited for; what waits is cancelled."""
        with self._ending:
            self._closed = True
            waiting = [call for call in self._open if not call.begun]
        self._inbox.put(None)
        self._sooner.put(None)
        for call in waiting:
            self._end(call, Cancelled("the streamer was closed"))
        if not self._wait_for_model():
            log.warning(
                "predict has run for more than %g s since the streamer was closed, and goes on",
                self._timeout,
            )
        with self._ending:
            waiting = list(self._open)
        for call in waiting:
            self._end(call, Cancelled("the streamer was closed"))
        self._callbacks.put(None)  # last, so that those of all these calls run

    def _wait_for_model(self) -> bool:
        """Wait for the model's thread to end; False where it still runs after a call's time."""
        with self._ending:
            thread = self._started.get("model") if self._process == os.getpid() else None
        if thread is None or thread.is_current():  # closed by predict itself
            return True
        if not _green():
            return thread.join(self._timeout)
        end = time.monotonic() + self._timeout
        while not thread.join(0.0):
            if time.monotonic() >= end:
                return False
            time.sleep(GLANCE)  # gevent's, which lets other greenlets run
        return True

    # In the callers' threads

    def _call(self, items: Items, timeout: float | None, priority: int, keep_errors: bool) -> Call:
        rows = listed(items)
        budget = self._timeout if timeout is None else positive_seconds("timeout", timeout)
        if self._closed:
            raise Cancelled("the streamer is closed")
        call = Call(rows, min(budget, LONGEST), whole_priority(priority), keep_errors)
        self._traces.begin(call)
        return call

    def _put(self, call: Call) -> None:
        if not call.items:
            self._end(call, None)
            return
        now = time.monotonic()
        with self._ending:
            if not self._closed:
                self._open.add(call)
        self._start("model", self._run)
        self._inbox.put([Item(0, call, i, value, now) for i, value in enumerate(call.items)])
        if self._closed:  # meanwhile, and perhaps before it was seen
            self._end(call, Cancelled("the streamer was closed"))

    def _start(self, name: str, function: Callable[[], None]) -> None:
        """Start a thread with the first use in this process: a fork takes none along."""
        with self._ending:
            if self._process != os.getpid():
                self._process = os.getpid()
                self._started.clear()
            if name not in self._started:
                self._started[name] = native.Thread(function)

    def _watch_for(self, call: Call) -> None:
        """Have the watchdog end a call when its time is over."""
        entry = call.deadline, next(self._numbers), weakref.ref(call)
        with self._ending:
            heapq.heappush(self._deadlines, entry)
            first = self._deadlines[0] is entry
        if first:
            self._sooner.put(None)

    def _run_apart(self, function: Callable[[], None]) -> None:
        self._start("callbacks", self._call_back)
        self._callbacks.put(function)

    # In any thread

    def _end(self, call: Call, error: ZStreamerError | None) -> None:
        with self._ending:
            if call.done:
                return
            call.done = True
            call.error = error
            self._open.discard(call)
        call.end_trace()
        call.wake()

    # In the model's thread

    def _run(self) -> None:
        batch_time = BatchTime()
        batcher: Batcher[Item] = Batcher(self.batch_size, self._max_latency, None, batch_time)
        hold: float | None = None
        while True:
            if not self._gather(batcher, hold):
                return
            plan = batcher.next(time.monotonic(), running=0)
            hold = plan.hold_until
            if plan.items:
                items = self._backlog.take(plan.items)
                batcher.remove([item.id for item in items])
                if not self._run_batch(batcher, items, batch_time):
                    return

    def _gather(self, batcher: Batcher[Item], hold: float | None) -> bool:
        """Take in what has arrived; wait for it where nothing can run. False at the end."""
        if not len(batcher):
            return self._take_in(batcher, None)
        return self._take_in(batcher, max(0.0, hold - time.monotonic()) if hold else 0.0)

    def _take_in(self, batcher: Batcher[Item], wait: float | None) -> bool:
        try:
            items = self._inbox.get(timeout=wait) if wait != 0.0 else self._inbox.get_nowait()
            while items is not None:
                for item in items:
                    self._next_id += 1
                    item.id = self._next_id
                    self._backlog.put(item)
                if items:
                    batcher.add(items[0].arrived, items)
                items = self._inbox.get_nowait()
            return False
        except Empty:
            return True

    def _run_batch(
        self, batcher: Batcher[Item], planned: Sequence[Item], batch_time: BatchTime
    ) -> bool:
        """Run a batch and wake its callers. False at the end."""
        taken = time.monotonic()
        items = self._prepare(planned)
        if not items:
            return True
        for item in items:
            item.call.begun = True
        start = time.perf_counter()
        outputs = self._outputs(items, taken)
        seconds = time.perf_counter() - start
        log.debug("batch size=%d seconds=%.4f", len(items), seconds)
        if self._runner.clean:
            batch_time.observe(len(items), seconds)
        more = self._take_in(batcher, 0.0)  # what came while it ran, so not in answer to it
        batcher.ended(time.monotonic(), len(items))
        ended: dict[int, Call] = {}
        for item, output in zip(items, outputs, strict=True):
            call = item.call
            if call.settles(item.index, output):
                ended[id(call)] = call
        for call in ended.values():
            self._end(call, call.first_error())
        return more

    def _outputs(self, items: Sequence[Item], taken: float) -> Sequence[object]:
        """Run a batch; if the model is broken, all callers fail at once."""
        if self._broken:
            return [NoWorker(self._broken, final=True)] * len(items)
        values, once = [item.value for item in items], [False] * len(items)
        spans = self._traces.batch(items, taken)
        try:
            if spans is None:
                return self._runner.run(values, once)
            with spans:
                outputs = self._runner.run(values, once)
            spans.end(outputs)
        except ModelBroken as error:
            self._broken = (
                f"the model in this process is broken and can run nothing any more ({error}); "
                "start the process again, or use a Streamer, which does so itself"
            )
            return [WorkerLost(self._broken)] * len(items)
        return outputs

    def _prepare(self, planned: Sequence[Item]) -> list[Item]:
        """Give items the form that predict takes; end the calls of those where that fails."""
        wanted = [item for item in planned if not item.call.done]
        if not self._model.prepares:
            return wanted
        ready: list[Item] = []
        values = prepared(self._model, [item.value for item in wanted])
        for item, value in zip(wanted, values, strict=True):
            if not isinstance(value, Raised):
                item.value = value
                ready.append(item)
            elif item.call.settles(item.index, failure.raised(value.error)):
                self._end(item.call, item.call.first_error())
        return ready

    # In the other threads

    def _watch(self) -> None:
        """End calls whose time is over."""
        while not self._closed:
            now = time.monotonic()
            overdue: list[weakref.ref[Call]] = []
            with self._ending:
                while self._deadlines and self._deadlines[0][0] <= now:
                    overdue.append(heapq.heappop(self._deadlines)[2])
                wait = self._deadlines[0][0] - now if self._deadlines else LONGEST
            for reference in overdue:
                if (call := reference()) is not None:
                    self._end(call, late(call))
                    call = None
            with contextlib.suppress(Empty):
                self._sooner.get(timeout=wait)

    def _call_back(self) -> None:
        while (function := self._callbacks.get()) is not None:
            function()


def _green() -> bool:
    return native.patched() and native.in_hub_thread()
