"""A client's relation to one broker, over one connection after another."""

from __future__ import annotations

from zstreamer.client.calls import Call
from zstreamer.errors import NoWorker, ZStreamerError, to_wire
from zstreamer.tracing.context import CallTrace
from zstreamer.wire import protocol
from zstreamer.wire.link import Link
from zstreamer.wire.protocol import Flag, Frames, Run, Slot, Traced

ACK_AFTER_BYTES = 1024 * 1024
ACK_AFTER_MESSAGES = 64
ACK_AFTER_SECONDS = 0.05
"""An ACK rides on the next SUBMIT; alone it leaves when this much has gone unacknowledged."""

_RUN = 96
"""Bytes that a run takes in a head besides its items and its model's name."""

_ROW = 16
"""Bytes that a trace takes besides its context."""


_ONCE, _READY = int(Flag.ONCE), int(Flag.READY)  # an enum's operators are slow


class ClientLink(Link[tuple[int, Call]]):
    """One broker as the client sees it.

    Args:
        address: where it is.
        now: monotonic seconds.
        alone: the client has no other; what it cannot run at once waits there.

    Attributes:
        sent: items sent on it that have no answer, by id; they outlive its connections.
        lost_at: monotonic seconds at which it was READY last, over all attempts since, or first
            tried, or began to drain.
        draining: it takes no new work: it has said so, or its address is gone.
        refused: items that were sent although it drained; they have not run there.
        notices: by model, why items wait there.
        traces: the broker takes the contexts of traces.
    """

    def __init__(self, address: str, now: float, alone: bool = True) -> None:
        super().__init__(address, now, 2**62)
        self._alone = alone
        self.lost_at = now
        self.epoch = 0
        self.sent: dict[int, Call] = {}
        self.sent_bytes = 0
        self.window_items = 0
        self.window_bytes = 0
        self.max_payload = 0
        self.refused: set[int] = set()

    def _fresh(self) -> None:
        super()._fresh()
        self._draining = False
        self.traces = False
        self._traced: dict[CallTrace, Traced] = {}
        self.notices: dict[str, ZStreamerError] = {}
        self._waits: set[int] = set()  # transfers whose items stay although no worker is ready
        self._runs: dict[tuple[str, int, int, int], Run] = {}
        self._runs_bytes = self._runs_items = 0
        self._full: list[tuple[list[Run], list[Traced]]] = []
        self._cancels: list[int] = []
        self._read = 0
        self._acked = 0
        self._unacked_bytes = 0
        self.ack_at = float("inf")

    @property
    def draining(self) -> bool:
        """Whether new work goes to others."""
        return self._draining or self.leaving

    def drain(self, now: float, drains: bool = True) -> None:
        """The broker has said that it takes no new work, or that it does again."""
        self._draining = drains
        self.lost_at = now

    @property
    def flush_at(self) -> float:
        """When an ACK must leave by itself."""
        return self.ack_at

    def room_for(self, size: int) -> bool:
        """Whether its window admits one more item of this many bytes."""
        return len(self.sent) < self.window_items and (
            self.sent_bytes + size <= self.window_bytes or not self.sent
        )

    def add(self, now: float, call: Call, index: int, wait: bool = False) -> None:
        """Send one item; with ``wait`` it stays there also while no worker is ready."""
        id = call.first + index
        payload = call.payloads[index]
        self.sent[id] = call
        self.sent_bytes += len(payload)
        if len(payload) > protocol.PART:
            self.sender.start(payload, (id, call))
            if wait:
                self._waits.add(id)
        else:
            self._put(now, call, id, payload, len(payload), wait)

    def _put(self, now: float, call: Call, id: int, slot: Slot, size: int, wait: bool) -> None:
        if self._draining:
            self.refused.add(id)
        flags = (_ONCE if call.once else 0) | (0 if wait or self._alone else _READY)
        key = (call.model, call.priority, flags, call.lane)
        run = self._runs.get(key)
        if run is None:
            run = Run(call.model, call.priority, flags, call.lane, [], [], [])
            self._runs[key] = run
            self._runs_bytes += _RUN + 4 * len(call.model)
        run.ids.append(id)
        run.budgets.append(max(1, int((call.deadline - now) * 1000)))
        run.slots.append(slot)
        if call.trace is not None and self.traces:
            self._trace(call.trace, id)
        self._runs_bytes += size
        self._runs_items += 1
        if self._runs_bytes > protocol.BUNDLE or self._runs_items == protocol.MAX_ROWS:
            self._full.append(self._take_runs())

    def _trace(self, trace: CallTrace, id: int) -> None:
        row = self._traced.get(trace)
        if row is None:
            row = self._traced[trace] = Traced(*trace.context, [])
            self._runs_bytes += _ROW + len(row.traceparent) + len(row.tracestate)
        row.ids.append(id)

    def _take_runs(self) -> tuple[list[Run], list[Traced]]:
        runs, traces = list(self._runs.values()), list(self._traced.values())
        self._runs, self._traced = {}, {}
        self._runs_bytes = self._runs_items = 0
        return runs, traces

    def forget(self, id: int, size: int) -> Call | None:
        """Take an item off the window; None if it is not on it."""
        call = self.sent.pop(id, None)
        if call is not None:
            self.sent_bytes -= size
            self._waits.discard(id)
        return call

    def holds(self, call: Call) -> bool:
        """Whether an item of this call is open there."""
        return any(id in self.sent for id in range(call.first, call.first + len(call.outcomes)))

    def cancel(self, id: int) -> None:
        """Tell the broker that an item is no longer wanted."""
        self._cancels.append(id)

    def give_up(self, call: Call, id: int, size: int) -> bool:
        """Stop sending an item; False where all of it has left."""
        return size > protocol.PART and self.sender.give_up((id, call))

    def call_back(self, model: str) -> None:
        """Ask for the items of a model that wait for a worker there."""
        elsewhere = NoWorker("another broker may have a worker")
        self.tell(protocol.Notice(model, to_wire(elsewhere)))
        # Those whose parts are still leaving come after this NOTICE, and are not to wait either.
        self._waits = {i for i in self._waits if i in self.sent and self.sent[i].model != model}

    def read(self, now: float, size: int) -> None:
        """One ANSWER of this many bytes was read."""
        self._read += 1
        self._unacked_bytes += size
        many = self._read - self._acked >= ACK_AFTER_MESSAGES
        if many or self._unacked_bytes >= ACK_AFTER_BYTES:
            self.ack_at = now
        else:
            self.ack_at = min(self.ack_at, now + ACK_AFTER_SECONDS)

    def flush(self, now: float) -> list[Frames]:
        """Return the messages that are to leave now, in order."""
        messages, done = self._flush()
        for transfer, (id, call) in done:
            if id in self.sent:
                self._put(now, call, id, transfer, 0, id in self._waits)
                self._waits.discard(id)
        bundles, self._full = self._full, []
        if self._runs:
            bundles.append(self._take_runs())
        messages.extend(self._submit(runs, traces) for runs, traces in bundles)
        if self._cancels:
            ids, self._cancels = self._cancels, []
            messages.extend(protocol.cancels(ids))
        if self.ack_at <= now:
            self._acknowledged()
            messages.append(protocol.plain(protocol.Ack(self._read)))
        return messages

    def _submit(self, runs: list[Run], traces: list[Traced]) -> Frames:
        frames: Frames = []
        for position, run in enumerate(runs):
            slots, more = protocol.lay_out(run.slots)
            if more:
                runs[position] = run._replace(slots=slots)
                frames.extend(more)
        self._acknowledged()
        return protocol.submit(self._read, runs, frames, traces)

    def _acknowledged(self) -> None:
        self._acked = self._read
        self._unacked_bytes = 0
        self.ack_at = float("inf")
