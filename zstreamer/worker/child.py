"""The process that holds the model, and nothing else.

    reader thread   socket ─> decode ─> prepare ─> held items, and the plan for the next batch
    main thread     boot; then: claim the plan ─> predict ─> hand the outputs over
    writer thread   encode ─> socket

So the next batch is prepared while this one runs, and its answers are encoded while the next
one runs. When the agent is gone the socket ends, and so does this process, at once.
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
from contextlib import nullcontext
from typing import Any, NamedTuple, NoReturn

from zstreamer import errors, failure, pickled
from zstreamer.codec import PLAIN
from zstreamer.model import Loaded, PrepareFunction
from zstreamer.setting import ConfigError
from zstreamer.signature import example_text
from zstreamer.system import cpus, logs
from zstreamer.tracing import batch, setup
from zstreamer.tracing.context import Waiting, of_headers
from zstreamer.worker import pipe, target
from zstreamer.worker.claims import Claims
from zstreamer.worker.runner import ModelBroken, Runner, encode

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


class Held(NamedTuple):
    """An item, decoded and prepared, that waits to be claimed."""

    value: object
    once: bool
    trace: Waiting | None = None


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
        self._prepare: PrepareFunction
        self._looks = False
        self.codec = PLAIN
        self._traced = False
        self._cost: Callable[[object], float] | None = None
        self._outbox: deque[tuple[list[int], list[object], float]] = deque()
        self._to_write = threading.Semaphore(0)

    def serve(self, model: Loaded, name: str = "") -> NoReturn:
        """Run batches of the model that clients call by this name, until the process ends."""
        self._prepare, self._cost = model.prepare, model.cost
        self._looks = model.looks_on_arrival
        runner = Runner(model.predict, model.warm_up if model.example else None)
        threading.Thread(target=self._read, name="reader", daemon=True).start()
        threading.Thread(target=self._write_answers, name="writer", daemon=True).start()
        example = example_text(model.example)
        self.send(pipe.Booted(model.cost is not None, model.inputs, model.outputs, example))
        while True:
            ids, held = self._claim()
            spans = batch.begin(name, [h.trace for h in held]) if self._traced else None
            start = time.perf_counter()
            try:
                with spans or nullcontext():
                    outputs = runner.run([h.value for h in held], [h.once for h in held])
            except ModelBroken as error:
                self._end(error.__cause__ or error)
            seconds = time.perf_counter() - start
            log.debug("batch size=%d seconds=%.4f", len(ids), seconds)
            self._answer(ids, outputs, seconds if runner.clean else 0.0)
            if spans is not None:
                spans.end(outputs)

    def send(self, message: pipe.PipeMessage) -> None:
        """Write one message; blocks while the agent does not read."""
        data = pipe.pack(message)
        with self._writing:
            self._channel.sendall(data)

    def _claim(self) -> tuple[list[int], list[Held]]:
        with self._changed:
            while self._plan is None:
                self._changed.wait()
            plan, self._plan = self._plan, None
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
        if self._traced:
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
                for message in stream.feed(data):
                    self._take(message)
            self._leave(0)  # the agent is gone; predict may never return, so nobody is asked

    def _take(self, message: pipe.PipeMessage) -> None:
        match message:
            case pipe.Items():
                self._receive(message)
            case pipe.Plan():
                with self._changed:
                    self._plan = message if message.ids else None
                    self._changed.notify()
            case pipe.Drop():
                with self._changed:
                    for id in message.ids:
                        self._held.pop(id, None)

    def _receive(self, message: pipe.Items) -> None:
        held: dict[int, Held] = {}
        bad_ids: list[int] = []
        outcomes: list[pipe.Outcome] = []
        costs: dict[int, float] = {}
        traces = self._waiting(message.traces) if message.traces else {}
        told = -math.inf
        for position, (id, payload) in enumerate(zip(message.ids, message.payloads, strict=True)):
            if self._looks and time.monotonic() - told > PROGRESS:
                # An item that kills or blocks this process here must be found.
                self.send(pipe.Preparing(message.ids[position:]))
                told = time.monotonic()
            try:
                value = self._prepare(self.codec.decode(payload))
                if self._cost is not None:
                    costs[id] = _finite(self._cost(value))
            except BaseException as error:  # noqa: BLE001  # the user's code may raise anything
                if failure.fatal(error):
                    self._end(error)
                bad_ids.append(id)
                outcomes.append(errors.to_wire(failure.raised(error)))
            else:
                held[id] = Held(value, message.once, traces.get(id))
        with self._changed:
            self._held.update(held)
        if bad_ids:
            self.send(pipe.Done(bad_ids, outcomes, 0.0))
        if self._looks:
            self.send(pipe.Prepared(list(costs), list(costs.values())))

    def _waiting(self, traces: Sequence[Sequence[Any]]) -> dict[int, Waiting]:
        """Return what is known of the traces of items that have just come, by their ids."""
        self._traced = True
        now = time.time_ns()
        found: dict[int, Waiting] = {}
        for parent, state, ids, waited in traces:
            context = of_headers(parent, state)
            if context is not None:
                found.update(dict.fromkeys(ids, Waiting(context, waited / 1e6, now)))
        return found


def _finite(cost: float) -> float:
    cost = float(cost)
    if not math.isfinite(cost):
        raise ValueError(f"cost() returned {cost}; it must return a finite number")
    return cost


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
        os.environ.setdefault("OMP_NUM_THREADS", str(cpus.share(description.workers)))
        setup.start(description.tracing or os.environ.get(setup.VARIABLE, ""), "zstreamer-worker")
        if load is not None and description.device:  # others have it since they started
            os.environ["CUDA_VISIBLE_DEVICES"] = description.device
        model = target.load(description) if load is None else load(description.device)
        model.warm_up()
    except BaseException as error:  # noqa: BLE001  # whatever the model's code raises, a person must see it
        final = isinstance(error, target.TargetError | ConfigError)
        child.send(pipe.Failed(target.explain(error), final))
        os._exit(1)
    try:
        child.serve(model, description.model)
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
