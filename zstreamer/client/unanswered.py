"""Why a call or a watch has ended without an answer: the error that its caller gets."""

from __future__ import annotations

from collections.abc import Sequence

from zstreamer.client.calls import Call, Watch
from zstreamer.client.link import ClientLink
from zstreamer.client.tour import Tours
from zstreamer.errors import BrokerUnreachable, DeadlineExceeded, NoWorker, ZStreamerError
from zstreamer.wire.link import LinkState


def overdue(
    call: Call | Watch, links: Sequence[ClientLink], tours: Tours, place: str, down: float
) -> ZStreamerError:
    """Return the error of a call whose time is over.

    Args:
        call: the call, or the watch.
        links: all of its client's.
        tours: what brokers have refused of it.
        place: where the brokers are, as users write it.
        down: seconds for which no broker has been connected, where none is.
    """
    ready = [link for link in links if link.state is LinkState.READY]
    seconds = f"{call.deadline - call.submitted:.3g} s"
    if not ready:
        words = f"no broker at {place} could be reached for {down:.1f} s"
        words += f": {trouble}" if (trouble := _trouble(links)) else ""
        if isinstance(call, Watch) or not call.sent:
            return refusal(links) or BrokerUnreachable(f"{words} (budget {seconds})")
        return DeadlineExceeded(f"no answer within {seconds}: {words}")
    for link in ready:
        there = len(ready) == 1 or isinstance(call, Watch) or link.holds(call)
        if there and call.model in link.notices:
            return NoWorker(f"{link.notices[call.model].message} (waited {seconds})")
    if isinstance(call, Watch):
        return NoWorker(f"model {call.model!r} was not ready within {seconds}")
    if not any(link.holds(call) for link in ready) and (error := tours.error_of(call, ready)):
        return error
    return DeadlineExceeded(f"no answer within {seconds} ({call.left} items open)")


def unreachable(links: Sequence[ClientLink], place: str, timeout: float) -> ZStreamerError:
    """Return the error where no broker was reached within ``timeout`` seconds."""
    trouble = _trouble(links) or "check the address and that `zstreamer broker` runs there"
    words = f"no broker answered at {place} within {timeout:.3g} s; {trouble}"
    return refusal(links) or BrokerUnreachable(words)


def refusal(links: Sequence[ClientLink]) -> ZStreamerError | None:
    """Return why a broker will not speak with this client, if one has said so."""
    return next((link.refusal for link in links if link.refusal), None)


def _trouble(links: Sequence[ClientLink]) -> str:
    return next((link.trouble for link in links if link.trouble), "")
