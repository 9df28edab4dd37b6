"""The processes that prepare items for a model whose preparation is Python.

    reader thread    submit ─> waiting ─> groups, two at most at each process
    collectors       a thread for each process: outcomes ─> the child, and the next group

A process that dies loses nothing: the group that it had in hand is prepared again, each item alone,
and the others go to whoever is free. An item that ends a process twice when it is alone there gets
`WorkerLost`, and so does one of the group that may run only once.

If what became of a group cannot be unpickled here, each of its items is prepared again alone, and
the one that is to blame gets a `PredictError`.
"""

from __future__ import annotations

import os
import socket as sockets
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from zstreamer import errors, failure
from zstreamer.errors import PredictError, WorkerLost
from zstreamer.system.interpreter import environment, module_command
from zstreamer.worker import handover, pipe
from zstreamer.worker.preparer import Handed
from zstreamer.worker.target import Description, TargetError

AHEAD = 2
"""Groups that a process has at most: one in hand, one to go on with."""

MOST = 16
"""Items of a group."""

DEATHS = 2
"""How often an item may end a process in which it was alone."""

STARTS = 3
"""Starts in a row that may fail before the model's process ends."""

HUNG = 30.0
"""Seconds in which a group must be prepared, where no `predict_timeout` was given."""


class Task:
    """An item on its way through the pool."""

    __slots__ = ("alone", "deaths", "id", "once", "payload")

    def __init__(self, id: int, payload: bytes, once: bool) -> None:
        self.id, self.payload, self.once = id, payload, once
        self.deaths = 0
        self.alone = False


Deliver = Callable[[list[tuple[Task, Handed]]], None]


