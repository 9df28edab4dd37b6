"""Hosts of model repositories at a broker: what they offer, orders, and hosts that misbehave."""

from __future__ import annotations

import pytest

from tests.unit.test_broker_core import Room
from zstreamer.broker import operator
from zstreamer.broker.hosts import COMING, MAX_HELD, MAX_TOLD, OFFER, PATIENCE, Pending
from zstreamer.broker.operator import Outcome
from zstreamer.broker.sessions import Side
from zstreamer.errors import BadRequest
from zstreamer.keys.ring import Principal
from zstreamer.keys.ring import Role as KeyRole
from zstreamer.wire import offers, protocol
from zstreamer.wire.offers import Answer, LoadState, Offer, Report
from zstreamer.wire.protocol import Hello, Role


class House(Room):
    """A room with hosts."""

    def host(self, name, *models, key=None):
        info = {"host": name, "pid": 1}
        hello = protocol.hello(Hello(Role.HOST, sum(name.encode()), info))
        self.core.on_worker(self.now, name.encode(), hello, key)
        self.turn()
        [welcome] = self.take(name)
        assert isinstance(welcome, protocol.Welcome)
        self.offer(name, *models)

    def offer(self, name, *models, answers=(), orders=0):
        named = [each.split("@") for each in models]
        rows = [Offer(name, version, LoadState.UNLOADED) for name, version in named]
        self.from_worker(name, protocol.plain(offers.report(Report(rows, orders, list(answers)))))

    def order(self, action, name):
        found = operator.act(self.core, self.now, action, name)
        self.turn()
        return found

    def told_to(self, name):
        found = [offers.read_order(each.info) for each in self.take(name)]
        return [each for each in found if each is not None]

    def rows(self):
        return self.core.sessions.hosts.rows()


def ident(name):
    return f"{sum(name.encode()):x}"


@pytest.fixture
def house():
    return House()


def test_a_host_is_no_worker_and_the_snapshot_shows_what_it_offers(house):
    house.host("one", "bert@2", "greet@")
    assert house.rows() == [
        {
            "id": ident("one"),
            "host": "one",
            "pid": 1,
            "orders": 0,
            "offers": [["bert", "2", "unloaded", ""], ["greet", "", "unloaded", ""]],
        }
    ]
    assert not house.core.workers
    assert not house.core.models
    assert b"one" in house.core.sessions.of(Side.WORKER)  # else nobody sees that it has gone
    house.lose("one", Side.WORKER)
    assert house.rows() == []


def test_an_order_goes_to_those_that_offer_the_model(house):
    house.host("one", "bert@1", "bert@2")
    house.host("two", "bert@2")
    assert isinstance(house.order("load", "bert@1"), Pending)
    [order] = house.told_to("one")
    assert order[1:] == ("load", "bert@1")
    assert house.told_to("two") == []
    house.order("unload", "bert")
    assert len(house.told_to("one")) == len(house.told_to("two")) == 1
    house.order("load", "new")  # a folder that they may not have looked at since it came
    assert len(house.told_to("one")) == len(house.told_to("two")) == 1


def test_it_is_done_when_all_have_answered(house):
    house.host("one", "bert@2")
    house.host("two", "bert@2")
    pending = house.order("load", "bert")
    [order] = house.told_to("one")
    house.offer("one", "bert@2", answers=[Answer(order.number, 200, "", ["bert@2"])], orders=4)
    assert pending.outcome(house.now) is None
    house.offer("two", "bert@2", answers=[Answer(order.number, 400, "no target")])
    status, said = pending.outcome(house.now)
    assert status == 200
    assert said == {"models": ["bert@2"], "orders": {ident("one"): 4}, "refused": ["no target"]}


@pytest.mark.parametrize("way", ["silent", "lost", "replaced"])
def test_a_host_that_does_not_answer_does_not_hold_up_its_operator(house, way):
    house.host("one", "bert@2")
    pending = house.order("load", "bert@2")
    if way == "silent":
        house.turn(PATIENCE)
    elif way == "lost":
        house.lose("one", Side.WORKER)
    else:
        hello = protocol.hello(Hello(Role.HOST, sum(b"one"), {}))
        house.from_worker("again", hello)
    status, said = pending.outcome(house.now)
    assert status == 503
    assert "the host one:1" in said["error"]


