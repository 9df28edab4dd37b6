"""The client as a state machine: told the time and what happened, it returns what to do.

    submit, watch, cancel, close        what the user asks for
    on_connected, on_message, on_lost   what a connection has done
    poll                                → Connect, Close and Send for the driver
    completed                           calls that have ended since it was last asked
    wake_at                             when poll must be called again although nothing happens

This file knows calls and brokers; what leaves next is in lanes.py, what becomes of an item that a
broker did not take in tour.py. Which error a call without an answer ends with is in unanswered.py.
No socket, clock, thread or random source in here. The states of an item are in docs/protocol.md.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Sequence
from typing import NoReturn

from zstreamer import errors
from zstreamer.client import unanswered
from zstreamer.client.calls import Call, Watch
from zstreamer.client.lanes import Lanes
from zstreamer.client.link import ClientLink
from zstreamer.client.tour import Tours
from zstreamer.config import is_looked_up
from zstreamer.errors import NoWorker, WorkerLost
from zstreamer.wire import membership, protocol
from zstreamer.wire.link import Close, LinkAction, LinkState, Peer
from zstreamer.wire.protocol import Frames

MOVE_AFTER = 0.5
"""Seconds for which a lost broker may come back before its calls move to another one."""


class ClientCore(Peer[ClientLink, NoReturn]):
    """All calls of one client, and its relations to its brokers.

    Args:
        addresses: one for each broker; any of them can take any call. Those that are looked up
            come with `on_addresses`.
        id: 63 random bits, new for each client and after each fork.
        connect_timeout: seconds after which a call that no broker could be sent to fails.
        now: monotonic seconds.
        jitter: returns numbers in [0, 1); spreads the attempts to connect of many clients.
        info: plain values that go into HELLO, for people who look at the broker.
    """

    def __init__(
        self,
        addresses: Sequence[str],
        id: int,
        connect_timeout: float,
        now: float,
        jitter: Callable[[], float],
        info: dict[str, object] | None = None,
    ) -> None:
        self._alone = len(addresses) == 1 and not is_looked_up(addresses[0])
        links = [self._link(now, each) for each in addresses if not is_looked_up(each)]
        super().__init__(protocol.Role.CLIENT, id, links, jitter, info)
        self._connect_timeout = connect_timeout
        self._next_id = 1
        self._calls: dict[int, Call] = {}
        self._watches: list[Watch] = []
        self._lanes = Lanes(self._fail_item)
        self._tours = Tours(self._fail_item, connect_timeout)
        self._deadlines: list[tuple[float, int, Call]] = []
        self._unready_since = now
        self._completed: list[Call | Watch] = []

    @property
    def open_calls(self) -> int:
        """Calls and watches that have not ended."""
        return len(self._calls) + len(self._watches)

    def window(self) -> tuple[int, int]:
        """Return the items and bytes that the brokers grant; zeros before one is reached."""
        ready = self._ready_links()
        return sum(link.window_items for link in ready), sum(link.window_bytes for link in ready)

    # What the user asks for

    def submit(self, call: Call) -> None:
        """Take a call; it comes out of `completed` exactly once."""
        count = len(call.payloads)
        if not count:
            call.done = True
            self._completed.append(call)
            return
        call.first = self._next_id
        self._next_id += count
        self._calls[call.first] = call
        heapq.heappush(self._deadlines, (call.deadline, call.first, call))
        self._lanes.push(call)

    def watch(self, watch: Watch) -> None:
        """Wait for a model to be ready."""
        self._watches.append(watch)
        for link in self.links:
            if link.state is LinkState.READY:
                link.tell(protocol.Notice(watch.model, []))

    def cancel(self, call: Call | Watch) -> None:
        """The caller no longer waits; the call comes out of `completed` as cancelled."""
        if isinstance(call, Watch):
            self._end_watch(call, errors.Cancelled("the wait was cancelled"))
        else:
            self._end(call, errors.Cancelled("the call was cancelled"))

    def close(self) -> None:
        """End all calls and connections."""
        for call in list(self._calls.values()):
            self._end(call, errors.Cancelled("the client was closed"))
        for watch in list(self._watches):
            self._end_watch(watch, errors.Cancelled("the client was closed"))
        for link in self.links:
            if link.state is LinkState.READY:
                self._send(link, link.flush(-math.inf))
            if link.state is not LinkState.DOWN:
                self._actions.append(Close(link))
            link.retry_at = math.inf
            link.state = LinkState.DOWN

    def on_lost(self, now: float, link: ClientLink) -> None:
        """The connection is gone, or could not be made."""
        was_ready = link.state is LinkState.READY
        super().on_lost(now, link)
        if was_ready:
            link.lost_at = now
            if not self._ready_links():
                self._unready_since = now

    def on_denied(self, now: float, link: ClientLink, why: errors.ZStreamerError) -> None:
        """The connection could not be made: the broker and this peer do not trust each other."""
        super().on_denied(now, link, why)
        self._end_refused(why)

    # What to do

    def poll(self, now: float) -> list[LinkAction[ClientLink]]:
        """Do what is due, feed the windows, and return what the driver must do now."""
        self._check_deadlines(now)
        for link in self._leave(now):
            self._move(link)
        for link in self.links:
            if now >= self._gives_up_at(link):
                self._move(link)
            self._check(now, link)
        self._check_unreachable(now)
        self._fill_windows(now)
        for link in self.links:
            if link.state is LinkState.READY:
                self._send(link, link.flush(now))
        return self._take_actions()

    def completed(self) -> list[Call | Watch]:
        """Return the calls that have ended since the last time."""
        completed, self._completed = self._completed, []
        return completed

    def wake_at(self) -> float:
        """Return the monotonic seconds at which `poll` must be called at the latest."""
        own = min(self._deadlines[0][0] if self._deadlines else math.inf, self._tours.wake_at)
        wake = min(own, super().wake_at())
        for link in self.links:
            wake = min(wake, self._gives_up_at(link))
        for watch in self._watches:
            wake = min(wake, watch.deadline)
        if not self._ready_links() and (self._calls or self._watches):
            wake = min(wake, self._unreachable_at())
        return wake

    # Links

    def _ready_links(self) -> list[ClientLink]:
        return [link for link in self.links if link.state is LinkState.READY]

    def _link(self, now: float, address: str) -> ClientLink:
        return ClientLink(address, now, self._alone)

    def _may_leave(self, link: ClientLink) -> bool:
        """Not while answers are to come: a broker that ends on request sends them first."""
        return link.state is not LinkState.READY or not link.sent

    def _wanted(self, link: ClientLink) -> bool:
        """While there is anything to do, or was."""
        return bool(self._calls or self._watches or link.sent or link.epoch)

    def _greeting(self, link: ClientLink) -> dict[str, object]:
        """The items that it waits for."""
        return {"open": list(link.sent)}

    def _connect(self, now: float, link: ClientLink) -> None:
        if not link.attempts:
            link.lost_at = now
        super()._connect(now, link)

    def _gives_up_at(self, link: ClientLink) -> float:
        """When the items sent on a link that was lost stop waiting for its return."""
        # Not while greeting: HELLO has claimed them, and WELCOME says what becomes of them.
        lost = link.state in (LinkState.DOWN, LinkState.CONNECTING)
        return link.lost_at + MOVE_AFTER if lost and link.sent and self._ready_links() else math.inf

    def _move(self, link: ClientLink) -> None:
        """Its broker does not come back: others take its items."""
        self._resend(
            link,
            list(link.sent),
            f"the broker at {link.address} was lost with this item, which may run only once",
        )

    def _resend(self, link: ClientLink, ids: list[int], words: str) -> None:
        """Make items wait again, or fail those that may not run twice."""
        for id in ids:
            call = link.sent.get(id)
            if call is None:  # its call has failed with an item before it
                continue
            index = id - call.first
            link.forget(id, len(call.payloads[index]))
            if call.once and words and id not in link.refused:
                self._fail_item(call, index, WorkerLost(words))
            else:
                self._tours.start_again(id)
                self._lanes.push_again(call, index)

    def _welcome(self, _now: float, link: ClientLink, welcome: protocol.Welcome) -> None:
        link.epoch = welcome.epoch
        link.window_items = max(1, welcome.window_items)
        link.window_bytes = welcome.window_bytes
        link.max_payload = welcome.max_payload
        link.traces = protocol.TRACES in welcome.extensions
        known = set(welcome.known)
        for id in known.difference(link.sent):
            link.cancel(id)  # given up since HELLO
        lost = [id for id in link.sent if id not in known]
        words = f"the broker at {link.address} was restarted; this item may have run already"
        self._resend(link, lost, "" if welcome.resumed else words)
        link.refused.clear()
        for model in {watch.model for watch in self._watches} | self._tours.models():
            link.tell(protocol.Notice(model, []))

    def _refused(self, now: float, link: ClientLink, error: errors.ZStreamerError) -> None:
        final = link.state is LinkState.GREETING or isinstance(error, errors.Unauthorized)
        self._drop(now, link, error if final else None)
        if final:
            self._end_refused(error)

    def _end_refused(self, error: errors.ZStreamerError) -> None:
        """No broker will speak with this client: end what waits, and what an ended key has sent."""
        if not all(link.refusal for link in self.links):
            return
        ended = isinstance(error, errors.Unauthorized)
        for call in [call for call in self._calls.values() if ended or not call.sent]:
            self._end(call, error)
        for watch in list(self._watches):
            self._end_watch(watch, error)

    def _notice(self, now: float, link: ClientLink, notice: protocol.Notice) -> None:
        if not notice.model:
            link.drain(now, bool(notice.error))
            return
        error = errors.from_wire(notice.error) if notice.error else None
        if error is None:
            link.notices.pop(notice.model, None)
        else:
            link.notices[notice.model] = error
        self._call_back(notice.model)
        if error is None:
            self._tours.ready(link, notice.model)
        if error is None or all(self._has_given_up(now, each, notice.model) for each in self.links):
            for watch in [w for w in self._watches if w.model == notice.model]:
                self._end_watch(watch, error)

    def _call_back(self, model: str) -> None:
        """What waits at brokers without a worker may go to one that may have one."""
        links = self._ready_links()
        if all(model in link.notices for link in links):
            return
        for link in links:
            if model in link.notices and self._tours.wait_at(link, model):
                link.call_back(model)

    def _has_given_up(self, now: float, link: ClientLink, model: str) -> bool:
        """Whether no worker of this broker will start for a model, or the broker is away."""
        if link.state is not LinkState.READY:
            return not self._tours.may_come(now, link)
        notice = link.notices.get(model)
        return isinstance(notice, NoWorker) and notice.final

    # Items

    def _message(
        self, now: float, link: ClientLink, message: protocol.Message, frames: Frames
    ) -> None:
        match message:
            case protocol.Answer():
                self._answer(now, link, message, sum(map(len, frames)))
            case protocol.Notice():
                self._notice(now, link, message)
            case _:
                pass  # PING, and whatever a later broker says that does not concern us

    def _fill_windows(self, now: float) -> None:
        if not self._calls:  # what still waits has ended too
            self._lanes.clear()
            self._tours.clear()
            return
        self._tours.feed(now, self.links)
        links = self._ready_links()
        taking = [link for link in links if not link.draining]
        if links := taking or ([] if membership.awaited(self.links) else links):
            self._lanes.feed(now, links)

    def _answer(self, now: float, link: ClientLink, answer: protocol.Answer, size: int) -> None:
        failed: dict[Call, None] = {}
        sent_at = 0.0
        sent = link.sent
        elsewhere = not self._alone
        for id, slot in zip(answer.ids, answer.slots, strict=True):
            outcome = link.receiver.take(slot) if type(slot) is int else slot
            call = sent.pop(id, None)
            if call is None:
                continue
            index = id - call.first
            link.sent_bytes -= len(call.payloads[index])
            if type(outcome) is list and elsewhere and errors.is_refusal(outcome):
                self._tours.refused(link, call, index, errors.from_wire(outcome))
                continue
            if outcome is None or type(outcome) is int:
                outcome = errors.to_wire(errors.BadRequest("an answer without payload"))
            call.put(index, outcome)
            if type(outcome) is not list:
                sent_at = call.sent_at
            elif not call.keep_errors:
                failed[call] = None
                continue
            if not call.left and call not in failed:
                self._end(call, None)
        for call in failed:
            self._end(call, call.first_error())
        if sent_at:
            self._lanes.overload.answered(len(answer.ids), now - sent_at, len(sent))
        link.read(now, size)

    def _fail_item(self, call: Call, index: int, error: errors.ZStreamerError) -> None:
        call.put(index, errors.to_wire(error))
        if not call.keep_errors:
            error.index = index
            self._end(call, error)
        elif not call.left:
            self._end(call, None)

    def _end(self, call: Call, error: errors.ZStreamerError | None) -> None:
        """End a call; what is still open of it is cancelled."""
        if call.done:
            return
        call.done = True
        call.error = error
        del self._calls[call.first]
        if call.left:
            for link in self.links:
                self._cancel_items(link, call)
        call.payloads = []
        self._tours.forget(call)
        if len(self._deadlines) > 64 + 2 * len(self._calls):
            self._deadlines = [entry for entry in self._deadlines if not entry[2].done]
            heapq.heapify(self._deadlines)
        self._completed.append(call)

    def _cancel_items(self, link: ClientLink, call: Call) -> None:
        for index, payload in enumerate(call.payloads):
            id, size = call.first + index, len(payload)
            if not link.forget(id, size) or link.state is not LinkState.READY:
                continue
            if not link.give_up(call, id, size):
                link.cancel(id)

    def _end_watch(self, watch: Watch, error: errors.ZStreamerError | None) -> None:
        if not watch.done:
            watch.done = True
            watch.error = error
            self._watches.remove(watch)
            self._completed.append(watch)

    # What only time changes

    def _check_deadlines(self, now: float) -> None:
        while self._deadlines and self._deadlines[0][0] <= now:
            call = heapq.heappop(self._deadlines)[2]
            if not call.done:
                self._end(call, self._overdue(now, call))
        for watch in [w for w in self._watches if w.deadline <= now]:
            self._end_watch(watch, self._overdue(now, watch))

    def _overdue(self, now: float, call: Call | Watch) -> errors.ZStreamerError:
        down = now - self._unready_since
        return unanswered.overdue(call, self.links, self._tours, self._place, down)

    def _unreachable_at(self) -> float:
        """When the first call that no broker could be sent to fails."""
        waiting: list[Call | Watch] = [c for c in self._calls.values() if not c.sent]
        waiting += self._watches
        first = min((call.submitted for call in waiting), default=math.inf)
        return max(first, self._unready_since) + self._connect_timeout

    def _check_unreachable(self, now: float) -> None:
        if self._ready_links() or not (self._calls or self._watches):
            return
        if now < self._unreachable_at():
            return
        timeout = self._connect_timeout
        waiting = [c for c in self._calls.values() if not c.sent and now >= c.submitted + timeout]
        for call in waiting:
            self._end(call, unanswered.unreachable(self.links, self._place, timeout))
        for watch in [w for w in self._watches if now >= w.submitted + timeout]:
            self._end_watch(watch, unanswered.unreachable(self.links, self._place, timeout))

    @property
    def _place(self) -> str:
        """Where its brokers are, for errors."""
        return self._whereabouts or ", ".join(link.address for link in self.links)
