"""The process that holds the model, and nothing else.

    reader thread   socket ─> decode ─> prepare ─> held items, and the plan for the next batch
    main thread     boot; then: claim the plan ─> predict ─> hand the outputs over
    writer thread   encode ─> socket

So the next batch is prepared while this one runs, and its answers are encoded while the next
one runs. When the agent is gone the socket ends, and so does this process, at once. A predict that
holds the GIL lets no thread see that: then the kernel ends the process, on Linux.
"""

from __future__ import annotations

import logging
import math
import os
import signal
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple, NoReturn

from zstreamer import errors, failure, pickled
from zstreamer.codec import PLAIN
from zstreamer.model import Loaded
from zstreamer.setting import ConfigError
from zstreamer.signature import example_text
from zstreamer.system import cpus, logs
from zstreamer.system.process import end_with_parent
from zstreamer.tracing import setup
from zstreamer.worker import pipe, target
from zstreamer.worker.claims import Claims
from zstreamer.worker.flights import DEPTH, Flights
from zstreamer.worker.pool import Pool, Task
from zstreamer.worker.preparation import Preparation, Ready
from zstreamer.worker.preparer import Handed
from zstreamer.worker.runner import ModelBroken, Runner, encode
from zstreamer.worker.traces import Traces

log = logging.getLogger("zstreamer.worker.child")  # run as __main__

READ = 1024 * 1024
"""Bytes read from the socket at once."""

SWITCH = 0.001
"""Seconds after which a predict that computes in Python lets the answers before it out."""

LAST_SPANS = 1.0
"""Seconds that spans get to leave before this process ends, where items were traced."""

LAST_ANSWERS = 5.0
"""Seconds that answers to earlier batches get to leave before a broken model's process ends."""

PROGRESS = 0.2
"""Seconds of preparing after which the agent hears what is left: many slow items are no hang."""


THREADS = ("OMP_NUM_THREADS", "RAYON_NUM_THREADS")
"""What says how many threads torch and the tokenizers of transformers use."""


class Held(NamedTuple):
    """An item, decoded and prepared, that waits to be claimed."""

    value: object
    once: bool