def test_the_reason_that_says_most_is_told(house):
    house.host("one")
    house.host("two")
    pending = house.order("load", "bert")
    [order] = house.told_to("one")
    house.offer("one", answers=[Answer(order.number, 400, "bert/model.toml has no target")])
    house.offer("two", answers=[Answer(order.number, 404, "no model")])
    assert pending.outcome(house.now) == (400, {"error": "bert/model.toml has no target"})


def test_orders_that_nobody_can_take_are_refused(house):
    assert house.order("load", "bert").status == 503  # one may be on its way back
    house.turn(COMING)
    assert house.order("load", "bert").status == 404
    house.host("one", "bert@2")
    for name in ("", "a\nb", "x" * 1000):
        assert house.order("load", name).status == 400
    assert isinstance(house.order("sell", "bert"), Outcome)
    assert house.told_to("one") == []


def offer(*row):
    return {"offers": [list(row)], "orders": 0, "answers": []}


def answer(*row):
    return {"offers": [], "orders": 0, "answers": [list(row)]}


@pytest.mark.parametrize(
    "info",
    [
        {},
        {"offers": {}, "orders": 0, "answers": []},
        {"offers": [], "orders": "0", "answers": []},
        {"offers": [[]] * 501, "orders": 0, "answers": []},
        offer("bert", "1", "unloaded"),
        offer("bert", 1, "unloaded", ""),
        offer("", "1", "unloaded", ""),
        offer("a\nb", "1", "unloaded", ""),
        offer("bert", "1@2", "unloaded", ""),
        offer("bert", "1", "sold", ""),
        answer(1, 200, ""),
        answer(1, 302, "", []),
        answer(1, 200, "", [5]),
        answer(1, 200, "", ["x" * 1000]),
    ],
)
def test_what_is_no_report_is_refused_and_changes_nothing(house, info):
    house.host("one", "bert@2")
    before = house.rows()
    house.from_worker("one", protocol.plain(protocol.Status(info)))
    [refusal] = house.take("one")
    assert isinstance(refusal, protocol.Refuse)
    assert house.rows() == before


def test_a_host_that_sends_what_only_workers_may_is_refused(house):
    house.host("one", "bert@2")
    house.from_worker("one", protocol.plain(protocol.State(2, "")))
    assert isinstance(house.take("one")[0], protocol.Refuse)
    house.from_worker("one", protocol.plain(protocol.Ping()))
    assert house.take("one") == []


def test_a_host_that_reports_faster_than_it_can_be_read_is_cut_off(house):
    house.host("one", "bert@2")
    for _ in range(40_000):
        if b"one" not in house.core.sessions.hosts.known:
            break
        house.core.on_worker(house.now, b"one", protocol.plain(protocol.Status(offer())))
    assert b"one" in house.core.sessions.deaf(Side.WORKER)


def test_a_host_at_the_clients_port_is_refused(house):
    house.from_client("one", protocol.hello(Hello(Role.HOST, 1, {})))
    [refusal] = house.take("one")
    assert "two ports" in refusal.error[1]


def test_an_answer_to_nothing_is_ignored(house):
    house.host("one", "bert@2")
    house.offer("one", "bert@2", answers=[Answer(9, 200, "", ["x"])])
    assert house.take("one") == []


def test_a_key_for_some_models_shows_these_alone(house):
    key = Principal(b"k", "gpu", KeyRole.WORKER, models=frozenset({"bert"}))
    house.host("one", "bert@2", "other@", key=key)
    assert house.rows()[0]["offers"] == [["bert", "2", "unloaded", ""]]


def test_an_operator_may_refuse_a_host(house):
    house.host("one", "bert@2")
    assert house.order("refuse", "one:1") == (200, {"name": "one:1", "refused": 1})
    assert house.rows() == []
    house.from_worker("again", protocol.hello(Hello(Role.HOST, 9, {"host": "one", "pid": 1})))
    [refusal] = house.take("again")
    assert refusal.error[0] != BadRequest.code