class Pool:
    """Processes that prepare.

    Args:
        description: of the model.
        count: how many processes.
        deliver: called with items and what they have become, by one thread at a time.
    """

    def __init__(self, description: Description, count: int, deliver: Deliver) -> None:
        self._deliver = deliver
        # A GPU is for the model alone.
        self._description = replace(description, device="")
        self._limit = description.predict_timeout or HUNG
        self._lock = threading.Lock()
        self._delivering = threading.Lock()  # taken before the other
        self._tasks: dict[int, Task] = {}
        self._waiting: deque[Task] = deque()
        self._apart: deque[list[Task]] = deque()
        self._members = [_Member(self._description, count) for _ in range(count)]

    def start(self) -> None:
        """Wait until every process can prepare; raises TargetError where one cannot."""
        for member in self._members:
            member.wait_ready()
        for member in self._members:
            threading.Thread(target=self._collect, args=(member,), daemon=True).start()
        threading.Thread(target=self._watch, name="prepare watch", daemon=True).start()

    def submit(self, items: pipe.Items) -> None:
        """Have items prepared; suspects as a group of their own."""
        tasks = [
            Task(id, payload, items.once)
            for id, payload in zip(items.ids, items.payloads, strict=True)
        ]
        with self._lock:
            self._tasks.update((task.id, task) for task in tasks)
            if items.alone:
                self._apart.append(tasks)
            else:
                self._waiting.extend(tasks)
            self._hand_out()

    def drop(self, ids: Sequence[int]) -> None:
        """These are not wanted any more: from now on none of them is delivered."""
        with self._delivering, self._lock:
            for id in ids:
                self._tasks.pop(id, None)

    def _hand_out(self) -> None:
        """Give groups to those who have the least in hand."""
        for ahead in range(AHEAD):
            for member in self._members:
                if member.ready and len(member.groups) == ahead and (group := self._next_group()):
                    member.hand(group)

    def _next_group(self) -> list[Task]:
        while self._apart:
            if group := [task for task in self._apart.popleft() if task.id in self._tasks]:
                return group
        # So that all get a share of what there is, and the last group ends with the others.
        size = min(MOST, -(-len(self._waiting) // (AHEAD * len(self._members))))
        group = []
        while self._waiting and len(group) < size:
            task = self._waiting.popleft()
            if task.id in self._tasks:
                group.append(task)
        return group

    def _collect(self, member: _Member) -> None:
        try:
            while True:
                try:
                    outcomes = member.receive()
                except handover.Unreadable as error:
                    self._unreadable(self._off(member), error.__cause__ or error)
                except EOFError:
                    self._died(member)
                except Exception as error:  # noqa: BLE001  # the rest of what it sends cannot be told apart
                    member.kill(f"sent what cannot be read: {failure.message(error)}")
                    self._died(member)
                else:
                    self._done(zip(self._off(member), outcomes, strict=True))
        except BaseException as error:  # noqa: BLE001  # half a pool would be a silent loss of speed
            sys.excepthook(type(error), error, error.__traceback__)
            sys.stderr.flush()
            os._exit(1)

    def _off(self, member: _Member) -> list[Task]:
        """Return the group that a process has answered; it goes on with the next."""
        with self._lock:
            group = member.groups.popleft()
            member.since = time.monotonic()
            self._hand_out()
        return group

    def _unreadable(self, group: list[Task], error: BaseException) -> None:
        """What became of a group cannot be unpickled: find the item that is to blame."""
        if len(group) == 1:
            words = f"what prepare returned cannot be unpickled: {failure.message(error)}"
            self._done([(group[0], errors.to_wire(PredictError(words, "BadOutput")))])
            return
        with self._lock:
            self._apart.extend([task] for task in group)
            self._hand_out()

    def _done(self, pairs: Iterable[tuple[Task, Handed]]) -> None:
        with self._delivering:
            with self._lock:
                wanted = [(task, each) for task, each in pairs if self._tasks.pop(task.id, None)]
            if wanted:
                self._deliver(wanted)

    def _died(self, member: _Member) -> None:
        lost: list[tuple[Task, Handed]] = []
        with self._lock:
            member.ready = False
            in_hand = member.groups.popleft() if member.groups else []
            for group in member.groups:
                self._waiting.extendleft(reversed(group))
            member.groups.clear()
            for task in in_hand:
                task.deaths += len(in_hand) == 1
                if task.once or task.deaths >= DEATHS:
                    words = f"its prepare process {member.how()}"
                    lost.append((task, errors.to_wire(WorkerLost(words))))
                else:
                    self._apart.append([task])
            self._hand_out()
        self._done(lost)
        member.start_again(self._description, len(self._members))
        with self._lock:
            self._hand_out()

    def _watch(self) -> None:
        """End processes that hang; what they had is then prepared elsewhere."""
        while True:
            time.sleep(min(1.0, self._limit / 4))
            now = time.monotonic()
            for member in self._members:  # without the lock, whose holder may write to that one
                if member.groups and now - member.since > self._limit:
                    member.kill(f"was hung: one prepare took {self._limit:g} s")


class _Member:
    """One process.

    Attributes:
        ready: whether it takes groups.
        groups: what it has; the first is in hand.
        since: monotonic seconds since which it has that one in hand.
    """

    def __init__(self, description: Description, count: int) -> None:
        self.ready = False
        self.groups: deque[list[Task]] = deque()
        self.since = 0.0
        self._killed = ""
        self._start(description, count)

    def _start(self, description: Description, count: int) -> None:
        self._channel, theirs = sockets.socketpair()
        share = str(max(1, (os.cpu_count() or 1) // (count * description.workers)))
        threads = dict.fromkeys(("OMP_NUM_THREADS", "RAYON_NUM_THREADS"), share)
        with theirs:
            self._process = subprocess.Popen(
                [*module_command("zstreamer.worker.preparer"), str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                env=environment({**threads, "CUDA_VISIBLE_DEVICES": ""}),
                stdin=subprocess.DEVNULL,
            )
        handover.send(self._channel, description)

    def wait_ready(self) -> None:
        """Wait until it can prepare; raises TargetError where it says that it cannot."""
        try:
            words = handover.receive(self._channel)
        except EOFError:
            raise TargetError(f"a prepare process {self.how()} at its start") from None
        if words:
            raise TargetError(words)
        self.ready = True

    def start_again(self, description: Description, count: int) -> None:
        """Start another process in its place; raises TargetError where that fails for good."""
        for start in range(STARTS):
            self._channel.close()
            self._killed = ""
            self._start(description, count)
            try:
                self.wait_ready()
            except TargetError:
                if start == STARTS - 1:
                    raise
            else:
                return

    def hand(self, group: list[Task]) -> None:
        """Give it a group; if it is gone the collector will find out."""
        if not self.groups:
            self.since = time.monotonic()
        self.groups.append(group)
        try:
            handover.send(self._channel, [handover.payload(task.payload) for task in group])
        except OSError:
            self.ready = False

    def receive(self) -> list[Handed]:
        """Return what became of its first group; raises EOFError where it has died."""
        outcomes: list[Handed] = handover.receive(self._channel)
        return outcomes

    def kill(self, why: str) -> None:
        """End it at once."""
        self._killed = why
        self._process.kill()

    def how(self) -> str:
        """Say how it ended."""
        code = self._process.wait()
        return self._killed or (f"was killed by signal {-code}" if code < 0 else f"ended ({code})")