class Child:
    """Both ends of one model: what the agent sends, and what the model makes of it.

    Attributes:
        codec: what makes values of payloads; it opens no pickle unless the owner has said so.
    """

    def __init__(self, channel: socket.socket, claims: Claims) -> None:
        self._channel = channel
        self._claims = claims
        self._writing = threading.Lock()
        self._changed = threading.Condition()
        self._held: dict[int, Held] = {}
        self._plan: pipe.Plan | None = None
        self._preparation: Preparation
        self._pool: Pool | None = None
        self._looks = self._has_cost = self._in_batches = False
        self.codec = PLAIN
        self.traces = Traces()
        self._outbox: deque[tuple[list[int], list[object], float]] = deque()
        self._to_write = threading.Semaphore(0)

    def prepare_apart(self, description: target.Description) -> None:
        """Have the model's items prepared by processes of their own, which start now."""
        if description.prepare_workers:
            self._pool = Pool(description, description.prepare_workers, self._take_prepared)

    def wait_for_pool(self) -> None:
        """Wait until those processes, if there are any, can prepare."""
        if self._pool is not None:
            self._pool.start()

    def serve(self, model: Loaded) -> NoReturn:
        """Run batches until the process ends."""
        self._preparation = Preparation(model, self.codec.decode)
        self._looks, self._has_cost = model.looks_on_arrival, model.cost is not None
        self._in_batches = model.prepare_batch is not None and self._pool is None
        if self._pool is not None:
            # The agent must not plan what is still being prepared, so each item is told when it is.
            self._looks = self._has_cost = True
        check = model.warm_up if model.example else None
        runner = Runner(model.predict, check, model.begin)
        threading.Thread(target=self._read, name="reader", daemon=True).start()
        threading.Thread(target=self._write_answers, name="writer", daemon=True).start()
        example = example_text(model.example)
        ahead = model.begin is not None
        self.send(pipe.Booted(self._has_cost, model.inputs, model.outputs, example, ahead))
        if ahead:
            self._overlap(Flights(runner, self._changed))
        while True:
            ids, held = self._claim()
            start = time.perf_counter()
            try:
                with self.traces.running(ids):
                    outputs = runner.run([h.value for h in held], [h.once for h in held])
            except ModelBroken as error:
                self._end(error.__cause__ or error)
            seconds = time.perf_counter() - start
            log.debug("batch size=%d seconds=%.4f", len(ids), seconds)
            self._answer(ids, outputs, seconds if runner.clean else 0.0)
            self.traces.ended(ids, outputs)

    def _overlap(self, flights: Flights) -> NoReturn:
        """Run batches of a model on a device of its own, the next while the one before computes."""
        while True:
            claimed = None
            with self._changed:
                while not (plan := self._next_plan(len(flights))) and not flights.ready:
                    self._changed.wait()
                if plan is not None:
                    claimed = self._claim_plan(plan)
            if claimed is not None:  # first, so that the device has work while answers are made
                ids, held = claimed
                with self.traces.running(ids):
                    flights.begin(ids, [h.value for h in held], [h.once for h in held])
                continue
            try:
                ids, outputs, seconds = flights.end()
            except ModelBroken as error:
                self._end(error.__cause__ or error)
            log.debug("batch size=%d seconds=%.4f", len(ids), seconds)
            self._answer(ids, outputs, seconds)
            self.traces.ended(ids, outputs)

    def _next_plan(self, begun: int) -> pipe.Plan | None:
        plan = self._plan
        return plan if plan and (not begun or (plan.ahead and begun < DEPTH)) else None

    def send(self, message: pipe.PipeMessage) -> None:
        """Write one message; blocks while the agent does not read."""
        data = pipe.pack(message)
        with self._writing:
            self._channel.sendall(data)

    def _claim(self) -> tuple[list[int], list[Held]]:
        with self._changed:
            while self._plan is None:
                self._changed.wait()
            return self._claim_plan(self._plan)

    def _claim_plan(self, plan: pipe.Plan) -> tuple[list[int], list[Held]]:
        """Take what is left of a plan, with the lock held."""
        self._plan = None
        ids = [id for id in plan.ids if id in self._held]
        held = [self._held.pop(id) for id in ids]
        # Before the batch runs: if this process dies, the agent knows what had begun.
        if len(ids) == len(plan.ids):
            self._claims.note(plan.serial)
        else:
            self.send(pipe.Claim(plan.serial, ids))
        return ids, held

    def _answer(self, ids: list[int], outputs: list[object], seconds: float) -> None:
        if self._plan is None and not self._outbox:
            # There is nothing to run next, so a switch to the writer thread would only cost time.
            self.send(pipe.Done(ids, encode(outputs, self.codec), seconds))
        else:
            self._outbox.append((ids, outputs, seconds))
            self._to_write.release()

    def _end(self, error: BaseException) -> NoReturn:
        """End this process, which cannot run the model any more; its items run in another one."""
        until = time.monotonic() + LAST_ANSWERS
        while self._outbox and time.monotonic() < until:  # they are good, and their items done
            time.sleep(SWITCH)
        self.send(pipe.Failed(failure.trace(error)))
        sys.stderr.flush()
        self._leave(1)

    def _leave(self, code: int) -> NoReturn:
        """End the process; spans that wait to be sent get a moment."""
        if self.traces.seen:
            setup.flush(LAST_SPANS)
        os._exit(code)

    def _write_answers(self) -> None:
        with _Fatal():
            while True:
                self._to_write.acquire()
                ids, outputs, seconds = self._outbox[0]
                self.send(pipe.Done(ids, encode(outputs, self.codec), seconds))
                self._outbox.popleft()

    def _read(self) -> None:
        with _Fatal():
            stream = pipe.Stream()
            while data := self._channel.recv(READ):
                said = stream.feed(data)
                for message in pipe.joined(said) if self._in_batches else said:
                    self._take(message)
            self._leave(0)  # the agent is gone; predict may never return, so nobody is asked

    def _take(self, message: pipe.PipeMessage) -> None:
        match message:
            case pipe.Items():
                self._receive(message) if self._pool is None else self._pool.submit(message)
            case pipe.Traces():
                self.traces.come(message.rows)
            case pipe.Plan():
                with self._changed:
                    self._plan = message if message.ids else None
                    self._changed.notify()
            case pipe.Drop():
                if self._pool is not None:  # first, so that none is held after this
                    self._pool.drop(message.ids)
                with self._changed:
                    for id in message.ids:
                        self._held.pop(id, None)
                self.traces.drop(message.ids)

    def _take_prepared(self, items: Sequence[tuple[Task, Handed]]) -> None:
        """Items come back from the pool."""
        ready = {task: each for task, each in items if isinstance(each, Ready)}
        bad = {task.id: each for task, each in items if not isinstance(each, Ready)}
        with self._changed:
            self._held.update((task.id, Held(r.value, task.once)) for task, r in ready.items())
        if bad:
            self.traces.drop(bad)
            self.send(pipe.Done(list(bad), list(bad.values()), 0.0))
        if ready:
            costs = [float(each.cost) for each in ready.values()]
            self.send(pipe.Prepared([task.id for task in ready], costs))

    def _receive(self, message: pipe.Items) -> None:
        held: dict[int, Held] = {}
        bad_ids: list[int] = []
        errs: list[pipe.Outcome] = []
        costs: dict[int, float] = {}
        told, at = -math.inf, 0
        while at < len(message.ids):
            if self._looks and time.monotonic() - told > PROGRESS:
                # An item that kills or blocks this process here must be found.
                self.send(pipe.Preparing(message.ids[at:]))
                told = time.monotonic()
            end = at + self._preparation.at_once
            outcomes = self._preparation.run(message.payloads[at:end])
            for id, outcome in zip(message.ids[at:end], outcomes, strict=True):
                if isinstance(outcome, Ready):
                    held[id] = Held(outcome.value, message.once)
                    if self._has_cost:
                        costs[id] = outcome.cost
                    continue
                if failure.fatal(outcome.error):
                    self._end(outcome.error)
                bad_ids.append(id)
                errs.append(errors.to_wire(failure.raised(outcome.error)))
            at = end
        with self._changed:
            self._held.update(held)
        if bad_ids:
            self.traces.drop(bad_ids)
            self.send(pipe.Done(bad_ids, errs, 0.0))
        if self._looks:
            self.send(pipe.Prepared(list(costs), list(costs.values())))


