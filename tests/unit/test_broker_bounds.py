"""Nobody's bytes stop or blind the broker: what a peer may say, ask for and leave behind."""

from __future__ import annotations

import json
from typing import Any

import msgpack
import pytest

from tests.unit.test_broker_core import Room
from zstreamer.broker import models, patience, snapshot
from zstreamer.broker.introduction import MAX_BATCH
from zstreamer.broker.sessions import Side
from zstreamer.errors import Code
from zstreamer.setting import WINDOW
from zstreamer.wire import protocol
from zstreamer.wire.protocol import MAX_OPEN, Role, Run, WorkerState

MiB = 2**20


@pytest.fixture
def room():
    return Room()


def nested(depth, inner=None):
    for _ in range(depth):
        inner = [inner]
    return inner


def status(room, name="S", ask=None):
    """All pages of the snapshot as one, and how many they were."""
    models, pages, ask = {}, 0, ask or {}
    while ask is not None:
        room.from_client(name, protocol.plain(protocol.Status(ask)))
        [page] = room.take(name)
        assert isinstance(page, protocol.Status), page
        listed: Any = page.info["models"]
        for each, model in listed.items():
            models.setdefault(each, {"workers": []})["workers"] += model["workers"]
        following = page.info.get("next")
        ask = None if following is None else {"from": following}
        pages += 1
    return models, pages


def whole(room):
    """The snapshot, which both msgpack and JSON must hold."""
    found = room.core.snapshot(room.now)
    msgpack.packb(found)
    return json.loads(json.dumps(found, allow_nan=False))


# Errors


def test_an_error_of_any_depth_and_size_reaches_its_caller_and_harms_nobody(room):
    room.worker("W")
    room.client("A")
    room.submit("A", 1, 2)
    tickets = room.work("W")
    deep = [500, "x" * 100_000, {"type": "E", "deep": nested(700), "much": "y" * 100_000}]
    report = protocol.Report([], tickets, [deep, b"good"], 0, 0, 0)
    room.from_worker("W", protocol.report(report, []))
    answers = room.answers("A")
    assert answers[2] == b"good"
    code, text, details = answers[1]
    assert code == 500
    assert len(text) < 20_000
    assert details.keys() == {"type", "much", "deep"}
    assert details["deep"] == []
    assert len(details["much"]) < 40_000


def test_what_cannot_be_made_for_one_peer_costs_that_peer_alone(room, monkeypatch):
    room.worker("W")
    room.client("A")
    room.client("B")
    room.submit("A", 1)
    room.submit("B", 2)
    tickets = room.work("W")

    def fail():
        raise ValueError("recursion limit exceeded")

    monkeypatch.setattr(room.core.clients[sum(b"A")], "flush", fail)
    room.report("W", *tickets)
    assert room.answers("B") == {2: b"out"}
    assert isinstance(room.take("A")[-1], protocol.Refuse)
    assert [str(each) for each in room.core.troubles] == ["recursion limit exceeded"]
    assert room.core.counts["failures"] == 1
    assert room.client("A").resumed is False


def test_a_worker_whose_work_cannot_be_made_loses_it_to_another(room, monkeypatch):
    room.worker("W")
    room.client("A")

    def fail(now):
        raise ValueError

    monkeypatch.setattr(room.core.workers[b"W"].outbox, "flush", fail)
    room.submit("A", 1)
    room.worker("V")
    assert len(room.work("V")) == 1


@pytest.mark.parametrize("role", [Role.CLIENT, Role.WORKER])
def test_a_refusal_does_not_repeat_what_was_sent(room, role):
    say = room.from_client if role is Role.CLIENT else room.from_worker
    for number, head in enumerate(
        [
            [1, "ZSP", 1, int(role), "secret" * 10_000, {}],
            [1, "ZSP", 1, 2, 7, {"model": "secret" * 10_000}],
            ["secret" * 10_000],
            [3, [400, "secret" * 1000, {}]],
            [99, "secret" * 1000],
        ]
    ):
        name = f"X{number}"
        say(name, [msgpack.packb(head)])
        [refusal] = room.take(name)
        assert isinstance(refusal, protocol.Refuse)
        assert len(msgpack.packb(refusal.error)) < 1000
        assert "secret" not in str(refusal.error)