def test_two_hosts_that_say_the_same_of_themselves_are_two(house):
    house.host("one", "bert@2")
    hello = protocol.hello(Hello(Role.HOST, 99, {"host": "one", "pid": 1}))
    house.from_worker("other", hello)
    house.take("other")
    house.offer("other", orders=10**6)
    assert [row["id"] for row in house.rows()] == [ident("one"), "63"]
    pending = house.order("load", "bert@2")
    [order] = house.told_to("one")
    house.offer("one", "bert@2", answers=[Answer(order.number, 200, "", ["bert@2"])], orders=1)
    assert pending.outcome(house.now)[1]["orders"] == {ident("one"): 1}


def test_each_host_has_its_share_of_the_snapshot_and_what_runs_comes_first(house):
    for name in ("one", "two", "six"):
        house.host(name)
        rows = [Offer(f"model{i:03}", "", LoadState.UNLOADED, "é" * 300) for i in range(499)]
        rows.append(Offer("runs", "", LoadState.LOADED, ""))
        house.from_worker(name, protocol.plain(offers.report(Report(rows, 0, []))))
    found = house.rows()
    assert len({len(row["offers"]) for row in found}) == 1  # none at the cost of another one
    for row in found:
        assert row["offers"][0] == ["runs", "", "loaded", ""]
        assert len(row["offers"]) + row.get("left_out", 0) == 500
        assert len(row["offers"]) == 500  # without reasons there is room
        assert sum(len(str(each)) for each in row["offers"]) < MAX_TOLD


def test_what_a_host_leaves_out_of_the_snapshot_is_counted(house):
    for number in range(20):
        name = f"h{number:02}"
        house.host(name)
        rows = [Offer(f"{i:03}" + "x" * 100, "", LoadState.UNLOADED) for i in range(500)]
        house.from_worker(name, protocol.plain(offers.report(Report(rows, 0, []))))
    for row in house.rows():
        assert row["left_out"] == 500 - len(row["offers"]) > 0


def test_offers_beyond_what_the_broker_keeps_are_refused(house, monkeypatch):
    monkeypatch.setattr("zstreamer.broker.hosts.MAX_HELD", 2 * OFFER + 50)
    assert MAX_HELD > 50_000_000
    house.host("one", "bert@2")
    house.host("two", "bert@2")
    house.take("two")
    house.offer("two", "bert@2", "other@")
    [refused] = house.take("two")
    assert isinstance(refused, protocol.Refuse)
    assert "more than the broker keeps" in refused.error[1]
    largest = house.core.sessions.largest(2)
    assert [size for size, _ in largest] == [OFFER + 4] * 2
    assert "host=" in largest[0][1]


def test_a_host_that_repeats_itself_is_cut_off_by_what_its_offers_cost(house):
    house.host("one")
    names = [f"m{i}@" for i in range(500)]
    for _ in range(400):
        house.offer("one", *names)
    assert not house.rows()


def test_a_host_is_told_of_no_model_that_its_key_may_not_serve(house):
    key = Principal(b"k", "gpu", KeyRole.WORKER, models=("foo",))
    house.host("one", "foo@1", key=key)
    found = house.order("load", "bert")
    assert found.status == 404
    assert "key that may serve 'bert'" in found.body["error"]
    assert house.told_to("one") == []


def test_an_answer_that_names_other_models_is_not_believed(house):
    house.host("one", "bert@2")
    for name, named, right in (
        ("bert", ["bert@2", "greet", "bertha@1"], ["bert@2"]),
        ("bert@2", ["bert@2", "bert@3"], ["bert@2"]),
        ("bert@1", ["bert"], ["bert"]),  # one without versions
    ):
        pending = house.order("load", name)
        [order] = house.told_to("one")
        house.offer("one", "bert@2", answers=[Answer(order.number, 200, "", named)])
        assert pending.outcome(house.now)[1]["models"] == right
