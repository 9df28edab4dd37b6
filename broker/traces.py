"""The contexts of traced items on their way through the broker, which makes no spans itself.

SUBMIT ── contexts by id ──> attach ──> lots ──> of ── contexts by ticket, time queued ──> WORK

The worker makes the span of the time in the queue, from what WORK says of it. Most items are not
traced, and their lots carry nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, TypeAlias

from zstreamer.wire.protocol import MAX_TRACES, Traced

if TYPE_CHECKING:
    from zstreamer.broker.clients import ClientRecord
    from zstreamer.broker.lots import Lot

Context: TypeAlias = tuple[str, str]
"""traceparent and tracestate."""

FEW = 4
"""Traced items of a lot that are looked up one by one, which costs less than a walk over all."""


def attach(client: ClientRecord, traces: Sequence[Traced]) -> None:
    """Give the lots of a client's open items the contexts that came with these."""
    for traceparent, tracestate, ids, _ in traces:
        context = traceparent, tracestate
        for id in ids:
            lot = client.items.get(id)
            if lot is not None:
                if lot.traces is None:
                    lot.traces = {}
                lot.traces[id] = context


def of(now: float, lots: Sequence[Lot]) -> list[Traced]:
    """Return what WORK says of the traces of these lots, at a worker already.

    now: monotonic seconds.
    """
    found: list[Traced] = []
    for lot in lots:
        if lot.traces is not None:  # seldom
            found += _rows(lot, lot.traces, max(0, int((now - lot.arrived) * 1e6)))
    return found[:MAX_TRACES] if found else found


def _rows(lot: Lot, traces: dict[int, Context], waited: int) -> list[Traced]:
    """Return a row for each context that items of this lot have."""
    if len(traces) == 1:  # nearly always, where few are sampled
        [(id, context)] = traces.items()
        if id not in lot.ids:
            return []
        return [Traced(*context, [lot.ticket + lot.ids.index(id)], waited)]
    rows: dict[Context, list[int]] = {}
    for ticket, context in _tickets(lot, traces):
        rows.setdefault(context, []).append(ticket)
    return [Traced(*context, tickets, waited) for context, tickets in rows.items()]


def _tickets(lot: Lot, traces: dict[int, Context]) -> Iterator[tuple[int, Context]]:
    if len(traces) > FEW:
        for ticket, id in enumerate(lot.ids, lot.ticket):
            context = traces.get(id)
            if context is not None:
                yield ticket, context
        return
    for id, context in traces.items():
        if id in lot.ids:
            yield lot.ticket + lot.ids.index(id), context


def among(traces: Sequence[Traced], tickets: Sequence[int]) -> list[Traced]:
    """Return what these say of some of their tickets."""
    here = set(tickets)
    cut = (each._replace(ids=[id for id in each.ids if id in here]) for each in traces)
    return [each for each in cut if each.ids]
