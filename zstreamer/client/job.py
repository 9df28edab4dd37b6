"""A job: any number of items that go out in chunks, some at once, and come back in order.

    fed ──> cut into chunks ──> Submit ──> ended ──> ready, in order
                  ^                          │
                  └──── again, after a wait ─┘   refused for now: the item has not run

Told the time and what happened, it returns what to submit; what iterates it is in `outputs` and
`aio_outputs`. No socket, clock, thread or iterable in here.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

from zstreamer import errors
from zstreamer.errors import ZStreamerError

FIRST_CHUNK, MOST = 32, 512
"""Items of a chunk where nothing is known of the model yet, and of the largest."""

CHUNK_SECONDS = 0.25
"""What a chunk should take: short, so that outputs flow, and long beside what a chunk costs."""

CHUNK_BYTES = 2 * 1024 * 1024
"""Encoded bytes of a chunk; an item that is larger is one alone."""

GLANCE = 0.25
"""Seconds over which the rate of a job is measured."""

QUIET = 5.0
"""Seconds without an answer after which the brokers are asked whether there is a worker."""

LEAST_WAIT, WAIT, MOST_WAIT = 0.05, 0.5, 5.0
"""Seconds until an item that was refused is submitted again: bounds for what the broker says, and
where it says nothing."""

TELL_AFTER, TELL_EVERY = 5.0, 60.0
"""Seconds that a job waits before it says so, and between two such lines."""

HOPELESS = (errors.Unauthorized, errors.VersionMismatch, errors.ModelNotFound, errors.Cancelled)
"""No other item would fare better."""

WAITED_OUT = (errors.Overloaded, errors.BrokerUnreachable, errors.NoWorker)
"""The item has not run, and will where someone waits."""


class Window(NamedTuple):
    """How much of a job may be under way: between its iterable and whoever takes the outputs."""

    items: int
    bytes: float = math.inf


class Encoded(NamedTuple):
    """An item as it is submitted, or why it cannot be."""

    payload: object
    size: int = 0
    error: ZStreamerError | None = None


class Chunk:
    """Items that come out together, and mostly are submitted together.

    Attributes:
        first: index of its first item in the whole.
        size: bytes that it holds: payloads before they are answered, then outputs.
        open: how many of its items have no outcome yet.
        waiting: positions in it of those that are to be submitted.
        failed: how many of its outputs are errors.
    """

    __slots__ = ("failed", "first", "open", "outputs", "payloads", "size", "waiting")

    def __init__(self, first: int, items: Sequence[Encoded]) -> None:
        self.first = first
        self.payloads = [item.payload for item in items]
        self.size = sum(item.size for item in items)
        self.outputs: list[object] = [item.error for item in items]
        self.waiting = [position for position, item in enumerate(items) if item.error is None]
        self.open = len(self.waiting)
        self.failed = len(items) - self.open
        for position, item in enumerate(items):
            if item.error is not None:
                item.error.index = first + position

    def __lt__(self, other: Chunk) -> bool:
        return self.first < other.first


class Submit(NamedTuple):
    """Submit these items of a chunk as one call, and tell `Job.ended` what has become of it."""

    chunk: Chunk
    positions: list[int]
    payloads: list[object]


class Probe(NamedTuple):
    """Ask whether a warm worker is there, and tell `Job.probed`."""


Action: TypeAlias = Submit | Probe


class Job:
    """What a job of many items submits next.

    Args:
        start: index of the first item that it is fed.
        chunk: items of a chunk; None to fit it to the model's speed and the items' size.
        patience: seconds without a sign of life from a worker after which it fails.

    Attributes:
        window: how much may be under way; set it before `poll`.
        fed: index of the next item that it is to be fed.
        index: index of the next output; all before it have been handed out.
        failed: how many of those were errors.
        exhausted: nothing more will be fed.
    """

    def __init__(self, start: int = 0, chunk: int | None = None, patience: float = 300.0) -> None:
        self.window = Window(1024)
        self.fed = self.index = start
        self.failed = 0
        self.exhausted = False
        self._fixed = chunk
        self._patience = patience
        self._waiting: list[Encoded] = []
        self._chunks: deque[Chunk] = deque()
        self._pending: list[Chunk] = []  # a heap of those with items to submit
        self._resume_at = 0.0
        self._limit = math.inf  # of the items that are submitted at once, after a refusal
        self._out_items = 0
        self._bytes = 0
        self._fatal: ZStreamerError | None = None
        self._largest = 0  # payload of the last feed
        self._output_size = 0.0  # of an item, on average
        self._rate = 0.0
        self._counted, self._counted_since = 0, 0.0
        self._met = False  # a broker has taken or refused something
        self._alive_at = math.inf
        self._probing = False
        self._probe_at = math.inf
        self._trouble: ZStreamerError | None = None
        self._tell_at = math.inf

    # What happens

    def wanted(self) -> int:
        """Return how many items it can take now."""
        limited = self._pending and self._limit < math.inf
        if self.exhausted or limited or self._fatal is not None:
            return 0
        held = self.fed - self.index
        if not held:
            return self._chunk_items()
        expected = self._output_size * self._out_items
        if self._bytes + expected >= self.window.bytes:
            return 0
        return max(0, min(self._chunk_items() - len(self._waiting), self.window.items - held))

    def feed(self, items: Sequence[Encoded]) -> None:
        """Take the next items."""
        sizes = [item.size for item in items]
        self.fed += len(items)
        self._largest = max(sizes, default=0)
        self._bytes += sum(sizes)
        self._waiting.extend(items)
        while len(self._waiting) >= self._chunk_items():
            self._cut(self._chunk_items())

    def ended(self, now: float, call: Submit, outcomes: Sequence[object], size: int) -> None:
        """A call has ended.

        Args:
            now: monotonic seconds.
            call: as `poll` returned it.
            outcomes: an output or an error for each of its items.
            size: bytes of the outputs.
        """
        chunk = call.chunk
        before = chunk.open
        if any(issubclass(kind, ZStreamerError) for kind in set(map(type, outcomes))):
            self._sort_out(now, call, outcomes)
        else:
            chunk.open -= len(outcomes)
            if len(outcomes) == len(chunk.outputs):
                chunk.outputs = list(outcomes)
            else:
                for position, outcome in zip(call.positions, outcomes, strict=True):
                    chunk.outputs[position] = outcome
        self._out_items -= len(outcomes)
        if chunk.open < before:
            self._progress(now, before - chunk.open, size)
        if not chunk.open:
            self._bytes += size - chunk.size
            chunk.size = size
            chunk.payloads = []

    def probed(self, now: float, error: ZStreamerError | None) -> None:
        """A warm worker is there, or why not."""
        self._probing = False
        if error is None:
            self._alive_at = now
            self._met = True
        else:
            self._refused(now, error)
        self._probe_at = now + (QUIET if error is None else WAIT)

    # What to do

    def poll(self, now: float) -> list[Action]:
        """Return what is to be submitted now."""
        actions: list[Action] = []
        if self._fatal is not None:
            return actions
        self._cut_rest()
        while self._pending and now >= self._resume_at and self._out_items < self._limit:
            actions.append(self._submit(now, self._pending[0]))
        if not (self._out_items or self._pending):
            self._alive_at = self._probe_at = math.inf
        elif now >= self._probe_at and not self._probing:
            self._probing = True
            actions.append(Probe())
        return actions

    def ready(self) -> Chunk | None:
        """Return the next chunk whose outputs are all there, in order; None where it is not yet.

        Raises:
            ZStreamerError: what ended the job; ``index`` is that of the next output.
        """
        if self._chunks and not self._chunks[0].open:
            chunk = self._chunks.popleft()
            self._bytes -= chunk.size
            self.index += len(chunk.outputs)
            self.failed += chunk.failed
            return chunk
        if self._fatal is not None:
            self._fatal.index = self.index
            raise self._fatal
        return None

    @property
    def done(self) -> bool:
        """Whether all outputs have been handed out."""
        return self.exhausted and not self._chunks and not self._waiting

    def wake_at(self) -> float:
        """Return the monotonic seconds at which `poll` must be called at the latest."""
        again = self._resume_at if self._pending and self._out_items < self._limit else math.inf
        return min(again, math.inf if self._probing else self._probe_at)

    def warning(self, now: float) -> str:
        """Return what a person should know of a job that waits; empty where there is nothing."""
        if self._trouble is None or self._fatal is not None or now < self._tell_at:
            return ""
        self._tell_at = now + TELL_EVERY
        kind = type(self._trouble).__name__
        return f"the job waits at item {self.index}: {kind}: {self._trouble}"

    # Chunks

    def _chunk_items(self) -> int:
        most = max(1, self.window.items // 4)
        if self._fixed is not None:
            return min(self._fixed, max(1, self.window.items // 2))
        items = min(MOST, most, max(FIRST_CHUNK, int(self._rate * CHUNK_SECONDS)))
        return max(1, min(items, CHUNK_BYTES // max(1, self._largest)))

    def _cut(self, count: int) -> None:
        chunk = Chunk(self.fed - len(self._waiting), self._waiting[:count])
        del self._waiting[:count]
        self._chunks.append(chunk)
        if chunk.open:
            heapq.heappush(self._pending, chunk)

    def _cut_rest(self) -> None:
        """Make a chunk of fewer items where nothing better is to come soon."""
        count = len(self._waiting)
        if count and not self._pending and (self.exhausted or self._out_items < count):
            self._cut(count)

    def _submit(self, now: float, chunk: Chunk) -> Submit:
        if self._alive_at == math.inf:
            self._alive_at, self._probe_at = now, now + QUIET
            self._counted, self._counted_since = 0, now
        positions = chunk.waiting
        room = self._limit - self._out_items
        if room < len(positions):
            positions = positions[: max(1, int(room))]
        chunk.waiting = chunk.waiting[len(positions) :]
        if not chunk.waiting:
            heapq.heappop(self._pending)
        self._out_items += len(positions)
        return Submit(chunk, positions, [chunk.payloads[position] for position in positions])

    # What has become of them

    def _sort_out(self, now: float, call: Submit, outcomes: Sequence[object]) -> None:
        """Put outcomes into their places, and let those wait that were refused for now."""
        chunk = call.chunk
        waited = bool(chunk.waiting)
        for position, outcome in zip(call.positions, outcomes, strict=True):
            if isinstance(outcome, HOPELESS + WAITED_OUT):
                self._refused(now, outcome)
                chunk.waiting.append(position)
                continue
            if isinstance(outcome, ZStreamerError):
                outcome.index = chunk.first + position
                chunk.failed += 1
            chunk.outputs[position] = outcome
            chunk.open -= 1
        if chunk.waiting and not waited:
            heapq.heappush(self._pending, chunk)

    def _refused(self, now: float, error: ZStreamerError) -> None:
        """Wait, or give up."""
        lost = isinstance(error, errors.BrokerUnreachable) and not self._met
        final = isinstance(error, errors.NoWorker) and error.final
        busy = isinstance(error, errors.Overloaded)
        tired = not busy and now >= self._alive_at + self._patience
        if isinstance(error, HOPELESS) or lost or final or tired:
            self._fatal = self._fatal or error
        if self._trouble is None:
            unreachable = isinstance(error, errors.BrokerUnreachable)
            self._tell_at = now if unreachable else now + TELL_AFTER
        self._trouble = error
        self._met = self._met or not lost
        wait = WAIT
        if isinstance(error, errors.Overloaded):
            wait = min(max(error.retry_after, LEAST_WAIT), MOST_WAIT)
            if now >= self._resume_at:  # the first of this pause
                self._limit = max(1, min(self._limit, self._out_items) // 2)
        self._resume_at = max(self._resume_at, now + wait)

    def _progress(self, now: float, items: int, size: int) -> None:
        """So many items have their outputs, or their own errors."""
        self._met = True
        self._trouble = None
        self._limit += max(1, items // 8)
        if self._limit >= self.window.items:
            self._limit = math.inf
        self._alive_at, self._probe_at = now, now + QUIET
        self._output_size += (size / items - self._output_size) / 4
        self._counted += items
        seconds = now - self._counted_since
        if seconds >= GLANCE:
            self._rate = self._counted / seconds
            self._counted, self._counted_since = 0, now