class _Fatal:
    """A thread that dies must take the process with it: a child that is half dead would hang."""

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, BrokenPipeError | ConnectionResetError):
            os._exit(0)
        if error is not None:
            sys.excepthook(type(error), error, error.__traceback__)
            os._exit(1)


def run(
    channel: socket.socket, claims: Claims, load: Callable[[str], Loaded] | None = None
) -> NoReturn:
    """Load the model and serve it on ``channel`` until the agent is gone; never returns.

    Args:
        channel: this process's end of the pair that the agent made.
        claims: this process's end of what the agent shares with it.
        load: loads the model for a device; where None, the agent's description says what to load.
    """
    # A terminal's Ctrl-C reaches the whole process group; only the agent ends its child.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if load is None:  # a fork's parent is the fork server, which may end before its agent
        end_with_parent()
    cpus.stand_up()
    sys.setswitchinterval(SWITCH)
    child = Child(channel, claims)
    try:
        description = _read_description(channel)
        if description.private:  # as its owner says, never a peer
            child.codec = pickled.private(target.import_main)
        if load is None:  # a fork has the logging of the program that it was forked from
            logs.start_own(description.log_level, description.log_format)
        # Before the model's modules are imported: OpenMP and torch look at it then. Without it
        # each worker would start a thread for every core, and all would wait for each other.
        for variable in THREADS:
            os.environ.setdefault(variable, str(cpus.share(description.workers)))
        setup.start(description.tracing or os.environ.get(setup.VARIABLE, ""), "zstreamer-worker")
        child.traces.model = description.model
        if load is not None and description.device:  # others have it since they started
            os.environ["CUDA_VISIBLE_DEVICES"] = description.device
        child.prepare_apart(description)  # they load while the model does
        model = target.load(description) if load is None else load(description.device)
        child.wait_for_pool()
        model.warm_up()
    except BaseException as error:  # noqa: BLE001  # whatever the model's code raises, a person must see it
        final = isinstance(error, target.TargetError | ConfigError)
        child.send(pipe.Failed(target.explain(error), final))
        os._exit(1)
    try:
        child.serve(model)
    except (BrokenPipeError, ConnectionResetError):
        os._exit(0)
    except BaseException as error:  # noqa: BLE001  # os._exit would print nothing of it
        sys.excepthook(type(error), error, error.__traceback__)
        os._exit(1)


def _read_description(channel: socket.socket) -> target.Description:
    size = int.from_bytes(_read_exactly(channel, 8), "big")
    return target.Description.from_bytes(_read_exactly(channel, size))


def _read_exactly(channel: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = channel.recv(size - len(data))
        if not piece:
            os._exit(0)
        data += piece
    return data


if __name__ == "__main__":
    run(socket.socket(fileno=int(sys.argv[1])), Claims(int(sys.argv[2])))
