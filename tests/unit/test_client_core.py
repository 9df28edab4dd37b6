"""The client's state machine, driven by hand: the test is its driver, its broker and its clock."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from tests.helpers.wire import received
from zstreamer import codec, errors
from zstreamer.client.calls import Call, Watch
from zstreamer.client.core import MOVE_AFTER, ClientCore
from zstreamer.client.link import ClientLink
from zstreamer.errors import (
    BrokerUnreachable,
    Cancelled,
    DeadlineExceeded,
    NoWorker,
    PredictError,
    TooLarge,
    VersionMismatch,
    WorkerLost,
)
from zstreamer.wire import protocol
from zstreamer.wire.link import GREETING_TIMEOUT, Close, Connect, LinkState, Send

MiB = 1024 * 1024
WELCOME = protocol.Welcome(1, False, [], 4096, 64 * MiB, 64 * MiB)


class Desk:
    """A client core; the test sits where driver and broker would.

    Attributes:
        said: what the client has sent to each broker, oldest first; emptied by the tests.
        opened, closed: the links whose connection it wanted opened or closed, in order.
    """

    def __init__(self, *addresses: str, connect_timeout: float = 5.0) -> None:
        self.now = 100.0
        names = addresses or ("tcp://broker",)
        self.core = ClientCore(names, 7, connect_timeout, self.now, lambda: 1.0)
        self.links = self.core.links
        self.said: dict[ClientLink, list[Any]] = {link: [] for link in self.links}
        self.opened: list[ClientLink] = []
        self.closed: list[ClientLink] = []
        self.ended: list[Call | Watch] = []

    @property
    def link(self) -> ClientLink:
        return self.links[0]

    def turn(self, seconds: float = 0.0) -> None:
        """Let time pass, then do what a driver does."""
        self.now += seconds
        while actions := self.core.poll(self.now):
            for action in actions:
                match action:
                    case Send(link, frames):
                        self.said[link].append(protocol.decode(received(frames)))
                    case Connect(link):
                        self.opened.append(link)
                    case Close(link):
                        self.closed.append(link)
        self.ended += self.core.completed()

    def call(self, *items: object, timeout: float = 20.0, **options: Any) -> Call:
        payloads = codec.encode_all(items)
        call = Call(payloads, "default", self.now + timeout, self.now, **options)
        self.core.submit(call)
        return call

    def raw_call(self, *payloads: bytes, **options: Any) -> Call:
        call = Call(list(payloads), "default", self.now + 20.0, self.now, **options)
        self.core.submit(call)
        return call

    def connect(self, link: ClientLink | None = None, welcome: protocol.Welcome = WELCOME) -> None:
        """Wait for the link to want a connection, and let it through to WELCOME."""
        link = link or self.link
        while link.state is not LinkState.CONNECTING:
            self.turn(0.01)
        self.core.on_connected(self.now, link)
        self.turn()
        self.hear(welcome, link)
        self.turn()

    def hear(
        self, message: protocol.Message | protocol.Frames, link: ClientLink | None = None
    ) -> None:
        frames = message if isinstance(message, list) else protocol.plain(message)
        self.core.on_message(self.now, link or self.link, frames)

    def answer(
        self, *ids: int, outcome: protocol.Slot = None, link: ClientLink | None = None
    ) -> None:
        slots: list[protocol.Slot] = [
            codec.encode(f"out {id}") if outcome is None else outcome for id in ids
        ]
        self.hear(protocol.answer(list(ids), slots, []), link)

    def lose(self, link: ClientLink | None = None) -> None:
        self.core.on_lost(self.now, link or self.link)

    def take(self, kind: type[protocol.Message], link: ClientLink | None = None) -> list[Any]:
        """Return the messages of a kind, and forget all that was said."""
        said, self.said[link or self.link] = self.said[link or self.link], []
        return [message for message in said if isinstance(message, kind)]

    def submitted(self, link: ClientLink | None = None) -> list[int]:
        runs = [run for submit in self.take(protocol.Submit, link) for run in submit.runs]
        return [id for run in runs for id in run.ids]


@pytest.fixture
def desk():
    """A client that is connected, having asked for nothing yet but the connection."""
    desk = Desk()
    first = desk.call("first")
    desk.connect()
    desk.answer(first.first)
    desk.turn(1.0)
    desk.said[desk.link].clear()
    desk.ended.clear()
    return desk


def error_of(call):
    with pytest.raises(errors.ZStreamerError) as caught:
        call.results()
    return caught.value


# Connecting


def test_nobody_is_called_before_there_is_something_to_ask():
    desk = Desk()
    desk.turn(100.0)
    assert desk.opened == []
    assert desk.core.wake_at() == math.inf


def test_hello_comes_first_and_nothing_follows_before_welcome():
    desk = Desk()
    desk.call("a")
    desk.turn()
    desk.core.on_connected(desk.now, desk.link)
    desk.turn(1.0)
    assert desk.said[desk.link] == [protocol.Hello(1, 7, {"extensions": ["traces"], "open": []})]
    desk.hear(WELCOME)
    desk.turn()
    assert desk.submitted() == [1]


def test_attempts_to_connect_come_apart_up_to_half_a_second():
    desk = Desk(connect_timeout=60)
    desk.call("a", timeout=60)
    waits = []
    for _ in range(6):
        desk.turn()
        assert desk.link.state is LinkState.CONNECTING
        desk.lose()
        desk.turn()
        waits.append(desk.core.wake_at() - desk.now)
        desk.turn(waits[-1])
    assert waits == pytest.approx([0.05, 0.1, 0.2, 0.4, 0.5, 0.5])


def test_a_broker_that_does_not_greet_is_tried_anew():
    desk = Desk(connect_timeout=60)
    desk.call("a", timeout=60)
    desk.turn()
    desk.core.on_connected(desk.now, desk.link)
    desk.turn()
    assert desk.core.wake_at() == desk.now + GREETING_TIMEOUT
    desk.turn(GREETING_TIMEOUT)
    assert desk.closed == [desk.link]
    assert desk.link.state is LinkState.DOWN


def test_no_broker_is_an_error_that_names_the_address_when_the_time_to_connect_is_up():
    desk = Desk("tcp://nowhere:1", connect_timeout=2.0)
    call = desk.call("a")
    desk.turn()
    for _ in range(100):
        if desk.link.state is not LinkState.DOWN:
            desk.lose()
        wake = desk.core.wake_at()
        assert wake > desk.now
        if call.done:
            break
        desk.turn(wake - desk.now)
    assert desk.now == pytest.approx(102.0)
    assert isinstance(error_of(call), BrokerUnreachable)
    assert "tcp://nowhere:1" in str(error_of(call))


def test_a_budget_shorter_than_the_time_to_connect_ends_on_time():
    desk = Desk()
    call = desk.call("a", timeout=0.25)
    desk.turn()
    assert desk.core.wake_at() == desk.now + 0.25
    desk.turn(0.25)
    assert isinstance(error_of(call), BrokerUnreachable)


def test_a_refusal_is_told_at_once_where_no_other_broker_may_take_the_call():
    desk = Desk("tcp://a", "tcp://b")
    call = desk.call("x")
    desk.turn()
    for link in desk.links:
        assert not call.done
        desk.core.on_connected(desk.now, link)
        desk.hear(protocol.Refuse(errors.to_wire(VersionMismatch("other version"))), link)
        desk.turn()
    assert isinstance(error_of(call), VersionMismatch)


# Windows and turns


@given(
    window=some.integers(1, 5),
    sizes=some.lists(some.integers(1, 9), min_size=1, max_size=6),
    picks=some.lists(some.integers(0, 99), max_size=60),
)
def test_no_more_is_open_than_the_window_and_every_call_ends_in_order(window, sizes, picks):
    desk = Desk()
    calls = [desk.call(*range(size)) for size in sizes]
    desk.connect(welcome=WELCOME._replace(window_items=window))
    open_: list[int] = []
    for pick in [*picks, *range(1000)]:
        desk.turn()
        open_ += desk.submitted()
        assert len(open_) <= window
        if not open_:
            break
        desk.answer(open_.pop(pick % len(open_)))
    desk.turn()
    assert len(desk.ended) == len(calls)
    for call in calls:
        assert call.results() == [f"out {call.first + i}" for i in range(len(call.outcomes))]


def test_no_more_bytes_are_open_than_the_window_but_one_item_always_may_be():
    desk = Desk()
    call = desk.raw_call(*[bytes(400)] * 3, bytes(5000), bytes(400))
    desk.connect(welcome=WELCOME._replace(window_bytes=1000))
    assert desk.submitted() == [1, 2]
    desk.answer(1)
    desk.turn()
    assert desk.submitted() == [3]
    desk.answer(2, 3)
    desk.turn()
    assert desk.submitted() == [4]
    desk.answer(4)
    desk.turn()
    assert desk.submitted() == [5]
    desk.answer(5)
    desk.turn()
    assert call.done


def test_a_small_call_does_not_wait_for_a_large_one_though_the_window_opens_item_by_item():
    desk = Desk()
    desk.call(*range(1000))
    desk.connect(welcome=WELCOME._replace(window_items=10))
    small = desk.call("small")
    open_ = desk.submitted()
    for _ in range(3):
        desk.answer(open_.pop(0))
        desk.turn()
        open_ += desk.submitted()
    assert small.first in open_


def test_calls_of_many_items_share_the_window(desk):
    calls = [desk.call(*range(200)) for _ in range(2)]
    desk.link.window_items = 128
    desk.turn()
    assert [call.sent for call in calls] == [64, 64]


def test_large_and_small_calls_have_lanes_of_their_own(desk):
    desk.call("a")
    desk.call(*range(100))
    desk.call("b")
    desk.turn()
    (submit,) = desk.take(protocol.Submit)
    assert {run.lane: len(run.ids) for run in submit.runs} == {0: 2, 3: 100}


def test_an_empty_call_ends_at_once_without_a_broker():
    desk = Desk()
    call = desk.call()
    desk.turn()
    assert desk.ended == [call]
    assert call.results() == []


def test_an_item_beyond_the_brokers_limit_is_told_before_it_is_sent():
    desk = Desk()
    call = desk.call("small", "x" * 100)
    desk.connect(welcome=WELCOME._replace(max_payload=50))
    error = error_of(call)
    assert isinstance(error, TooLarge)
    assert error.index == 1
    assert desk.submitted() == [1]


# Answers


def test_outputs_stand_in_the_order_of_the_items_whatever_the_order_of_the_answers(desk):
    call = desk.call("a", "b", "c")
    desk.turn()
    desk.answer(call.first + 2)
    desk.answer(call.first + 1, call.first)
    desk.turn()
    assert desk.ended == [call]
    assert call.results() == [f"out {call.first + i}" for i in range(3)]


def test_the_error_of_the_lowest_index_is_raised_and_the_others_are_cancelled(desk):
    call = desk.call(*"abcd")
    desk.turn()
    slots: list[protocol.Slot] = [
        errors.to_wire(PredictError(name, "ValueError")) for name in ("third", "second")
    ]
    desk.hear(protocol.answer([call.first + 2, call.first + 1], slots, []))
    desk.turn()
    error = error_of(call)
    assert (error.message, error.index) == ("second", 1)
    assert desk.take(protocol.Cancel) == [protocol.Cancel([call.first, call.first + 3])]


def test_a_call_fails_also_where_its_last_output_comes_with_the_error(desk):
    call = desk.call("a", "b")
    desk.turn()
    wire = errors.to_wire(PredictError("bad"))
    desk.hear(protocol.answer([call.first, call.first + 1], [wire, codec.encode(1)], []))
    desk.turn()
    assert isinstance(call.error, PredictError)
    assert call.error.index == 0


def test_errors_stand_in_their_places_where_the_caller_wants_them(desk):
    call = desk.call("a", "b", keep_errors=True)
    desk.turn()
    desk.answer(call.first, outcome=errors.to_wire(PredictError("bad")))
    desk.turn()
    assert not call.done
    desk.answer(call.first + 1)
    desk.turn()
    error, output = call.results()
    assert isinstance(error, PredictError)
    assert (error.index, output) == (0, f"out {call.first + 1}")


def test_an_answer_that_nobody_waits_for_is_ignored(desk):
    call = desk.call("a")
    desk.turn()
    desk.answer(9999)
    desk.turn()
    assert not call.done


def test_an_output_that_is_no_payload_is_that_items_error(desk):
    call = desk.call("a")
    desk.turn()
    desk.answer(call.first, outcome=b"\xc1")
    desk.turn()
    assert isinstance(error_of(call), PredictError)


def test_an_answer_whose_payload_never_came_is_that_items_error(desk):
    call = desk.call("a")
    desk.turn()
    desk.answer(call.first, outcome=99)
    desk.turn()
    assert isinstance(error_of(call), errors.BadRequest)


def test_answers_are_acknowledged_after_a_moment(desk):
    call = desk.call("a", "b")
    desk.turn()
    desk.take(protocol.Submit)
    desk.answer(call.first)
    desk.turn()
    assert desk.take(protocol.Ack) == []
    assert desk.core.wake_at() == pytest.approx(desk.now + 0.05)
    desk.turn(0.06)
    assert desk.take(protocol.Ack) == [protocol.Ack(2)]  # one of the fixture's


def test_an_acknowledgement_rides_on_the_next_items(desk):
    call = desk.call("a")
    desk.turn()
    desk.answer(call.first)
    desk.turn()
    desk.call("b")
    desk.turn()
    assert desk.take(protocol.Submit)[-1].ack == 2
    desk.turn(1.0)
    assert desk.take(protocol.Ack) == []


def test_a_mebibyte_of_answers_is_acknowledged_without_waiting(desk):
    call = desk.call("x", "y", "z")
    desk.turn()
    desk.take(protocol.Submit)
    desk.hear(protocol.answer([call.first], [None], [bytes(MiB // 2)]))
    desk.turn()
    assert desk.take(protocol.Ack) == []
    desk.hear(protocol.answer([call.first + 1], [None], [bytes(MiB // 2)]))
    desk.turn()
    assert len(desk.take(protocol.Ack)) == 1


def test_many_answers_are_acknowledged_without_waiting(desk):
    call = desk.call(*range(64))
    desk.turn()
    for i in range(63):
        desk.answer(call.first + i)
    desk.turn()
    assert desk.take(protocol.Ack) == []
    desk.answer(call.first + 63)
    desk.turn()
    assert desk.take(protocol.Ack) == [protocol.Ack(65)]


# Giving up


def test_a_call_that_waits_for_the_window_is_given_up_without_a_word(desk):
    desk.link.window_items = 1
    desk.call("holds the window")
    desk.turn()
    call = desk.call("waits")
    desk.turn()
    desk.core.cancel(call)
    desk.turn()
    assert isinstance(error_of(call), Cancelled)
    assert desk.take(protocol.Cancel) == []


def test_a_call_that_was_sent_is_given_up_and_the_broker_told(desk):
    call = desk.call("a", "b")
    desk.turn()
    desk.core.cancel(call)
    desk.turn()
    assert desk.take(protocol.Cancel) == [protocol.Cancel([call.first, call.first + 1])]
    assert desk.link.sent == {}
    assert desk.link.sent_bytes == 0


def test_a_call_that_has_ended_cannot_be_given_up(desk):
    call = desk.call("a")
    desk.turn()
    desk.answer(call.first)
    desk.turn()
    desk.core.cancel(call)
    desk.turn()
    assert call.results() == [f"out {call.first}"]
    assert desk.ended == [call]


def test_a_payload_given_up_on_its_way_ends_its_transfer_and_needs_no_cancel(desk):
    call = desk.raw_call(bytes(8 * MiB))
    desk.turn()
    assert len(desk.take(protocol.Part)) == 4
    desk.core.cancel(call)
    desk.turn()
    said = desk.said[desk.link]
    assert [(type(m), m.transfer, len(m.data)) for m in said] == [(protocol.Part, 1, 0)]
    for _ in range(5):
        desk.hear(protocol.PartOk(1))
    desk.turn()
    assert desk.submitted() == []


def test_an_item_given_up_while_greeting_is_cancelled_after_welcome(desk):
    call = desk.call("a")
    desk.turn()
    desk.lose()
    desk.turn(0.1)
    desk.core.on_connected(desk.now, desk.link)
    desk.turn()
    desk.core.cancel(call)
    desk.turn()
    assert desk.take(protocol.Cancel) == []
    desk.hear(WELCOME._replace(resumed=True, known=[call.first]))
    desk.turn()
    assert desk.take(protocol.Cancel) == [protocol.Cancel([call.first])]


def test_closing_ends_everything_and_tells_the_broker(desk):
    call, watch = desk.call("a"), Watch("default", desk.now + 5, desk.now)
    desk.core.watch(watch)
    desk.turn()
    desk.core.close()
    desk.turn()
    assert isinstance(error_of(call), Cancelled)
    assert isinstance(watch.error, Cancelled)
    assert desk.take(protocol.Cancel) == [protocol.Cancel([call.first])]
    assert desk.closed == [desk.link]
    desk.turn(100.0)
    assert desk.opened == [desk.link]


# Budgets


def test_a_budget_that_is_sent_is_at_least_a_millisecond(desk):
    desk.call("x", timeout=0.0004)
    desk.turn()
    (submit,) = desk.take(protocol.Submit)
    assert submit.runs[0].budgets == [1]


def test_the_budget_that_is_left_travels_with_the_item(desk):
    desk.link.window_items = 1
    first = desk.call("a", timeout=10.0)
    desk.turn()
    desk.call("b", timeout=3.0)
    desk.turn(1.0)
    desk.answer(first.first)
    desk.turn()
    runs = [run for submit in desk.take(protocol.Submit) for run in submit.runs]
    assert [run.budgets for run in runs] == [[10_000], [2000]]


def test_a_budget_ends_on_time_and_the_item_is_cancelled(desk):
    call = desk.call("a", timeout=0.5)
    desk.turn()
    assert desk.core.wake_at() == desk.now + 0.5
    desk.turn(0.499)
    assert not call.done
    desk.turn(0.001)
    assert isinstance(error_of(call), DeadlineExceeded)
    assert isinstance(error_of(call), TimeoutError)
    assert desk.take(protocol.Cancel) == [protocol.Cancel([call.first])]


def test_a_budget_that_ends_for_want_of_a_worker_says_why(desk):
    call = desk.call("a", timeout=0.5)
    desk.turn()
    desk.hear(protocol.Notice("default", errors.to_wire(NoWorker("none is connected"))))
    desk.turn(0.5)
    assert isinstance(error_of(call), NoWorker)
    assert "none is connected" in str(error_of(call))


def test_a_call_that_the_window_keeps_back_for_want_of_a_worker_says_why(desk):
    desk.lose()
    desk.connect(welcome=WELCOME._replace(epoch=2, window_items=1))
    desk.call("fills the window")
    waits = desk.call("waits", timeout=1.0)
    desk.turn()
    assert not waits.sent
    desk.hear(protocol.Notice("default", errors.to_wire(NoWorker("still starting"))))
    desk.turn(1.0)
    assert "still starting" in str(error_of(waits))


def test_a_notice_that_was_taken_back_is_no_reason(desk):
    call = desk.call("a", timeout=0.5)
    desk.turn()
    desk.hear(protocol.Notice("default", errors.to_wire(NoWorker("none"))))
    desk.hear(protocol.Notice("default", []))
    desk.turn(0.5)
    assert isinstance(error_of(call), DeadlineExceeded)


# A lost connection


def test_a_client_that_comes_back_names_what_it_waits_for(desk):
    call = desk.call("a", "b")
    desk.turn()
    desk.answer(call.first)
    desk.turn()
    desk.lose()
    desk.said[desk.link].clear()
    desk.turn(0.1)
    desk.core.on_connected(desk.now, desk.link)
    desk.turn()
    (hello,) = desk.take(protocol.Hello)
    assert hello == protocol.Hello(1, 7, {"extensions": ["traces"], "open": [call.first + 1]})


@pytest.mark.parametrize("once", [False, True])
def test_what_the_broker_knows_is_not_sent_again_and_what_never_arrived_is(desk, once):
    call = desk.call("a", "b", "c", once=once)
    desk.turn()
    desk.lose()
    desk.said[desk.link].clear()
    desk.connect(welcome=WELCOME._replace(resumed=True, known=[call.first]))
    assert desk.submitted() == [call.first + 1, call.first + 2]
    desk.answer(*range(call.first, call.first + 3))
    desk.turn()
    assert len(call.results()) == 3


def test_a_restarted_broker_gets_again_what_may_run_twice(desk):
    call = desk.call("a", "b")
    desk.turn()
    desk.lose()
    desk.said[desk.link].clear()
    desk.connect()
    assert desk.submitted() == [call.first, call.first + 1]


def test_what_may_run_only_once_fails_where_its_fate_is_unknown(desk):
    call = desk.call("a", "b", "c", once=True)
    kept = desk.call("a", "b", once=True, keep_errors=True)
    desk.turn()
    desk.lose()
    desk.said[desk.link].clear()
    desk.connect()
    assert desk.submitted() == []
    assert isinstance(error_of(call), WorkerLost)
    assert [type(error) for error in kept.results()] == [WorkerLost, WorkerLost]


def test_acknowledgements_are_counted_anew_on_each_connection(desk):
    call = desk.call("a", "b")
    desk.turn()
    desk.answer(call.first)
    desk.lose()
    desk.answer(call.first + 1)  # read together with the end of its connection
    desk.connect(welcome=WELCOME._replace(resumed=True, known=[call.first + 1]))
    desk.said[desk.link].clear()
    desk.answer(call.first + 1)
    desk.turn(1.0)
    assert desk.take(protocol.Ack) == [protocol.Ack(1)]
    assert call.done


def test_bytes_that_are_no_message_end_the_connection(desk):
    call = desk.call("a")
    desk.turn()
    desk.hear([b"no message"])
    desk.turn()
    assert desk.closed == [desk.link]
    desk.connect(welcome=WELCOME._replace(resumed=True, known=[call.first]))
    desk.answer(call.first)
    desk.turn()
    assert call.done


def test_a_refusal_amid_everything_costs_only_the_connection(desk):
    call = desk.call("a")
    desk.turn()
    desk.hear(protocol.Refuse([]))
    desk.turn()
    assert desk.closed == [desk.link]
    assert not call.done


def test_items_of_a_lost_broker_move_to_another_though_it_refuses_every_connection():
    desk = Desk("tcp://a", "tcp://b")
    call = desk.call(*"abcd")
    for link in desk.links:
        desk.connect(link)
    desk.turn(1.0)
    one, other = desk.links if desk.links[0].sent else reversed(desk.links)
    assert len(one.sent) == 4
    lost_at = desk.now
    desk.lose(one)
    while desk.now < lost_at + MOVE_AFTER:
        assert not desk.submitted(other)
        desk.turn(min(desk.core.wake_at(), lost_at + MOVE_AFTER) - desk.now)
        if one.state is LinkState.CONNECTING:
            desk.lose(one)
    assert desk.submitted(other) == [1, 2, 3, 4]
    assert not call.done


def test_nothing_new_goes_to_a_broker_that_drains_where_there_is_another():
    desk = Desk("tcp://a", "tcp://b")
    desk.call("x")
    for link in desk.links:
        desk.connect(link)
    desk.hear(protocol.Notice("", errors.to_wire(errors.Overloaded("draining"))), desk.links[0])
    for link in desk.links:
        desk.said[link].clear()
    desk.call(*range(20))
    desk.turn()
    assert desk.submitted(desk.links[0]) == []
    assert len(desk.submitted(desk.links[1])) == 20


def test_what_was_sent_to_a_broker_that_had_said_it_drains_has_not_run_there():
    desk = Desk("tcp://a", "tcp://b")
    a, b = desk.links
    call = desk.call("x", once=True)
    while a.state is not LinkState.CONNECTING:
        desk.turn(0.01)
    desk.core.on_connected(desk.now, a)
    desk.hear(protocol.Notice("", errors.to_wire(errors.Overloaded("draining"))), a)
    desk.hear(WELCOME, a)
    desk.turn()
    assert desk.submitted(a) == [call.first]
    desk.lose(a)
    desk.connect(b)
    desk.turn(MOVE_AFTER)
    assert desk.submitted(b) == [call.first]


# What a broker does not take


OVERLOADED = errors.Overloaded("full", retry_after=3.0)
NOT_FOUND = errors.ModelNotFound("no such model", ["bert"])
NOT_READY = NoWorker("no worker is connected")
DRAINING = errors.Overloaded("the broker is shutting down")
GIVEN_UP = NoWorker("no worker could start", final=True)


def two_brokers(**options):
    """A client connected to two brokers, A and B, with no item open."""
    desk = Desk("tcp://a", "tcp://b", **options)
    call = desk.call("first")
    for link in desk.links:
        desk.connect(link)
    for link in desk.links:
        desk.answer(call.first, link=link)
    desk.turn(1.0)
    for link in desk.links:
        desk.said[link].clear()
    desk.ended.clear()
    return desk


def flags_to(desk, link):
    return [run.flags for submit in desk.take(protocol.Submit, link) for run in submit.runs]


@pytest.mark.parametrize("once", [False, True])
@pytest.mark.parametrize("error", [OVERLOADED, NOT_FOUND, NOT_READY, DRAINING, GIVEN_UP])
def test_what_a_broker_refuses_goes_to_the_other_and_its_caller_sees_nothing(error, once):
    desk = two_brokers()
    call = desk.call("x", once=once)
    desk.turn()
    one, other = desk.links if desk.links[0].sent else reversed(desk.links)
    desk.answer(call.first, outcome=errors.refusal(error), link=one)
    desk.turn()
    assert desk.submitted(other) == [call.first]
    desk.answer(call.first, link=other)
    desk.turn()
    assert desk.ended == [call]
    assert call.results() == [f"out {call.first}"]


def test_an_error_of_the_model_is_not_taken_for_a_refusal():
    desk = two_brokers()
    call = desk.call("x", once=True)
    desk.turn()
    (link,) = (link for link in desk.links if link.sent)
    desk.answer(call.first, outcome=errors.to_wire(OVERLOADED), link=link)
    desk.turn()
    assert error_of(call).message == "full"


@pytest.mark.parametrize(
    ("first", "second", "heard"),
    [
        (NOT_FOUND, OVERLOADED, "full"),
        (OVERLOADED, NOT_FOUND, "full"),
        (DRAINING, NOT_FOUND, "the broker is shutting down"),
        (GIVEN_UP, NOT_FOUND, "no worker could start"),
    ],
)
def test_its_caller_hears_the_most_telling_refusal_when_no_broker_is_left(first, second, heard):
    desk = two_brokers()
    call = desk.call("x")
    desk.turn()
    one, other = desk.links if desk.links[0].sent else reversed(desk.links)
    for link, error in ((one, first), (other, second)):
        assert not call.done
        desk.answer(call.first, outcome=errors.refusal(error), link=link)
        desk.turn()
    assert error_of(call).message == heard
    assert not desk.core.open_calls and not desk.core._tours


def test_a_model_that_no_broker_knows_names_those_that_all_of_them_serve():
    desk = two_brokers()
    call = desk.call("x")
    for models in (["bert", "gpt"], ["bert", "clip"]):
        desk.turn()
        (link,) = (link for link in desk.links if link.sent)
        error = errors.ModelNotFound("none", models)
        desk.answer(call.first, outcome=errors.refusal(error), link=link)
    desk.turn()
    error = error_of(call)
    assert isinstance(error, errors.ModelNotFound)
    assert error.models == ("bert", "clip", "gpt")


def test_every_broker_is_asked_for_one_with_a_ready_worker_before_the_item_waits_at_any():
    desk = two_brokers()
    call = desk.call("x")
    desk.turn()
    one, other = desk.links if desk.links[0].sent else reversed(desk.links)
    assert flags_to(desk, one) == [protocol.Flag.READY]
    desk.answer(call.first, outcome=errors.refusal(NOT_READY), link=one)
    desk.turn()
    assert flags_to(desk, other) == [protocol.Flag.READY]
    desk.answer(call.first, outcome=errors.refusal(NOT_FOUND), link=other)
    desk.turn()
    assert flags_to(desk, one) == [0]
    assert not flags_to(desk, other)
    assert not call.done


def test_a_large_payload_that_waits_for_a_worker_is_not_sent_back():
    desk = two_brokers()
    call = desk.raw_call(bytes(2 * MiB))
    for expected in (protocol.Flag.READY, protocol.Flag.READY, 0):
        desk.turn()
        (link,) = (link for link in desk.links if link.sent)
        assert flags_to(desk, link) == [expected]
        desk.hear(protocol.PartOk(1), link)
        desk.hear(protocol.PartOk(1), link)
        desk.answer(call.first, outcome=errors.refusal(NOT_READY), link=link)


def test_a_client_of_one_broker_leaves_its_items_there():
    desk = Desk()
    call = desk.call("x")
    desk.connect()
    assert flags_to(desk, desk.link) == [0]
    desk.answer(call.first, outcome=errors.refusal(OVERLOADED))
    desk.turn()
    assert error_of(call).message == "full"


def test_a_broker_that_has_no_worker_is_asked_last():
    desk = two_brokers()
    a, b = desk.links
    desk.hear(protocol.Notice("default", errors.to_wire(NOT_READY)), a)
    desk.call(*range(10))
    desk.turn()
    assert (len(a.sent), len(b.sent)) == (0, 10)
    desk.hear(protocol.Notice("default", []), a)
    desk.call(*range(4))
    desk.turn()
    assert (len(a.sent), len(b.sent)) == (4, 10)


def test_a_broker_that_was_just_lost_may_yet_take_what_the_other_does_not_know():
    desk = two_brokers()
    a, b = desk.links
    desk.lose(b)
    call = desk.call("x")
    desk.turn()
    desk.answer(call.first, outcome=errors.refusal(NOT_FOUND), link=a)
    desk.turn()
    assert not call.done
    desk.connect(b, WELCOME._replace(epoch=2))
    assert desk.submitted(b)[-1:] == [call.first]


def test_a_broker_that_stays_away_is_not_waited_for_beyond_the_time_to_connect():
    desk = two_brokers(connect_timeout=1.0)
    a, b = desk.links
    desk.lose(b)
    call = desk.call("x")
    desk.turn()
    desk.answer(call.first, outcome=errors.refusal(NOT_FOUND), link=a)
    start = desk.now
    while not call.done:
        desk.turn(max(0.001, desk.core.wake_at() - desk.now))
        if b.state is LinkState.CONNECTING:
            desk.lose(b)
    assert desk.now == pytest.approx(start + 1.0, abs=0.01)
    later = desk.call("y")
    desk.turn()
    desk.answer(later.first, outcome=errors.refusal(NOT_FOUND), link=a)
    desk.turn()
    assert later.done


def test_too_much_work_is_told_at_once_though_another_broker_was_just_lost():
    desk = two_brokers()
    a, b = desk.links
    desk.lose(b)
    call = desk.call("x")
    desk.turn()
    desk.answer(call.first, outcome=errors.refusal(OVERLOADED), link=a)
    desk.turn()
    assert isinstance(error_of(call), errors.Overloaded)


def test_a_broker_that_drained_is_asked_again_after_its_restart():
    desk = two_brokers()
    a, b = desk.links
    desk.lose(b)
    call = desk.call("x")
    desk.turn()
    desk.hear(protocol.Notice("", errors.to_wire(DRAINING)), a)
    desk.answer(call.first, outcome=errors.refusal(DRAINING), link=a)
    desk.lose(a)
    desk.connect(a, WELCOME._replace(epoch=2))
    assert desk.submitted(a)[-1:] == [call.first]
    assert not call.done


def test_a_broker_that_drained_was_lost_and_came_back_gets_new_work_beside_another():
    desk = two_brokers()
    a, b = desk.links
    desk.hear(protocol.Notice("", errors.to_wire(DRAINING)), a)
    desk.lose(a)
    desk.connect(a, WELCOME._replace(epoch=2))
    desk.call(*range(10))
    desk.turn()
    assert (len(a.sent), len(b.sent)) == (5, 5)


def test_an_item_that_was_refused_ends_on_time_and_says_why():
    desk = two_brokers()
    a, b = desk.links
    desk.lose(b)
    call = desk.call("x", timeout=0.3)
    desk.turn()
    desk.answer(call.first, outcome=errors.refusal(NOT_FOUND), link=a)
    desk.turn(0.3)
    assert isinstance(error_of(call), errors.ModelNotFound)


def test_an_item_that_another_broker_has_taken_ends_on_time_for_that_reason():
    desk = two_brokers()
    call = desk.call("x", timeout=0.3)
    desk.turn()
    (link,) = (link for link in desk.links if link.sent)
    desk.answer(call.first, outcome=errors.refusal(NOT_FOUND), link=link)
    desk.turn()
    desk.turn(0.3)
    assert isinstance(error_of(call), DeadlineExceeded)


def test_a_call_given_up_on_its_way_round_leaves_nothing_behind():
    desk = two_brokers()
    a, b = desk.links
    desk.lose(b)
    call = desk.call("x")
    desk.turn()
    desk.answer(call.first, outcome=errors.refusal(NOT_FOUND), link=a)
    desk.turn()
    desk.core.cancel(call)
    desk.turn()
    assert not desk.core._tours
    assert desk.take(protocol.Cancel, a) == []


def test_a_worker_that_comes_to_a_broker_that_had_none_is_used():
    desk = two_brokers()
    a, b = desk.links
    desk.lose(b)
    call = desk.call("x")
    desk.turn()
    desk.hear(protocol.Notice("default", errors.to_wire(NOT_READY)), a)
    desk.answer(call.first, outcome=errors.refusal(NOT_READY), link=a)
    desk.turn()
    assert not a.sent
    desk.hear(protocol.Notice("default", []), a)
    desk.turn()
    assert list(a.sent) == [call.first]


def test_what_waits_for_a_worker_moves_to_the_broker_that_gets_one_first():
    desk = two_brokers()
    a, b = desk.links
    call = desk.call("x", once=True)
    for link, error in ((a, NOT_READY), (b, NOT_READY)):
        desk.hear(protocol.Notice("default", errors.to_wire(error)), link)
    for _ in range(2):
        desk.turn()
        (link,) = (link for link in desk.links if link.sent)
        desk.answer(call.first, outcome=errors.refusal(NOT_READY), link=link)
    desk.turn()
    one, other = desk.links if desk.links[0].sent else reversed(desk.links)
    for link in desk.links:
        desk.said[link].clear()
    desk.hear(protocol.Notice("default", []), other)
    desk.turn()
    (notice,) = desk.take(protocol.Notice, one)
    assert (notice.model, notice.error[0]) == ("default", errors.Code.NO_WORKER)
    desk.answer(call.first, outcome=errors.refusal(NOT_READY), link=one)
    desk.turn()
    assert desk.submitted(other) == [call.first]


def test_what_waits_for_a_worker_is_called_back_as_often_as_another_broker_may_have_one():
    desk = two_brokers()
    call = desk.call("x")
    for link in desk.links:
        desk.hear(protocol.Notice("default", errors.to_wire(NOT_READY)), link)
    for _ in range(2):
        desk.turn()
        (link,) = (link for link in desk.links if link.sent)
        desk.answer(call.first, outcome=errors.refusal(NOT_READY), link=link)
    desk.turn()
    one, other = desk.links if desk.links[0].sent else reversed(desk.links)
    desk.hear(protocol.Notice("default", []), other)
    desk.hear(protocol.Notice("default", []), one)  # it runs there, and its worker is lost
    desk.turn()
    desk.said[one].clear()
    desk.hear(protocol.Notice("default", errors.to_wire(NOT_READY)), one)
    desk.turn()
    assert len(desk.take(protocol.Notice, one)) == 1


def test_what_is_called_back_while_its_parts_are_leaving_does_not_wait_there_either():
    desk = two_brokers()
    call = desk.raw_call(bytes(8 * MiB))
    for expected in (protocol.Flag.READY, protocol.Flag.READY, 0):
        desk.turn()
        (link,) = (link for link in desk.links if link.sent)
        if expected == 0:  # it is parked, and half of it has left
            other = next(each for each in desk.links if each is not link)
            desk.hear(protocol.Notice("default", errors.to_wire(NOT_READY)), link)
            desk.hear(protocol.Notice("default", []), other)
            desk.turn()
        for _ in range(8):
            desk.hear(protocol.PartOk(1), link)
            desk.turn()
        assert flags_to(desk, link) == [protocol.Flag.READY]
        desk.answer(call.first, outcome=errors.refusal(NOT_READY), link=link)
    desk.turn()
    assert other.sent and not link.sent


def test_a_broker_that_comes_back_is_asked_for_the_models_that_items_wait_for():
    desk = two_brokers()
    a, b = desk.links
    desk.lose(b)
    call = desk.call("x")
    desk.turn()
    desk.answer(call.first, outcome=errors.refusal(NOT_READY), link=a)
    desk.connect(b, WELCOME._replace(epoch=2))
    assert protocol.Notice("default", []) in desk.take(protocol.Notice, b)


# Watches


def test_a_watch_goes_on_while_another_broker_may_have_a_worker():
    desk = two_brokers()
    a, b = desk.links
    watch = Watch("bert", desk.now + 5, desk.now)
    desk.core.watch(watch)
    desk.hear(protocol.Notice("bert", errors.to_wire(GIVEN_UP)), a)
    desk.turn()
    assert not watch.done
    desk.hear(protocol.Notice("bert", errors.to_wire(GIVEN_UP)), b)
    desk.turn()
    assert isinstance(watch.error, NoWorker)


def test_a_watch_of_a_model_ends_where_no_broker_answers():
    desk = Desk(connect_timeout=2.0)
    watch = Watch("bert", desk.now + 60, desk.now)
    desk.core.watch(watch)
    call = desk.call("x")
    assert desk.core.open_calls == 2
    for _ in range(30):
        desk.turn(0.1)
    assert isinstance(watch.error, errors.BrokerUnreachable)
    assert isinstance(error_of(call), errors.BrokerUnreachable)
    assert desk.core.open_calls == 0


def test_a_watch_of_a_client_that_is_refused_says_why():
    desk = Desk("tcp://a", "tcp://b", connect_timeout=2.0)
    a, _b = desk.links
    desk.core.watch(watch := Watch("bert", desk.now + 60, desk.now))
    while a.state is not LinkState.CONNECTING:
        desk.turn(0.01)
    desk.core.on_connected(desk.now, a)
    desk.hear(protocol.Refuse(errors.to_wire(errors.VersionMismatch("too old"))), a)
    for _ in range(30):
        desk.turn(0.1)
    assert isinstance(watch.error, errors.VersionMismatch)


def test_what_waits_where_no_worker_is_is_called_back_when_another_broker_may_have_one():
    desk = two_brokers()
    none = protocol.Notice("default", errors.to_wire(NoWorker("none")))
    call = desk.call("x")
    for _ in range(2):
        desk.turn()
        (link,) = (link for link in desk.links if link.sent)
        desk.hear(none, link)
        desk.answer(call.first, outcome=errors.refusal(NOT_READY), link=link)
    desk.turn()
    (there,) = (link for link in desk.links if link.sent)
    (other,) = (link for link in desk.links if link is not there)
    assert desk.take(protocol.Notice, there) == []
    desk.hear(none, other)
    desk.turn()
    assert desk.take(protocol.Notice, there) == []
    desk.hear(none._replace(error=[]), other)
    desk.turn()
    [asked] = desk.take(protocol.Notice, there)
    assert asked.error[0] == errors.Code.NO_WORKER


def test_a_watch_ends_when_the_model_is_ready(desk):
    watch = Watch("bert", desk.now + 5, desk.now)
    desk.core.watch(watch)
    desk.turn()
    assert desk.take(protocol.Notice) == [protocol.Notice("bert", [])]
    desk.hear(protocol.Notice("bert", errors.to_wire(NoWorker("still starting"))))
    desk.turn()
    assert not watch.done
    desk.hear(protocol.Notice("bert", []))
    desk.turn()
    assert desk.ended == [watch]
    assert watch.error is None


def test_a_watch_ends_at_once_where_no_worker_will_ever_start(desk):
    watch = Watch("bert", desk.now + 5, desk.now)
    desk.core.watch(watch)
    desk.hear(protocol.Notice("bert", errors.to_wire(NoWorker("broken", final=True))))
    desk.turn()
    assert isinstance(watch.error, NoWorker)


def test_a_watch_ends_with_its_time_and_says_why(desk):
    watch = Watch("bert", desk.now + 5, desk.now)
    desk.core.watch(watch)
    desk.hear(protocol.Notice("bert", errors.to_wire(NoWorker("still starting"))))
    desk.turn()
    assert desk.core.wake_at() == desk.now + 5
    desk.turn(5.0)
    assert "still starting" in str(watch.error)


# Large payloads


def test_a_large_payload_goes_in_parts_a_few_at_a_time_and_small_ones_pass_it(desk):
    call = desk.raw_call(bytes(6 * MiB))
    small = desk.call("small")
    desk.turn()
    parts = [m for m in desk.said[desk.link] if isinstance(m, protocol.Part)]
    assert [len(part.data) for part in parts] == [MiB] * 4
    assert desk.submitted() == [small.first]
    for _ in range(2):
        desk.hear(protocol.PartOk(parts[0].transfer))
    desk.turn()
    assert len(desk.take(protocol.Part)) == 2
    desk.hear(protocol.PartOk(parts[0].transfer))
    desk.turn()
    (submit,) = desk.take(protocol.Submit)
    assert submit.runs[0].ids == [call.first]
    assert submit.runs[0].slots == [parts[0].transfer]


def test_a_large_answer_is_put_together_from_its_parts(desk):
    call = desk.call("a")
    desk.turn()
    payload = codec.encode(bytes(2 * MiB))
    for start in range(0, len(payload), MiB):
        desk.hear(protocol.part(5, payload[start : start + MiB]))
    desk.turn()
    assert desk.take(protocol.PartOk) == [protocol.PartOk(5)] * 3
    desk.answer(call.first, outcome=5)
    desk.turn()
    assert call.results() == [bytes(2 * MiB)]