def test_an_error_that_names_the_models_names_some_of_many(room):
    for number in range(300):
        room.worker(f"W{number}", model=f"{number}-" + 250 * "m", id=number + 1)
    room.turn(5)
    room.client("A")
    room.submit("A", 1, model="other")
    [error] = room.answers("A").values()
    assert error[0] == Code.MODEL_NOT_FOUND
    assert len(error[2]["models"]) == 100
    assert len(msgpack.packb(error)) < 60_000


# Sessions that go on erring and asking


@pytest.mark.parametrize("side", Side)
def test_a_session_that_was_refused_again_and_again_is_told_nothing_more(room, side):
    say = room.from_client if side is Side.CLIENT else room.from_worker
    for _ in range(patience.MAX_FAULTS):
        say("X", [b"\xc1"])
    assert len(room.take("X")) == patience.MAX_FAULTS
    assert b"X" in room.core.sessions.deaf(side)
    room.turn(patience.DEAF + 1)
    assert not room.core.sessions.deaf(side)


def test_a_session_that_was_refused_a_few_times_is_as_good_as_before(room):
    room.client("A")
    for _ in range(patience.MAX_FAULTS // 2):
        room.from_client("A", [b"\xc1"])
    room.take("A")
    room.turn(patience.DEAF + 1)
    for _ in range(patience.MAX_FAULTS - 1):
        room.from_client("A", [b"\xc1"])
    assert not room.core.sessions.deaf(Side.CLIENT)


def test_as_much_is_known_of_sessions_as_can_be_kept(room):
    for number in range(patience.MAX_SESSIONS + 100):
        room.core.on_client(room.now, str(number).encode(), [b"\xc1"])
    room.turn()
    assert len(room.core.sessions.patience[Side.CLIENT]._faults) == patience.MAX_SESSIONS


def test_a_session_that_says_hello_for_ever_is_not_heard_any_more(room):
    number = 0
    while b"W" not in room.core.sessions.deaf(Side.WORKER):
        number += 1
        hello = protocol.Hello(
            Role.WORKER, number + 1, {"model": f"m{number}", "batch_size": 1, "pool": 0}
        )
        room.core.on_worker(room.now, b"W", protocol.hello(hello))
    assert len(room.core.models) == number - 1 == patience.MAX_FAULTS


def test_status_is_answered_as_fast_as_it_can_be_read_and_no_faster(room):
    room.worker("W")
    asked = 0
    while b"S" not in room.core.sessions.deaf(Side.CLIENT):
        room.core.on_client(room.now, b"S", protocol.plain(protocol.Status({})))
        asked += 1
    assert asked > 1000
    room.turn()
    told = [m for m in room.take("S") if isinstance(m, protocol.Status)]
    assert len(told) * len(protocol.plain(told[0])[0]) <= patience.BURST
    assert status(room, "T")[0]


def test_status_may_be_asked_for_again_after_a_moment(room):
    limit, now = room.core.sessions.patience[Side.CLIENT], room.now
    page = 256 * 1024
    while limit.ask(now, b"S", page):
        pass
    room.turn(1.0)  # 4 MiB have been read meanwhile
    assert [limit.ask(now + 1.0, b"S", page) for _ in range(17)] == [True] * 16 + [False]
    assert limit._asked
    room.turn(60.0)
    assert not limit._asked


# What is not read


def test_notices_that_are_not_read_count_as_unread(room):
    room = Room(unread_bytes=100_000)
    room.client("A")
    for number in range(1500):
        notice = protocol.Notice(f"m{number % 7}", [])
        room.core.on_client(room.now, b"A", protocol.plain(notice))
    room.turn(1)
    assert isinstance(room.take("A")[-1], protocol.Refuse)
    assert room.core.counts["resets"] == 1


def test_a_session_that_talks_and_brings_nothing_forward_is_cut_off(room):
    room.client("A")
    room.worker("W")
    for _ in range(patience.MAX_WORDS + 10):
        room.core.on_client(room.now, b"A", protocol.plain(protocol.Ping()))
        room.core.on_worker(room.now, b"W", protocol.plain(protocol.Ping()))
    assert b"A" in room.core.sessions.deaf(Side.CLIENT)
    assert b"W" in room.core.sessions.deaf(Side.WORKER)
    room.turn()
    assert isinstance(room.take("A")[-1], protocol.Refuse)


def test_a_worker_may_talk_for_ever_at_the_pace_that_is_read(room):
    room.worker("W")
    for _ in range(4 * patience.MAX_WORDS // 100):
        for _ in range(100):
            room.core.on_worker(room.now, b"W", protocol.plain(protocol.Ping()))
        room.turn(0.25)
    assert not room.core.sessions.deaf(Side.WORKER)


@pytest.mark.parametrize("side", Side)
def test_a_session_that_talks_too_fast_for_long_is_cut_off(room, side):
    room.client("A")
    room.worker("W")
    on, session = (
        (room.core.on_client, b"A") if side is Side.CLIENT else (room.core.on_worker, b"W")
    )
    for _ in range(100):
        for _ in range(200):
            on(room.now, session, protocol.plain(protocol.Ping()))
        room.turn(0.25)
    assert session in room.core.sessions.deaf(side)


def test_a_session_that_brings_items_may_talk_as_much_as_they_need(room):
    room.client("A")
    for id in range(2 * patience.MAX_WORDS):
        run = Run("default", 0, 0, 0, [id], [100_000], [b""])
        room.core.on_client(room.now, b"A", protocol.submit(0, [run], []))
    for id in range(2 * patience.MAX_WORDS):
        room.core.on_client(room.now, b"A", protocol.plain(protocol.Cancel([id])))
    assert not room.core.sessions.deaf(Side.CLIENT)


def test_what_came_before_an_answer_that_was_read_was_read_too(room):
    room.worker("W")
    room.client("A")
    room.from_client("A", protocol.plain(protocol.Notice("default", [])))
    client = room.core.clients[sum(b"A")]
    assert client.told > 0
    room.submit("A", 1)
    room.report("W", *room.work("W"))
    room.from_client("A", protocol.plain(protocol.Ack(1)))
    assert (client.unread, client.told) == (0, 0)
    room.core.drain()
    assert room.core.idle


def test_a_worker_that_asks_and_does_not_read_is_reset(room):
    room = Room(unread_bytes=10_000)
    room.worker("W")
    room.client("A")
    room.submit("A", 1)
    for _ in range(500):
        room.core.on_worker(
            room.now, b"W", protocol.plain(protocol.State(WorkerState.DRAINING, ""))
        )
    room.turn(1)
    assert isinstance(room.take("W")[-1], protocol.Refuse)
    assert room.core.counts["resets"] == 1


# What is left behind


def test_words_of_workers_do_not_make_the_snapshot_larger_than_anyone_takes(room):
    for number in range(40):
        room.worker(f"W{number}", model=f"m{number}", id=number + 1, state=None)
        room.state(f"W{number}", WorkerState.BROKEN, "\u4e2d" * 80_000)
    models, pages = status(room)
    assert len(models) == 40
    assert pages > 1
    assert len(json.dumps(whole(room))) < 4 * MiB


def test_the_snapshot_of_many_workers_comes_in_pages(room):
    for number in range(2000):
        room.worker(f"W{number}", model=f"m{number % 3}", id=number + 1)
    models, pages = status(room)
    assert pages > 1
    assert sorted(w["id"] for m in models.values() for w in m["workers"]) == list(range(1, 2001))


def test_long_names_of_hosts_make_more_pages_and_not_larger_ones(room):
    info = {"model": "m", "batch_size": 1, "pool": 0, "host": "\u4e2d" * 255, "device": "d" * 255}
    for number in range(1, 501):
        hello = protocol.Hello(Role.WORKER, number, info)
        room.from_worker(f"W{number}", protocol.hello(hello))
    ask: dict[str, object] = {}
    sizes = []
    while ask is not None:
        room.from_client("S", protocol.plain(protocol.Status(ask)))
        [page] = room.take("S")
        sizes.append(len(msgpack.packb(page.info)))
        following = page.info.get("next")
        ask = None if following is None else {"from": following}
    assert len(sizes) > 2
    assert max(sizes) < snapshot.PAGE


def test_a_page_is_asked_for_with_anything_and_begins_at_the_beginning(room):
    room.worker("W")
    for odd in (7, "x", [], ["a"], ["a", "b"], [1, 2], {"a": 1}, None):
        assert status(room, ask={"from": odd})[0].keys() == {"default"}


def test_of_info_only_what_is_used_is_kept(room):
    odd = {
        "model": "m",
        "batch_size": 1,
        "pool": 0,
        "host": "h" * 100_000,
        "pid": "one",
        "number": float("nan"),
        "device": b"0",
        "inputs": [{"name": "a" * 300, "datatype": "FP32", "shape": []}],
        "outputs": [{"name": "a", "datatype": "FP32", "shape": [1], "text": True}],
        "more": ["x"] * 1000,
    }
    room.from_worker("W", protocol.hello(protocol.Hello(Role.WORKER, 5, odd)))
    room.from_client(
        "A", protocol.hello(protocol.Hello(Role.CLIENT, 5, {"open": [], "pid": 7, "x": 1}))
    )
    room.state("W", WorkerState.WARM)
    assert room.core.workers[b"W"].info.keys() == {"outputs"}
    assert room.core.clients[5].info == {"pid": 7}
    assert whole(room)["models"]["m"]["outputs"] == odd["outputs"]


def test_a_backlog_and_a_speed_beyond_all_measure_break_no_snapshot(room):
    room.worker("W")
    report = protocol.Report([], [], [], 2**64 - 1, 2**64 - 1, 2**64 - 1)
    room.from_worker("W", protocol.report(report, []))
    assert status(room)[0]
    assert whole(room)["models"]["default"]["workers"][0]["waiting"] == 10**9
    room.from_worker("W", protocol.report(report._replace(backlog=0), []))
    assert whole(room)["models"]["default"]["workers"][0]["waiting"] == 0


def test_a_model_whose_workers_are_gone_is_forgotten_after_a_while(room):
    room.worker("W", model="old")
    room.lose("W", Side.WORKER)
    room.turn(models.FORGET - 10)
    assert "old" in whole(room)["models"]
    room.turn(20)
    assert whole(room)["models"] == {}
    room.worker("W", model="old")
    assert "old" in whole(room)["models"]


def test_a_model_with_items_is_not_forgotten(room):
    room.worker("W", model="old")
    room.client("A")
    room.lose("W", Side.WORKER)
    room.submit("A", 1, model="old", budget=10_000)
    room.turn(models.FORGET + 10)
    room.worker("W", model="old")
    assert len(room.work("W")) == 1


def test_there_are_so_many_models_and_of_those_without_workers_fewer(room):
    for number in range(models.MAX_MODELS + 50):
        name = f"W{number}"
        info = {"model": f"m{number}", "batch_size": 1, "pool": 0}
        room.core.on_worker(
            room.now, name.encode(), protocol.hello(protocol.Hello(Role.WORKER, number + 1, info))
        )
    assert len(room.core.models) == models.MAX_MODELS
    room.turn()
    assert isinstance(room.take(f"W{models.MAX_MODELS + 1}")[-1], protocol.Refuse)
    for number in range(models.MAX_MODELS):
        room.core.on_gone(room.now, Side.WORKER, f"W{number}".encode())
    room.turn(1)
    assert len(room.core.models) == models.MAX_IDLE
    room.worker("W", model="one more")


def test_a_client_cannot_name_more_models_into_being_than_there_may_be(room):
    room.client("A")
    for number in range(models.MAX_MODELS + 10):
        run = Run(f"m{number}", 0, 0, 0, [number], [1000], [b""])
        room.core.on_client(room.now, b"A", protocol.submit(0, [run], []))
    assert len(room.core.models) == models.MAX_MODELS


# Workers that hold on


def test_a_worker_that_says_ping_and_never_answers_loses_its_tickets(room):
    room.worker("W")
    room.client("A")
    room.submit("A", 1, budget=1000)
    assert len(room.work("W")) == 1
    room.worker("V")
    for _ in range(65):
        room.from_worker("W", protocol.plain(protocol.Ping()))
        room.from_worker("V", protocol.plain(protocol.Ping()))
        room.turn(1)
    assert isinstance(room.take("W")[-1], protocol.Refuse)
    assert len(room.work("V")) == 1
    assert room.core.counts["stuck"] == 1


@pytest.mark.parametrize("patient", [True, False])
def test_a_worker_has_as_long_as_it_says_and_as_its_speed_lets_expect(room, patient):
    info = {"model": "default", "batch_size": 4, "pool": 0, "patience": 300 if patient else 1}
    room.from_worker("W", protocol.hello(protocol.Hello(Role.WORKER, 9, info)))
    room.state("W", WorkerState.WARM)
    room.report("W", beta=0 if patient else 30.0)
    room.client("A")
    room.submit("A", 1, budget=1000)
    for _ in range(290):
        room.from_worker("W", protocol.plain(protocol.Ping()))
        room.turn(1)
    assert room.core.counts["stuck"] == 0
    for _ in range(20):
        room.from_worker("W", protocol.plain(protocol.Ping()))
        room.turn(1)
    assert room.core.counts["stuck"] == 1


def test_a_worker_that_works_slowly_but_on_keeps_what_it_has(room):
    room.worker("W", batch_size=8)
    room.client("A")
    room.submit("A", *range(1, 9), budget=10_000)
    tickets = room.work("W")
    for ticket in tickets:
        for _ in range(50):
            room.from_worker("W", protocol.plain(protocol.Ping()))
            room.turn(1)
        room.report("W", ticket)
    assert len(room.answers("A")) == 8
    assert room.core.counts["stuck"] == 0


def pings(room, seconds, *names):
    for _ in range(seconds):
        for name in names:
            room.from_worker(name, protocol.plain(protocol.Ping()))
        room.turn(1)


def test_a_worker_that_answers_all_but_one_loses_that_one(room):
    room.worker("W", batch_size=8)
    room.client("A")
    room.submit("A", 1, budget=1000)
    [forgotten] = room.work("W")
    for id in range(2, 64):
        room.submit("A", id, budget=1000)
        room.report("W", *(room.work("W")))
        pings(room, 1, "W")
    assert isinstance(room.take("W")[-1], protocol.Refuse)
    assert len(room.answers("A")) > 50
    room.report("W", forgotten)
    assert room.core.counts["stuck"] == 1
    assert 1 not in room.answers("A")


def test_what_a_silent_worker_has_not_said_to_have_begun_does_not_run_a_second_time(room):
    room.worker("W")
    room.client("A")
    room.submit("A", 1, 2, budget=1000, once=True)
    room.submit("A", 3, budget=1000)
    assert len(room.work("W")) == 3
    room.worker("V")
    pings(room, 65, "W", "V")
    assert room.codes("A") == dict.fromkeys((1, 2), Code.WORKER_LOST)
    assert len(room.work("V")) == 1


def test_a_worker_that_reads_or_sends_a_large_payload_is_not_silent(room):
    room.worker("W")
    room.client("A")
    room.submit("A", 1, budget=1000)
    [ticket] = room.work("W")
    for _ in range(40):
        pings(room, 2, "W")
        room.from_worker("W", protocol.part(1, bytes(1000)))
    room.report("W", ticket, outcome=1)
    assert len(room.answers("A")[1]) == 40_000


def test_the_bounds_that_are_written_twice_are_the_same():
    assert WINDOW.parse(MAX_OPEN) == MAX_OPEN
    with pytest.raises(ValueError, match="50,000"):
        WINDOW.parse(MAX_OPEN + 1)
    assert 2 * MAX_BATCH < 2**63
