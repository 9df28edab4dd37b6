"""The broker's state machine, driven by hand: the test is its peers and its clock."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from tests.helpers.wire import received
from zstreamer import errors
from zstreamer.broker.admission import NAMED
from zstreamer.broker.core import BrokerCore
from zstreamer.broker.sessions import Side
from zstreamer.broker.timers import TICK
from zstreamer.broker.workers import FIRST_LATE, LATE, STALL
from zstreamer.config import BrokerConfig
from zstreamer.errors import Code, to_wire
from zstreamer.wire import protocol
from zstreamer.wire.protocol import PART, Fate, Flag, Role, Run, WorkerState

MiB = 1024 * 1024
BROKEN, DRAINING = WorkerState.BROKEN, WorkerState.DRAINING
RESTARTING, WARM = WorkerState.RESTARTING, WorkerState.WARM


class Room:
    """A broker core; the test plays all who are connected to it.

    Attributes:
        told: what the broker has sent to each session, oldest first; emptied by the tests.
    """

    def __init__(self, **config: Any) -> None:
        self.now = 100.0
        self.core = BrokerCore(BrokerConfig(**config), 77, self.now)
        self.told: dict[str, list[Any]] = {}

    def turn(self, seconds: float = 0.0) -> None:
        """Let time pass as a driver does."""
        end = self.now + seconds
        while self.core.wake_at() < end:
            self.now = max(self.now, self.core.wake_at())
            self._poll()
        self.now = end
        self._poll()

    def _poll(self) -> None:
        while sends := self.core.poll(self.now):
            for send in sends:
                message = protocol.decode(received(send.frames))
                self.told.setdefault(send.session.decode(), []).append(message)

    def client(self, name: str, id: int = 0, waits: list[int] | None = None) -> protocol.Welcome:
        """Say HELLO as a client."""
        hello = protocol.Hello(Role.CLIENT, id or sum(name.encode()), {"open": waits or []})
        self.from_client(name, protocol.hello(hello))
        return next(m for m in self.take(name) if isinstance(m, protocol.Welcome))

    def worker(
        self,
        name: str,
        batch_size: int = 4,
        model: str = "default",
        pool: int = 0,
        id: int = 0,
        state: WorkerState | None = WARM,
    ) -> protocol.Welcome:
        """Say HELLO as a worker, and what state it is in."""
        info = {"model": model, "batch_size": batch_size, "pool": pool}
        hello = protocol.Hello(Role.WORKER, id or sum(name.encode()), info)
        self.from_worker(name, protocol.hello(hello))
        welcome = next(m for m in self.take(name) if isinstance(m, protocol.Welcome))
        if state is not None:
            self.state(name, state)
        return welcome

    def state(self, name: str, state: WorkerState, text: str = "") -> None:
        self.from_worker(name, protocol.plain(protocol.State(state, text)))

    def submit(
        self,
        name: str,
        *ids: int,
        budget: float = 20.0,
        payload: protocol.Slot = b"in",
        model: str = "default",
        ack: int = 0,
        priority: int = 0,
        once: bool = False,
        ready: bool = False,
        lane: int = 0,
    ) -> None:
        count = len(ids)
        flags = (Flag.ONCE if once else 0) | (Flag.READY if ready else 0)
        budgets, slots = [int(budget * 1000)] * count, [payload] * count
        run = Run(model, priority, int(flags), lane, list(ids), budgets, slots)
        self.from_client(name, protocol.submit(ack, [run], []))

    def report(
        self,
        name: str,
        *done: int,
        begun: list[int] | None = None,
        outcome: protocol.Slot = b"out",
        beta: float = 0.0,
        alpha: float = 0.0,
        backlog: int = 0,
    ) -> None:
        slots = [outcome] * len(done)
        times = (int(beta * 1e6), int(alpha * 1e6))
        message = protocol.Report(begun or [], list(done), slots, backlog, *times)
        self.from_worker(name, protocol.report(message, []))

    def from_client(self, name: str, frames: protocol.Frames) -> None:
        self.core.on_client(self.now, name.encode(), frames)
        self.turn()

    def from_worker(self, name: str, frames: protocol.Frames) -> None:
        self.core.on_worker(self.now, name.encode(), frames)
        self.turn()

    def lose(self, name: str, side: Side) -> None:
        self.core.on_gone(self.now, side, name.encode())
        self.turn()

    def take(self, name: str) -> list[Any]:
        """Return what a session was told, and forget it."""
        return self.told.pop(name, [])

    def work(self, name: str) -> list[int]:
        """Return the tickets that a worker was given since it was last asked."""
        return [t for m in self.take(name) if isinstance(m, protocol.Work) for t in m.tickets]

    def answers(self, name: str) -> dict[int, Any]:
        """Return what a client was answered since it was last asked."""
        found = [m for m in self.take(name) if isinstance(m, protocol.Answer)]
        return {i: slot for m in found for i, slot in zip(m.ids, m.slots, strict=True)}

    def notices(self, name: str) -> list[Any]:
        """Return the notices that a client was sent since it was last asked."""
        return [m for m in self.take(name) if isinstance(m, protocol.Notice)]

    def codes(self, name: str) -> dict[int, object]:
        """Return the codes of the errors that a client was answered."""
        return {i: s[0] for i, s in self.answers(name).items() if isinstance(s, list)}


@pytest.fixture
def room():
    """A broker beyond its grace, with a warm worker W (batches of 4) and a client A."""
    room = Room()
    room.worker("W")
    room.client("A")
    room.turn(5.0)
    room.report("W")
    return room


def refusals(room, name):
    return [m.error[0] for m in room.take(name) if isinstance(m, protocol.Refuse)]


# Sessions


def test_a_client_is_welcome_with_its_window_and_the_limits():
    room = Room(window_items=10, window_bytes=1000, max_payload=500)
    assert room.client("A") == protocol.Welcome(77, False, [], 10, 1000, 500)


def test_a_workers_window_is_two_batches_and_its_pool():
    room = Room()
    assert room.worker("W", batch_size=32, pool=128).window_items == 192


@pytest.mark.parametrize("side", Side)
def test_another_version_is_refused_in_words(side):
    room = Room()
    hello = protocol.hello(protocol.Hello(Role.CLIENT, 1, {}, version=2))
    (room.from_client if side is Side.CLIENT else room.from_worker)("X", hello)
    (refuse,) = room.take("X")
    assert refuse == protocol.Refuse(
        [Code.VERSION_MISMATCH, "this broker speaks version 1, its peer 2", {}]
    )


def test_who_knocks_at_the_wrong_port_is_told_so():
    room = Room()
    room.from_worker("C", protocol.hello(protocol.Hello(Role.CLIENT, 1, {})))
    assert refusals(room, "C") == [Code.BAD_REQUEST]
    assert not room.core.clients


@pytest.mark.parametrize(
    "info",
    [
        {},
        {"model": "", "batch_size": 1, "pool": 0},
        {"model": "x" * 256, "batch_size": 1, "pool": 0},
        {"model": "m", "batch_size": 0, "pool": 0},
        {"model": "m", "batch_size": True, "pool": 0},
        {"model": "m", "batch_size": 1, "pool": -1},
        {"model": "m", "batch_size": 2**63, "pool": 0},
        {"model": "m", "batch_size": 1, "pool": 2**63},
        {"model": 5, "batch_size": 1, "pool": 0},
    ],
)
def test_a_worker_that_makes_no_sense_is_refused(info):
    room = Room()
    room.from_worker("W", protocol.hello(protocol.Hello(Role.WORKER, 1, info)))
    assert refusals(room, "W") == [Code.BAD_REQUEST]
    assert not room.core.workers


@pytest.mark.parametrize("open_", [None, 5, "text", ["a", None, 1.5], {"a": 1}])
def test_a_client_whose_open_items_make_no_sense_has_none(open_):
    room = Room()
    room.from_client("A", protocol.hello(protocol.Hello(Role.CLIENT, 1, {"open": open_})))
    (welcome,) = room.take("A")
    assert isinstance(welcome, protocol.Welcome)


def test_who_has_not_said_hello_is_refused(room):
    room.submit("stranger", 1)
    room.report("stranger", 1)
    assert refusals(room, "stranger") == [Code.BAD_REQUEST] * 2


def test_the_status_is_told_to_anyone(room):
    room.from_client("stranger", protocol.plain(protocol.Status({})))
    (status,) = room.take("stranger")
    assert isinstance(status, protocol.Status)
    assert set(status.info) == {"broker", "models"}


@given(some.lists(some.binary(max_size=40), min_size=1, max_size=3))
def test_bytes_that_are_no_message_harm_nobody_else(frames):
    room = Room()
    room.worker("W")
    room.client("A")
    room.submit("A", 1)
    room.work("W")
    for name in ("A", "stranger"):
        room.from_client(name, list(frames))
        room.from_worker(name, list(frames))
    room.report("W", 1)
    assert room.answers("A") == {1: b"out"}


def test_malformed_messages_are_counted_and_refused(room):
    room.from_client("A", [b"\xc1"])
    room.from_worker("W", protocol.plain(protocol.Ack(1)))  # well formed, but not for a broker
    assert room.core.counts["malformed"] == 2
    assert refusals(room, "A") == refusals(room, "W") == [Code.BAD_REQUEST]


def test_a_second_hello_on_one_session_replaces_the_first(room):
    room.client("A", id=1234)
    assert [c.session for c in room.core.clients.values()].count(b"A") == 1
    room.worker("W", model="other", id=99)
    assert set(room.core.models["other"].workers) == {b"W"}
    assert not room.core.models["default"].workers


def test_a_worker_that_comes_again_replaces_its_earlier_self(room):
    room.submit("A", 1)
    assert room.work("W")
    room.worker("W again", id=sum(b"W"))
    assert set(room.core.workers) == {b"W again"}
    assert len(room.work("W again")) == 1


@pytest.mark.parametrize("side", Side)
def test_a_session_that_was_replaced_is_told_so(room, side):
    one, other = "one", "other"
    for name in (one, other):
        if side is Side.CLIENT:
            room.client(name, id=1234)
        else:
            room.worker(name, id=1234)
    assert refusals(room, one) == [Code.BAD_REQUEST]
    assert refusals(room, other) == []


# From SUBMIT to ANSWER


def test_an_item_goes_to_a_worker_and_its_output_to_its_client(room):
    room.client("B")
    room.submit("A", 1, budget=5.0)
    room.submit("B", 1)
    (work, _) = [m for m in room.take("W") if isinstance(m, protocol.Work)]
    assert work == protocol.Work(0, [1], [5000], [b"in"])
    room.report("W", 2, outcome=b"for B")
    room.report("W", 1, outcome=b"for A")
    assert room.answers("A") == {1: b"for A"}
    assert room.answers("B") == {1: b"for B"}
    assert room.core.clients[sum(b"A")].items == {}


def test_what_is_ready_in_one_turn_leaves_as_one_message(room):
    for id in range(1, 5):
        run = Run("default", 0, 0, 0, [id], [1000], [b"in"])
        room.core.on_client(room.now, b"A", protocol.submit(0, [run], []))
    room.turn()
    (work,) = room.take("W")
    assert work.tickets == [1, 2, 3, 4]
    room.report("W", 1, 2, 3, 4)
    (answer,) = room.take("A")
    assert answer.ids == [1, 2, 3, 4]


@given(
    batch_size=some.integers(1, 5),
    moves=some.lists(some.tuples(some.booleans(), some.integers(1, 9)), max_size=40),
)
def test_no_worker_holds_more_than_its_window_and_every_item_is_answered_once(batch_size, moves):
    room = Room()
    room.worker("W", batch_size)
    room.client("A")
    held: list[int] = []
    answered: list[int] = []
    sent = 0

    def settle():
        held.extend(room.work("W"))
        assert len(held) <= 2 * batch_size
        assert len(held) == min(2 * batch_size, sent - len(answered))

    for submits, count in moves:
        if submits:
            room.submit("A", *range(sent + 1, sent + 1 + count))
            sent += count
            settle()
        elif held:
            room.report("W", held.pop(count % len(held)))
            answered += room.answers("A")
            settle()
    while held:
        room.report("W", held.pop())
        answered += room.answers("A")
        settle()
    assert len(answered) == len(set(answered)) == sent


def test_a_worker_whose_window_of_bytes_is_full_gets_nothing_more():
    room = Room(window_bytes=1000)
    room.worker("W", batch_size=4)
    room.client("A")
    room.submit("A", 1, 2, 3, payload=bytes(600))
    assert len(room.work("W")) == 2  # the second is the one that fills it
    room.report("W", 1)
    assert len(room.work("W")) == 1
    room.submit("A", 4, payload=bytes(600))
    assert len(room.work("W")) == 0


@pytest.mark.parametrize("state", [WorkerState.BOOTING, RESTARTING, DRAINING])
def test_only_a_warm_worker_is_given_work(room, state):
    room.state("W", state)
    room.submit("A", 1)
    assert room.work("W") == []
    room.state("W", WARM)
    assert len(room.work("W")) == 1


def test_a_silent_worker_gets_nothing_new_until_it_speaks_and_keeps_what_it_has(room):
    room.submit("A", 1)
    assert room.work("W") == [1]
    room.turn(STALL + 2 * TICK)
    room.submit("A", 2)
    assert room.work("W") == []
    room.from_worker("W", protocol.plain(protocol.Ping()))
    assert room.work("W") == [2]
    room.report("W", 1)
    assert room.answers("A") == {1: b"out"}


def test_the_brokers_own_absence_makes_no_worker_silent(room):
    room.now += 60.0
    room.core.on_pause(60.0)
    room.turn()
    room.submit("A", 1)
    assert room.work("W") == [1]


def test_an_id_that_is_open_already_is_not_taken_twice(room):
    room.submit("A", 1)
    room.submit("A", 1)
    assert room.work("W") == [1]


def test_large_payloads_are_passed_on_part_by_part(room):
    for _ in range(3):
        room.from_client("A", protocol.part(9, bytes(MiB)))
    assert room.take("A") == [protocol.PartOk(9)] * 3
    room.submit("A", 1, payload=9)
    told = room.take("W")
    assert [len(m.data) for m in told[:-1]] == [MiB] * 3
    assert told[-1].slots == [told[0].transfer]
    room.from_worker("W", protocol.part(4, bytes(MiB)))
    room.from_worker("W", protocol.part(4, b"end"))
    room.report("W", 1, outcome=4)
    parts, answer = room.take("A")[:-1], room.told.get("A")
    assert [len(m.data) for m in parts] == [MiB, 3]
    assert answer is None


def test_a_transfer_that_is_not_known_or_too_large_is_that_items_error():
    room = Room(max_payload=MiB)
    room.worker("W")
    room.client("A")
    for _ in range(2):
        room.from_client("A", protocol.part(1, bytes(MiB)))
    room.submit("A", 1, payload=1)
    room.submit("A", 2, payload=7)
    assert room.codes("A") == {1: Code.TOO_LARGE, 2: Code.BAD_REQUEST}


def test_parts_that_nobody_names_end_in_a_refusal():
    room = Room(window_bytes=2 * MiB, max_payload=2 * MiB)
    room.client("A")
    for transfer in range(5):
        room.from_client("A", protocol.part(transfer, bytes(MiB)))
    assert refusals(room, "A") == [Code.TOO_LARGE]


def test_a_transfer_given_up_leaves_nothing_behind():
    room = Room(window_bytes=2 * MiB, max_payload=2 * MiB)
    room.client("A")
    for transfer in range(20):
        room.from_client("A", protocol.part(transfer, bytes(MiB)))
        room.from_client("A", protocol.part(transfer, b""))
    assert refusals(room, "A") == []
    assert room.core.clients[sum(b"A")].receiver.bytes == 0


# What is not taken


def test_an_unknown_model_waits_at_first_and_is_refused_later():
    room = Room()
    room.worker("W", model="bert")
    room.client("A")
    room.submit("A", 1, model="brat")
    assert room.codes("A") == {}
    room.turn(3.5)
    (wire,) = room.answers("A").values()
    assert wire == [
        404,
        "no worker for model 'brat' has connected; served: 'bert'",
        {"models": ["bert"], "admitted": False},
    ]
    room.submit("A", 2, model="brat")
    assert room.codes("A") == {2: Code.MODEL_NOT_FOUND}
    assert set(room.core.models) == {"bert"}


@pytest.mark.parametrize(("models", "more"), [(NAMED, ""), (NAMED + 1, " and 1 more")])
def test_an_error_names_so_many_models_and_counts_the_others(models, more):
    room = Room()
    room.client("A")
    for number in range(models):
        room.worker(f"W{number:03}", model=f"m{number:03}", id=number + 1)
    room.turn(5.0)
    room.submit("A", 1, model="brat")
    (wire,) = room.answers("A").values()
    assert wire[1].endswith(f"'m{NAMED - 1:03}'{more}")
    assert len(wire[2]["models"]) == NAMED


def test_a_model_that_comes_late_but_in_time_is_served():
    room = Room()
    room.client("A")
    room.submit("A", 1)
    room.turn(1.0)
    room.worker("W")
    assert room.work("W") == [1]


def test_a_model_whose_only_worker_was_lost_is_still_known(room):
    room.submit("A", 1)
    room.report("W", begun=room.work("W"))
    room.lose("W", Side.WORKER)
    room.turn(5.0)
    assert room.codes("A") == {}
    room.worker("V")
    assert len(room.work("V")) == 1


@pytest.mark.parametrize("name", ["", "x" * 256])
def test_a_models_name_has_bounds(room, name):
    room.submit("A", 1, model=name)
    assert room.codes("A") == {1: Code.BAD_REQUEST}


def test_why_items_wait_is_told_once_and_again_when_it_changes():
    room = Room()
    room.client("A")
    room.submit("A", 1)
    room.submit("A", 2)
    (notice,) = room.take("A")
    assert notice.model == "default"
    assert notice.error[0] == Code.NO_WORKER
    assert "no worker is connected" in notice.error[1]
    room.worker("W", state=None)
    room.state("W", RESTARTING, "ImportError: torch")
    assert "ImportError: torch" in room.take("A")[-1].error[1]
    room.state("W", WARM)
    assert room.take("A") == [protocol.Notice("default", [])]


@pytest.mark.parametrize("begun", [False, True])
def test_who_waits_is_told_that_the_last_worker_has_gone(room, begun):
    room.client("B")
    room.submit("A", *range(1, 20))
    tickets = room.work("W")
    room.report("W", begun=tickets if begun else [])
    assert room.notices("A") == []
    room.lose("W", Side.WORKER)
    (notice,) = room.notices("A")
    assert notice.error[0] == Code.NO_WORKER
    assert room.notices("B") == []
    room.worker("V")
    assert room.notices("A") == [protocol.Notice("default", [])]


@pytest.mark.parametrize("state", [RESTARTING, DRAINING])
def test_who_waits_is_told_that_the_last_worker_is_not_ready(room, state):
    room.submit("A", *range(1, 20))
    room.state("W", state)
    assert [n.error[0] for n in room.notices("A")] == [Code.NO_WORKER]


def test_who_comes_back_is_told_why_its_items_wait(room):
    room.submit("A", 1)
    room.lose("W", Side.WORKER)
    room.lose("A", Side.CLIENT)
    hello = protocol.Hello(Role.CLIENT, sum(b"A"), {"open": [1]})
    room.from_client("A2", protocol.hello(hello))
    assert [n.error[0] for n in room.notices("A2")] == [Code.NO_WORKER]


def test_what_may_go_to_another_broker_is_taken_only_while_a_worker_is_ready(room):
    room.submit("A", 1, ready=True)
    assert len(room.work("W")) == 1
    room.state("W", RESTARTING)
    assert len(room.notices("A")) == 1
    room.submit("A", 2, ready=True)
    room.submit("A", 3)
    (answer,) = room.take("A")
    assert answer.ids == [2]
    assert errors.is_refusal(answer.slots[0])
    assert answer.slots[0][0] == Code.NO_WORKER
    room.state("W", WARM)
    assert room.notices("A") == [protocol.Notice("default", [])]


def test_a_model_that_may_yet_come_is_refused_to_whom_another_broker_may_serve():
    room = Room()
    room.client("A")
    room.submit("A", 1, ready=True)
    notice, answer = room.take("A")
    assert notice.error[0] == Code.NO_WORKER
    assert errors.is_refusal(answer.slots[0])
    room.worker("W")
    assert room.notices("A") == [protocol.Notice("default", [])]


@pytest.mark.parametrize("once", [False, True])
def test_what_may_go_to_another_broker_goes_back_when_the_last_worker_is_gone(room, once):
    room.submit("A", *range(1, 20), ready=True, once=once)
    room.submit("A", 30)
    tickets = room.work("W")
    room.state("W", RESTARTING)
    room.report("W", *tickets, outcome=[Fate.RETURNED, "", {}])
    answers = room.answers("A")
    assert sorted(answers) == list(range(1, 20))
    assert all(errors.is_refusal(slot) and slot[0] == Code.NO_WORKER for slot in answers.values())
    assert room.core.scheduler.queued_items == 1


def test_what_was_running_when_the_last_worker_was_lost_may_go_to_another_broker(room):
    room.submit("A", 1, ready=True)
    room.report("W", begun=room.work("W"))
    room.lose("W", Side.WORKER)
    assert errors.is_refusal(room.answers("A")[1])


@pytest.mark.parametrize("once", [False, True])
def test_what_waits_is_given_back_to_whom_another_broker_is_ready_for(room, once):
    elsewhere = protocol.plain(protocol.Notice("default", to_wire(errors.NoWorker("there"))))
    room.submit("A", *range(1, 20), once=once)
    room.from_client("A", elsewhere)
    assert room.answers("A") == {}
    room.report("W", *room.work("W"))
    room.state("W", RESTARTING)
    room.take("A")
    room.from_client("A", elsewhere)
    back = room.answers("A")
    assert len(back) == 3
    assert all(errors.is_refusal(slot) for slot in back.values())
    assert room.core.scheduler.queued_items == room.core.scheduler.queued_bytes == 0


def test_what_waits_stays_where_one_of_two_workers_is_lost(room):
    room.worker("V")
    room.submit("A", *range(1, 40), ready=True)
    room.lose("V", Side.WORKER)
    assert room.answers("A") == {}
    for _ in range(10):
        room.report("W", *room.work("W"))
    assert len(room.answers("A")) == 39


def test_what_waits_for_a_model_that_cannot_start_fails_for_good(room):
    room.submit("A", *range(1, 20), ready=True)
    room.state("W", BROKEN, "no weights")
    back = room.answers("A")
    assert back
    for slot in back.values():
        error = errors.from_wire(slot)
        assert isinstance(error, errors.NoWorker)
        assert error.final


def test_a_suspect_stays_where_it_is_known(room):
    room.submit("A", 1, 2, ready=True)
    tickets = room.work("W")
    room.report("W", begun=tickets)
    room.report("W", *tickets, outcome=[Fate.LOST, "", {"batch": 2}])
    room.state("W", RESTARTING)
    assert room.answers("A") == {}
    room.state("W", WARM)
    assert len(room.work("W")) == 1


def test_a_suspect_goes_to_another_broker_when_no_worker_is_left_here(room):
    room.submit("A", 1, 2, ready=True)
    tickets = room.work("W")
    room.report("W", begun=tickets)
    room.report("W", *tickets, outcome=[Fate.LOST, "", {"batch": 2}])
    room.lose("W", Side.WORKER)
    assert sorted(room.answers("A")) == [1, 2]
    scheduler = room.core.scheduler
    assert scheduler.queued_items == scheduler.queued_bytes == 0
    room.worker("V")
    assert room.work("V") == []


@pytest.mark.parametrize("reason", ["draining", "full", "unknown", "given up"])
def test_a_refusal_says_that_the_item_was_not_taken(reason):
    room = Room(max_bytes=1 if reason == "full" else 100)
    if reason != "unknown":
        room.worker("W", state=BROKEN if reason == "given up" else WARM)
    room.client("A")
    room.turn(5.0)
    if reason == "draining":
        room.core.drain()
    room.submit("A", 1)
    (wire,) = room.answers("A").values()
    assert errors.is_refusal(wire)
    assert not errors.is_refusal(errors.to_wire(errors.from_wire(wire)))


def test_a_lost_workers_backlog_leaves_the_estimate(room):
    room.worker("V")
    for name in ("V", "W"):
        room.report(name, beta=0.1, alpha=0.1, backlog=100 if name == "V" else 0)
    room.submit("A", *range(1, 20))
    room.submit("A", 20, budget=8.0)
    assert room.codes("A") == {20: Code.OVERLOADED}
    room.lose("V", Side.WORKER)
    room.submit("A", 21, budget=8.0)
    assert room.codes("A") == {}


def test_parts_of_a_fenced_outcome_are_freed(room):
    room.submit("A", 1)
    (ticket,) = room.work("W")
    room.report("W", ticket)
    for data in (bytes(PART), bytes(PART)):
        room.from_worker("W", protocol.part(7, data))
    assert room.core.workers[b"W"].receiver.bytes == 2 * PART
    room.report("W", ticket, outcome=7)
    assert room.core.counts["fenced"] == 1
    assert room.core.workers[b"W"].receiver.bytes == 0


def test_a_suspect_that_is_given_up_gives_its_bytes_back(room):
    room.submit("A", 1, 2, payload=b"12345")
    tickets = room.work("W")
    room.report("W", begun=tickets)
    room.state("W", RESTARTING)
    room.report("W", *tickets, outcome=[Fate.LOST, "", {"batch": 2}])
    scheduler = room.core.scheduler
    assert (scheduler.queued_items, scheduler.queued_bytes) == (2, 10)
    room.from_client("A", protocol.plain(protocol.Cancel([1])))
    assert (scheduler.queued_items, scheduler.queued_bytes) == (1, 5)
    room.from_client("A", protocol.plain(protocol.Cancel([2])))
    assert (scheduler.queued_items, scheduler.queued_bytes) == (0, 0)


def test_items_fail_at_once_where_every_worker_has_given_up(room):
    room.state("W", RESTARTING, "first")
    room.submit("A", 1)
    room.take("A")
    room.state("W", BROKEN, "ImportError: torch")
    told = room.take("A")
    assert [type(m) for m in told] == [protocol.Notice, protocol.Answer]
    assert told[0].error[2] == {"final": True}
    room.submit("A", 2)
    assert room.codes("A") == {2: Code.NO_WORKER}
    room.worker("V")
    room.submit("A", 3)
    assert len(room.work("V")) == 1


def test_a_worker_that_may_come_back_keeps_its_items_waiting_though_another_gave_up(room):
    room.worker("V", state=None)
    room.state("V", BROKEN, "ImportError")
    room.lose("V", Side.WORKER)
    room.submit("A", 1)
    room.lose("W", Side.WORKER)
    room.turn(1.0)
    assert room.codes("A") == {}


def test_caps_on_items_refuse_what_does_not_fit():
    room = Room(max_items=5, client_items=3)
    for name in "AB":
        room.client(name)
    room.submit("A", 1, 2, 3)
    room.submit("A", 4)
    assert room.codes("A") == {4: Code.OVERLOADED}
    room.submit("B", 1, 2, 3)
    assert room.codes("B") == {3: Code.OVERLOADED}


def test_a_run_with_a_lane_of_its_own_is_refused_whole():
    room = Room(max_items=5)
    room.client("A")
    room.submit("A", 1, 2, 3, lane=1)
    room.submit("A", 4, 5, 6, lane=4)
    assert room.codes("A") == dict.fromkeys((4, 5, 6), Code.OVERLOADED)


def test_caps_on_bytes_refuse():
    room = Room(max_bytes=1000, client_bytes=600, max_payload=600)
    for name in "AB":
        room.client(name)
    room.submit("A", 1, payload=bytes(500))
    room.submit("A", 2, payload=bytes(200))
    assert room.codes("A") == {2: Code.OVERLOADED}
    room.submit("B", 1, payload=bytes(550))
    assert room.codes("B") == {1: Code.OVERLOADED}
    room.submit("B", 2, payload=bytes(601))
    assert room.codes("B") == {2: Code.OVERLOADED}


def test_a_payload_beyond_the_limit_is_refused():
    room = Room(max_payload=600)
    room.client("A")
    room.submit("A", 1, payload=bytes(601))
    assert room.codes("A") == {1: Code.TOO_LARGE}


def test_as_many_bytes_as_the_queue_may_hold_are_taken_and_no_more():
    room = Room(max_bytes=1000)
    room.client("A")
    room.submit("A", 1, payload=bytes(1000))
    assert room.codes("A") == {}
    room.submit("A", 2, payload=b"x")
    (wire,) = room.answers("A").values()
    assert wire[0] == Code.OVERLOADED
    assert wire[2]["retry_after"] == 1.0


def test_a_client_with_too_much_open_is_told_when_to_come_back():
    room = Room(client_items=1)
    room.client("A")
    room.submit("A", 1)
    room.submit("A", 2)
    assert room.answers("A")[2][2]["retry_after"] == 1.0


def test_a_budget_without_end_beside_a_short_one_is_bounded(room):
    budgets = [1000, protocol.MAX_BUDGET + 5000]
    run = Run("default", 0, 0, 0, [1, 2], budgets, [b"", b""])
    room.from_client("A", protocol.submit(0, [run], []))
    [work] = [m for m in room.take("W") if isinstance(m, protocol.Work)]
    assert work.budgets == [1000, protocol.MAX_BUDGET]


def test_what_can_be_done_in_half_of_its_budget_is_taken(room):
    room.submit("A", *range(1, 101), budget=1000)
    for ticket in room.work("W"):
        room.report("W", ticket, beta=1.0, alpha=0.0)
    room.take("A")
    room.submit("A", 200, budget=1.0)
    wait = room.answers("A")[200][2]["retry_after"]
    room.submit("A", 201, budget=1.5 * wait)
    assert room.codes("A") == {}


def test_work_that_cannot_be_done_in_time_is_refused_with_a_time_to_come_back(room):
    room.submit("A", *range(1, 101), budget=1000)
    for ticket in room.work("W"):
        room.report("W", ticket, beta=1.0, alpha=0.0)
    room.take("A")
    room.submit("A", 200, budget=1.0)
    (wire,) = room.answers("A").values()
    assert wire[0] == Code.OVERLOADED
    assert wire[2]["retry_after"] > 1.0
    room.submit("A", 201, budget=1000.0)
    assert room.codes("A") == {}


def test_a_budget_that_ends_in_the_queue_is_not_run(room):
    room.submit("A", *range(1, 9))
    room.submit("A", 9, budget=0.5)
    tickets = room.work("W")
    room.turn(1.0)
    room.report("W", *tickets[:1])
    assert room.codes("A") == {9: Code.DEADLINE_EXCEEDED}
    assert room.work("W") == []


# Giving up


def test_a_queued_item_that_is_given_up_is_not_run(room):
    room.state("W", RESTARTING)
    room.submit("A", 1, 2)
    room.from_client("A", protocol.plain(protocol.Cancel([1, 999])))
    room.state("W", WARM)
    assert len(room.work("W")) == 1
    assert room.core.scheduler.queued_items == 0
    assert room.core.scheduler.queued_bytes == 0


def test_a_worker_is_told_of_an_item_that_is_given_up_and_gives_its_ticket_back(room):
    room.submit("A", 1)
    (ticket,) = room.work("W")
    room.from_client("A", protocol.plain(protocol.Cancel([1])))
    assert room.take("W") == [protocol.Cancel([ticket])]
    assert room.core.workers[b"W"].tickets
    room.report("W", ticket, outcome=[Fate.DROPPED, "cancelled", {}])
    assert not room.core.workers[b"W"].tickets
    assert room.answers("A") == {}


def test_what_has_begun_runs_on_and_its_output_is_dropped(room):
    room.submit("A", 1)
    (ticket,) = room.work("W")
    room.report("W", begun=[ticket])
    room.from_client("A", protocol.plain(protocol.Cancel([1])))
    assert room.take("W") == []
    room.report("W", ticket)
    assert room.answers("A") == {}
    assert not room.core.workers[b"W"].running


def test_an_item_given_up_on_its_way_to_a_worker_gives_its_window_back(room):
    for id in range(1, 9):
        for _ in range(6):
            room.from_client("A", protocol.part(id, bytes(MiB)))
        room.submit("A", id, payload=id)
    room.submit("A", 9)
    told = room.take("W")
    assert [type(m) for m in told] == [protocol.Part] * 4
    room.from_client("A", protocol.plain(protocol.Cancel(list(range(1, 9)))))
    told = room.take("W")
    assert [len(m.data) for m in told if isinstance(m, protocol.Part)] == [0]
    for _ in range(5):
        room.from_worker("W", protocol.plain(protocol.PartOk(1)))
    told += room.take("W")
    assert [t for m in told if isinstance(m, protocol.Work) for t in m.tickets] == [9]
    assert len(room.core.workers[b"W"].tickets) == 1


# A client's connection


def test_a_client_that_comes_back_in_time_loses_nothing(room):
    room.submit("A", *range(1, 12))  # 8 at the worker, 3 in the queue
    tickets = room.work("W")
    room.lose("A", Side.CLIENT)
    room.report("W", tickets[0])
    room.turn(1.0)
    welcome = room.client("A2", id=sum(b"A"), waits=list(range(1, 13)))
    assert welcome.resumed
    assert sorted(welcome.known) == list(range(1, 12))
    room.turn()
    room.report("W", *tickets[1:])
    assert set(room.answers("A2")) == set(range(2, 9))
    assert len(room.work("W")) == 3


def test_answers_that_were_not_acknowledged_are_sent_again_and_others_are_not(room):
    room.submit("A", 1, 2)
    tickets = room.work("W")
    room.report("W", tickets[0], outcome=b"one")
    room.report("W", tickets[1], outcome=b"two")
    room.from_client("A", protocol.plain(protocol.Ack(1)))
    room.lose("A", Side.CLIENT)
    hello = protocol.Hello(Role.CLIENT, sum(b"A"), {"open": [2]})
    room.from_client("A2", protocol.hello(hello))
    welcome, answer = room.take("A2")
    assert welcome.known == [2]
    assert answer == protocol.Answer([2], [b"two"])


def test_what_a_client_that_comes_back_does_not_wait_for_is_dropped(room):
    room.submit("A", *range(1, 10))
    tickets = room.work("W")
    room.report("W", tickets[0])
    room.lose("A", Side.CLIENT)
    assert room.client("A2", id=sum(b"A"), waits=[2]).known == [2]
    room.turn()
    assert room.core.clients[sum(b"A")].unread == 0
    assert room.take("W")[1:] == [protocol.Cancel([*tickets[2:], 9])]


def test_a_client_that_stays_away_is_forgotten(room):
    room.submit("A", *range(1, 10))
    tickets = room.work("W")
    room.lose("A", Side.CLIENT)
    room.turn(2.0 + 2 * TICK)
    assert room.take("W") == [protocol.Cancel(tickets)]
    assert room.core.scheduler.queued_items == 0
    welcome = room.client("A2", id=sum(b"A"), waits=[1])
    assert (welcome.resumed, welcome.known) == (False, [])


def test_a_client_that_reads_nothing_is_reset_and_nobody_else():
    room = Room(unread_bytes=1000)
    room.worker("W")
    room.client("A")
    room.client("B")
    room.submit("A", *range(1, 5))
    room.submit("B", 1)
    for ticket in room.work("W"):
        room.report("W", ticket, outcome=bytes(400))
    room.turn(2 * TICK)
    assert refusals(room, "A") == [Code.OVERLOADED]
    assert room.answers("B") == {1: bytes(400)}
    assert set(room.core.sessions.connected) == {b"B"}
    assert room.core.counts["resets"] == 1


def test_a_client_that_acknowledges_may_have_any_amount_of_answers():
    room = Room(unread_bytes=1000)
    room.worker("W")
    room.client("A")
    for id in range(1, 20):
        room.submit("A", id, ack=id - 1)
        room.report("W", *room.work("W"), outcome=bytes(400))
        room.turn(TICK)
    assert room.core.counts["resets"] == 0


# A worker's connection, and its model's death


def test_a_lost_worker_gives_its_items_back_and_its_late_outcomes_are_refused(room):
    room.worker("V")
    room.submit("A", 1, 2)
    before = {name: room.work(name) for name in "WV"}
    name = "W" if before["W"] else "V"
    other = "V" if name == "W" else "W"
    room.report(name, begun=before[name][:1])
    room.lose(name, Side.WORKER)
    again = room.work(other)
    assert len(again) + len(before[other]) == 2
    assert not set(again) & set(before[name])
    room.report(name, *before[name], outcome=b"late")
    assert refusals(room, name) == [Code.BAD_REQUEST]
    room.report(other, *again, *before[other])
    assert room.answers("A") == {1: b"out", 2: b"out"}


def test_a_ticket_of_an_earlier_session_is_fenced(room):
    room.submit("A", 1)
    (ticket,) = room.work("W")
    room.lose("W", Side.WORKER)
    room.worker("W")
    (again,) = room.work("W")
    room.report("W", ticket, outcome=b"late")
    assert room.answers("A") == {}
    assert room.core.counts["fenced"] == 1
    room.report("W", again)
    assert room.answers("A") == {1: b"out"}


def test_items_that_come_back_go_before_those_that_have_not_been_out(room):
    room.submit("A", *range(1, 11))
    room.work("W")
    room.lose("W", Side.WORKER)
    room.worker("V", batch_size=5)
    tickets = room.work("V")
    room.report("V", *tickets)
    assert list(room.answers("A")) == list(range(1, 11))


def test_what_may_run_only_once_is_lost_with_its_worker(room):
    room.submit("A", 1, once=True)
    room.submit("A", 2)
    room.lose("W", Side.WORKER)
    assert room.codes("A") == {1: Code.WORKER_LOST}
    room.worker("V")
    assert len(room.work("V")) == 1


def test_what_may_run_only_once_runs_elsewhere_while_it_has_not_begun(room):
    room.submit("A", 1, once=True)
    work = room.take("W")[0]
    assert work.flags == Flag.ONCE
    room.report("W", *work.tickets, outcome=[Fate.RETURNED, "the model is not ready", {}])
    assert len(room.work("W")) == 1
    assert room.codes("A") == {}


def test_what_may_run_only_once_has_run_although_its_model_died_before_the_answer_was_out(room):
    """Its batch was over and the next one had begun, so the worker gives it back."""
    room.submit("A", 1, once=True)
    (ticket,) = room.work("W")
    room.report("W", begun=[ticket])
    room.report("W", ticket, outcome=[Fate.RETURNED, "was killed", {}])
    assert room.work("W") == []
    assert room.codes("A") == {1: Code.WORKER_LOST}


def test_one_item_that_is_too_large_takes_no_others_with_it():
    room = Room(max_payload=1000)
    room.worker("W")
    room.client("A")
    run = Run("default", 0, 0, 0, [1, 2], [9000, 9000], [b"in", bytes(1001)])
    room.from_client("A", protocol.submit(0, [run], []))
    assert room.codes("A") == {2: Code.TOO_LARGE}
    assert len(room.work("W")) == 1


def test_whoever_sends_parts_beyond_all_limits_is_cut_off(room):
    config = room.core.config
    for transfer in range((config.window_bytes + config.max_payload) // PART + 2):
        room.from_client("A", protocol.part(transfer, bytes(PART)))
    assert isinstance(room.take("A")[-1], protocol.Refuse)
    assert room.core.clients[sum(b"A")].receiver.bytes == 0


def test_suspects_are_not_kept_waiting_by_ordinary_items(room):
    room.submit("A", *range(1, 5))
    room.report("W", begun=(tickets := room.work("W")))
    room.report("W", *tickets, outcome=LOST)
    room.report("W", *room.work("W"))  # the first half is cleared; the others wait
    room.submit("A", *range(10, 200))
    done = 0
    held = room.work("W")
    while room.core.scheduler.models["default"].suspects or room.core.models["default"].inquest:
        room.report("W", held.pop(0))  # one at a time, so that the window is never empty
        held += room.work("W")
        done += 1
        assert done < 50


LOST = [Fate.LOST, "was killed by SIGKILL", {}]


def _hang(room, *others):
    """Items 1 to 4 hang the model of W while the others wait there; it is started again."""
    room.submit("A", 1, 2, 3, 4, *others)
    tickets = room.work("W")
    room.report("W", begun=tickets[:4])
    room.state("W", RESTARTING)
    returned = [Fate.RETURNED, "was hung", {}]
    slots = [LOST] * 4 + [returned] * len(others)
    room.from_worker("W", protocol.report(protocol.Report([], tickets, slots, 0, 0, 0), []))
    room.state("W", WARM)


def _works(room, name):
    """Return the items of each WORK and whether they are to run alone."""
    works = [m for m in room.take(name) if isinstance(m, protocol.Work)]
    return [([_id_of(room, name, t) for t in m.tickets], bool(m.flags & Flag.ALONE)) for m in works]


def test_who_waited_behind_a_batch_that_hung_is_run_before_suspects_that_may_hang_again(room):
    _hang(room, 5, 6, 7, 8)
    assert _works(room, "W") == [([5, 6, 7, 8], False)]
    room.submit("A", 9)  # the suspects are next
    assert _works(room, "W") == []
    first = sorted(room.core.workers[b"W"].tickets)
    room.report("W", *first[:2], begun=first)
    assert _works(room, "W") == [([1, 2], True)]
    room.report("W", *first[2:])
    assert _works(room, "W") == []  # 9 does not wait behind suspects


def test_after_each_hang_others_have_a_turn_and_suspects_have_theirs_under_any_load(room):
    _hang(room, *range(5, 9))
    room.submit("A", *range(10, 500))
    alone = []
    for _ in range(60):
        worker = room.core.workers[b"W"]
        for ids, apart in _works(room, "W"):
            if apart:
                alone.append(ids)
        group = sorted(room.core.models["default"].inquest)
        if group and 1 in alone[-1]:  # it hangs, every time
            returned = sorted(worker.tickets.keys() - set(group))
            assert not returned, "others wait behind suspects"
            room.report("W", begun=group)
            room.report("W", *group, outcome=LOST)
        else:
            tickets = sorted(worker.tickets)[:4]
            room.report("W", begun=tickets)
            room.report("W", *tickets)
        if not room.core.models["default"].suspects and not group:
            break
    assert alone == [[1, 2], [3, 4], [1], [2], [1]]


def _state_of(room):
    model = room.core.snapshot(room.now)["models"]["default"]
    (worker,) = [each for each in model["workers"] if each["id"] == sum(b"W")]
    return model["ready"], worker["state"], round(worker["batch_age"], 1)


@pytest.mark.parametrize(("usual", "bound"), [(0.0, FIRST_LATE), (0.05, LATE), (2.0, 6.0)])
def test_a_worker_whose_batch_takes_suspiciously_long_is_not_ready_and_gets_nothing_new(
    room, usual, bound
):
    def pass_time(seconds):
        for _ in range(round(seconds / 0.5)):
            room.turn(0.5)
            room.from_worker("W", protocol.plain(protocol.Ping()))

    room.submit("A", 1)
    room.report("W", *room.work("W"), beta=usual)
    room.submit("A", 2, budget=100)
    room.report("W", begun=(tickets := room.work("W")), beta=usual)
    pass_time(bound)
    assert _state_of(room)[1:] == ("warm", bound)
    assert room.core.models["default"].ready
    pass_time(0.5 + TICK)
    ready, state, age = _state_of(room)
    assert (ready, state) == (False, "late")
    assert "a batch has run for" in room.core.snapshot(room.now)["models"]["default"]["trouble"]
    assert age > bound
    room.submit("A", 3, budget=100)
    assert room.work("W") == []
    room.report("W", *tickets, beta=usual)
    assert _state_of(room) == (True, "warm", 0.0)
    assert len(room.work("W")) == 1


def test_a_probe_is_told_soon_of_a_batch_that_hangs_and_of_a_worker_that_is_silent(room):
    def ready():
        return room.core.models["default"].answers(room.now)

    room.submit("A", 1)
    room.report("W", *room.work("W"), beta=0.05)
    room.submit("A", 2, budget=100)
    assert ready()
    room.report("W", begun=(tickets := room.work("W")), beta=0.05)
    for _ in range(3):
        room.turn(0.5)
        room.from_worker("W", protocol.plain(protocol.Ping()))
    assert not ready()
    assert _state_of(room)[:2] == (False, "warm")  # it may still be given items
    room.report("W", *tickets, beta=0.05)
    assert ready()
    room.turn(1.8)
    assert not ready()
    room.from_worker("W", protocol.plain(protocol.Ping()))
    assert ready()


def test_a_pause_of_the_broker_makes_no_worker_late(room):
    room.submit("A", 1, budget=100)
    room.report("W", begun=room.work("W"))
    room.core.on_pause(20.0)
    room.now += 20.0
    room.turn()
    assert _state_of(room)[:2] == (True, "warm")


def test_others_go_to_other_workers_while_one_runs_suspects(room):
    _hang(room)
    assert _works(room, "W") == [([1, 2], True)]
    room.worker("V")
    room.submit("A", *range(10, 14))
    assert _works(room, "W") == []
    assert _works(room, "V") == [([10, 11, 12, 13], False)]


def test_a_death_in_company_makes_suspects_that_run_apart_one_group_at_a_time(room):
    room.worker("V")
    room.submit("A", *range(1, 5))
    for name in "VW":
        room.report(name, begun=(tickets := room.work(name)))
        if tickets:
            room.report(name, *tickets, outcome=LOST)
    works = [m for name in "VW" for m in room.take(name) if isinstance(m, protocol.Work)]
    alone = [work for work in works if work.flags & Flag.ALONE]
    assert len(alone) == 1


def test_only_the_item_that_kills_is_lost_and_only_after_two_deaths_alone(room):
    """Item 3 of 4 kills whatever runs it."""
    room.submit("A", *range(1, 5))
    tags = {ticket: id for id, ticket in enumerate(room.work("W"), 1)}
    room.report("W", begun=list(tags))
    room.report("W", *tags, outcome=LOST)
    deaths_alone = 0
    answers: dict[int, Any] = {}
    groups = []
    for _ in range(20):
        works = [m for m in room.take("W") if isinstance(m, protocol.Work)]
        if not works:
            break
        (work,) = works
        assert work.flags & Flag.ALONE
        groups.append(len(work.tickets))
        ids = [_id_of(room, "W", ticket) for ticket in work.tickets]
        kills = 3 in ids
        deaths_alone += kills and len(ids) == 1
        room.report("W", *work.tickets, outcome=LOST if kills else b"out")
        answers |= room.answers("A")
    assert deaths_alone == 2
    assert groups == [2, 2, 1, 1, 1]
    assert {id: slot for id, slot in answers.items() if slot == b"out"}.keys() == {1, 2, 4}
    assert answers[3][0] == Code.WORKER_LOST
    assert answers[3][1].endswith("ran this item alone; the last time it was killed by SIGKILL")


def _id_of(room, worker, ticket):
    lot = room.core.workers[worker.encode()].tickets[ticket]
    return lot.ids[ticket - lot.ticket]


def test_an_item_whose_mates_were_given_up_is_not_charged_as_if_it_had_been_alone(room):
    room.submit("A", 1, 2)
    tickets = room.work("W")
    room.report("W", begun=tickets)
    room.from_client("A", protocol.plain(protocol.Cancel([2])))
    room.report("W", *tickets, outcome=LOST)
    item = room.core.clients[sum(b"A")].items[1]
    assert (item.deaths, item.suspect) == (0, True)


def test_an_item_that_may_run_only_once_is_lost_and_its_mate_is_not_charged(room):
    room.submit("A", 1)
    room.submit("A", 2, once=True)
    tickets = room.work("W")
    room.report("W", begun=tickets)
    room.report("W", *tickets, outcome=LOST)
    item = room.core.clients[sum(b"A")].items[1]
    assert room.codes("A") == {2: Code.WORKER_LOST}
    assert (item.deaths, item.suspect) == (0, True)


def test_items_that_had_not_begun_are_no_suspects(room):
    room.submit("A", 1, 2)
    tickets = room.work("W")
    room.report("W", begun=tickets[:1])
    returned = [Fate.RETURNED, "was killed", {}]
    message = protocol.Report([], tickets, [LOST, returned], 0, 0, 0)
    room.from_worker("W", protocol.report(message, []))
    items = room.core.clients[sum(b"A")].items
    assert (items[1].suspect, items[2].suspect) == (True, False)


def test_a_suspect_whose_budget_has_ended_is_not_run(room):
    room.submit("A", 1, 2, budget=1.0)
    tickets = room.work("W")
    room.report("W", begun=tickets)
    room.state("W", RESTARTING)
    room.report("W", *tickets, outcome=LOST)
    room.turn(2.0)
    room.state("W", WARM)
    assert room.work("W") == []
    assert room.codes("A") == dict.fromkeys((1, 2), Code.DEADLINE_EXCEEDED)
    assert room.core.scheduler.queued_items == 0


def test_an_item_that_takes_worker_after_worker_with_it_does_not_go_round_for_ever(room):
    room.submit("A", 1)
    name = "W"
    for turn in range(4):
        assert room.codes("A") == {}
        tickets = room.work(name)
        assert len(tickets) == 1
        room.report(name, begun=tickets)
        room.lose(name, Side.WORKER)
        name = f"V{turn}"
        room.worker(name)
    assert room.work(name) == []
    assert room.core.counts["answered"] == 1


def test_a_group_of_suspects_larger_than_any_window_that_is_left_runs_in_smaller_ones(room):
    room.lose("W", Side.WORKER)
    room.worker("large", batch_size=32)
    room.submit("A", *range(1, 33))
    tickets = room.work("large")
    room.report("large", begun=tickets)
    room.worker("small", batch_size=1)
    room.state("large", RESTARTING)
    room.report("large", *tickets, outcome=LOST)
    for _ in range(40):
        room.report("small", *room.work("small"))
    assert set(room.answers("A")) == set(range(1, 33))


# Draining


def test_a_draining_worker_is_told_when_nothing_more_will_come(room):
    room.submit("A", 1)
    room.work("W")
    room.state("W", DRAINING)
    assert room.take("W") == [protocol.State(DRAINING, "")]
    room.submit("A", 2)
    assert room.work("W") == []


def test_a_draining_broker_takes_nothing_new_and_ends_when_all_is_answered_and_read(room):
    room.submit("A", 1)
    room.core.drain()
    room.turn()
    assert room.take("A") == [protocol.Notice("", to_wire(_draining()))]
    room.submit("A", 2)
    assert room.codes("A") == {2: Code.OVERLOADED}
    assert not room.core.idle
    room.report("W", *room.work("W"))
    assert not room.core.idle
    room.from_client("A", protocol.plain(protocol.Ack(2)))
    assert room.core.idle


def test_who_comes_to_a_broker_that_drains_knows_it_before_it_may_send(room):
    room.core.drain()
    room.from_client("B", protocol.hello(protocol.Hello(Role.CLIENT, 5, {})))
    notice, welcome = room.take("B")
    assert notice == protocol.Notice("", to_wire(_draining()))
    assert isinstance(welcome, protocol.Welcome)


def _draining():
    return errors.Overloaded("the broker is shutting down", retry_after=1.0)


# What people are told


def test_the_counts_say_what_has_happened(room):
    room.submit("A", 1, 2, 3)
    one, two, three = room.work("W")
    room.from_client("A", protocol.plain(protocol.Cancel([1, 2])))
    room.report("W", begun=[one, two, three])
    room.report("W", one, outcome=b"late")
    room.report("W", two, outcome=[Fate.RETURNED, "", {}])
    room.report("W", three)
    counts = room.core.counts
    assert (counts["items"], counts["answered"], counts["unwanted"]) == (3, 1, 2)


def test_how_often_a_workers_model_has_failed_is_counted(room):
    room.state("W", RESTARTING, "no weights")
    room.state("W", RESTARTING, "no weights")
    assert room.core.workers[b"W"].failures == 2


def test_peers_that_have_been_served_are_not_looked_at_again(room):
    room.submit("A", 1)
    room.report("W", *room.work("W"))
    assert not room.core.scheduler.dirty


def test_a_worker_that_has_nothing_left_is_free_from_then_on(room):
    room.submit("A", 1, 2)
    one, two = room.work("W")
    room.report("W", begun=[one, two], beta=50.0)
    expected = room.core.workers[b"W"].free_at
    assert expected > room.now
    room.report("W", one, beta=50.0)
    assert room.core.workers[b"W"].free_at == expected
    room.report("W", two, beta=50.0)
    assert room.core.workers[b"W"].free_at == room.now
