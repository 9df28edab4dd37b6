"""Versions of a model: shares of its items, routes, aliases, shadows, and what changes do."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from tests.unit.test_broker_core import Room
from zstreamer import errors
from zstreamer.broker import operator, routes, routes_file
from zstreamer.broker.admission import Admission
from zstreamer.broker.routes import Route, RouteError, Shares
from zstreamer.broker.sessions import Side
from zstreamer.broker.tenants import Terms
from zstreamer.errors import Code
from zstreamer.setting import ConfigError
from zstreamer.wire import protocol
from zstreamer.wire.protocol import Role, WorkerState


class Versioned(Room):
    """A broker core with workers that announce versions."""

    def serve(self, name: str, version: str = "", batch_size: int = 4, **info: Any) -> None:
        info = {"model": "bert", "batch_size": batch_size, "pool": 0, "version": version} | info
        hello = protocol.Hello(Role.WORKER, sum(name.encode()), info)
        self.from_worker(name, protocol.hello(hello))
        self.take(name)
        self.state(name, WorkerState.WARM)
        self.turn(0.3)

    def route(self, name: str = "bert", **change: Any) -> Any:
        outcome = operator.act(self.core, self.now, "route", name, change)
        assert outcome.status == 200, outcome.body
        self.turn()
        return outcome.body["routes"]

    def order(self, action: str, name: str) -> None:
        assert operator.act(self.core, self.now, action, name).status == 200
        self.turn()

    def family(self) -> dict[str, Any]:
        found: Any = operator.act(self.core, self.now, "route", "bert").body["routes"]
        return found["bert"]  # type: ignore[no-any-return]

    def answer_all(self, *names: str, outcome: bytes = b"out") -> Counter[str]:
        """Have workers answer whatever they get, until nothing comes; count by worker."""
        done: Counter[str] = Counter()
        while any(tickets := {name: self.work(name) for name in names}):
            if not any(tickets.values()):
                return done
            for name, some_tickets in tickets.items():
                if some_tickets:
                    done[name] += len(some_tickets)
                    self.report(name, *some_tickets, outcome=outcome)
        return done


@settings(deadline=None, max_examples=60)
@given(
    some.lists(some.integers(1, 40), min_size=1, max_size=300),
    some.lists(some.floats(0.01, 100), min_size=2, max_size=5),
)
def test_each_version_has_what_it_is_due_at_any_time(counts, weights):
    shares = Shares({str(n): weight for n, weight in enumerate(weights)})
    given_so_far: Counter[str] = Counter()
    total = 0
    for count in counts:
        dealt = shares.deal(count)
        assert sum(items for _, items in dealt) == count
        given_so_far.update(dict(dealt))
        total += count
        for version, part in shares.parts.items():
            off = abs(given_so_far[version] - part * total)
            assert off < (1.0001 if len(weights) == 2 else len(weights))


@pytest.mark.parametrize("run", [1, 3, 64])
def test_a_canary_of_ten_percent_gets_ten_percent_within_ten_thousand_items(run):
    room = Versioned()
    room.client("C")
    room.serve("W", "1", batch_size=64)
    room.serve("V", "2", batch_size=64)
    room.route(weights={"1": 90, "2": 10})
    done: Counter[str] = Counter()
    for first in range(0, 10_000, run):
        room.submit("C", *range(first, first + run), model="bert")
        done += room.answer_all("W", "V")
        room.take("C")
    assert done["V"] / done.total() == pytest.approx(0.10, abs=0.001)
    assert room.family()["versions"]["2"]["given"] == done["V"]


def test_without_a_route_versions_share_as_they_have_warm_workers():
    room = Versioned()
    room.client("C")
    room.serve("A", "1", batch_size=64)
    room.serve("B", "1", batch_size=64)
    room.serve("V", "2", batch_size=64)
    room.serve("U", batch_size=64)  # announces none
    room.submit("C", *range(100), model="bert")
    done = room.answer_all("A", "B", "V", "U")
    assert (done["A"] + done["B"], done["V"], done["U"]) == (50, 25, 25)


def test_a_version_asked_for_by_name_or_alias_is_the_only_one_that_answers():
    room = Versioned()
    room.client("C")
    room.serve("W", "1", batch_size=64)
    room.serve("V", "2", batch_size=64)
    room.route("stable", alias="bert@1")
    room.route(weights={"1": 50, "2": 50})
    for first, model in ((0, "bert@2"), (20, "stable")):
        room.submit("C", *range(first, first + 20), model=model)
    assert room.answer_all("W", "V") == {"W": 20, "V": 20}
    room.take("C")
    room.from_client("C", protocol.plain(protocol.Notice("stable", [])))
    assert room.notices("C") == [protocol.Notice("stable", [])]


def test_who_asked_before_a_model_had_versions_hears_of_one_that_comes_warm():
    room = Versioned()
    room.client("C")
    room.from_client("C", protocol.plain(protocol.Notice("bert", [])))
    [notice] = room.notices("C")
    assert notice.error
    room.serve("V", "1")
    assert protocol.Notice("bert", []) in room.take("C")


def test_a_version_is_held_back_until_enough_workers_are_warm():
    room = Versioned()
    room.client("C")
    room.route(hold={"2": 2})
    room.serve("V", "2")
    room.submit("C", 1, model="bert")
    assert room.work("V") == []
    [notice] = [m for m in room.take("C") if isinstance(m, protocol.Notice)]
    assert "held back until 2 workers are warm" in notice.error[1]
    room.serve("X", "2")
    assert room.answer_all("V", "X").total() == 1
    assert protocol.Notice("bert", []) in room.take("C")
    room.lose("X", Side.WORKER)  # enough were warm once
    room.submit("C", 2, model="bert")
    assert room.answer_all("V").total() == 1


@pytest.mark.parametrize("how", ["lost", "drained", "by weight", "broken"])
def test_what_waits_for_a_version_goes_to_another_when_it_may_have_nothing(how):
    room = Versioned()
    room.client("C")
    room.serve("W", "1", batch_size=1)
    room.serve("V", "2", batch_size=1)
    room.route(weights={"1": 1, "2": 1})
    room.submit("C", *range(40), model="bert")
    room.submit("C", 99, model="bert@2")
    held = room.work("V")
    assert len(held) == 2
    if how == "lost":
        room.lose("V", Side.WORKER)
    elif how == "drained":
        room.order("drain", "model bert@2")
    elif how == "by weight":
        room.route(weights={"1": 1})
    else:
        room.state("V", WorkerState.BROKEN, "out of memory")
    room.turn(0.3)
    done = room.answer_all("W")
    assert done["W"] == (40 if how == "lost" else 38)
    answers = room.answers("C")
    if how == "broken":  # it was asked for by name
        assert answers.pop(99)[0] == Code.NO_WORKER
    assert len(answers) == done["W"]
    assert set(answers.values()) == {b"out"}
    if how in ("drained", "by weight"):
        room.report("V", *held)
        assert len(room.answers("C")) == 2


def test_items_wait_as_long_as_no_version_may_have_them_and_lose_nothing():
    room = Versioned()
    room.client("C")
    room.serve("W", "1", batch_size=4)
    room.route(weights={"2": 1})
    room.submit("C", *range(10), model="bert")
    assert room.work("W") == []
    assert room.core.scheduler.queued_items == 10
    room.serve("U")
    assert room.work("U") == []  # nor has the version of those that announce none a weight
    room.serve("V", "2")
    assert room.answer_all("W", "U", "V") == {"V": 10}
    assert len(room.answers("C")) == 10
    assert room.core.scheduler.queued_items == 0


def test_an_item_whose_model_dies_on_one_version_is_tried_on_another():
    room = Versioned()
    room.client("C")
    room.serve("V", "2", batch_size=4)
    room.submit("C", 1, 2, 3, 4, model="bert")
    tickets = room.work("V")
    room.report("V", begun=tickets)
    room.serve("W", "1", batch_size=4)
    lost = [int(protocol.Fate.LOST), "was killed", {"batch": 4}]
    room.state("V", WorkerState.RESTARTING, "was killed")
    room.report("V", *tickets, outcome=lost)
    room.turn(0.3)
    assert room.answer_all("W")["W"] == 4
    assert set(room.answers("C").values()) == {b"out"}


def test_a_refusal_of_a_route_changes_nothing_and_says_why():
    room = Versioned()
    room.route(weights={"1": 1.0})
    for change, words in (
        ({"weights": {"1": -1}}, "give 0 to 1e9"),
        ({"weigths": {}}, "weigths"),
        ({"hold": {"2": 0}}, "number of workers"),
        ({"shadow": "a@b"}, "no version"),
        ({"shadow": "1"}, "has a weight too"),
        ({"alias": "bert"}, "has nothing else"),
        ([], "a table"),
    ):
        outcome = operator.act(room.core, room.now, "route", "bert", change)
        assert outcome.status == 400
        assert words in outcome.body["error"]  # type: ignore[operator]
    assert room.family()["route"] == {"weights": {"1": 1.0}}
    assert room.route(weights=None)["bert"]["route"] == {}


@pytest.mark.parametrize("name", ["\udcff", "line\nbreak", "bell\a"])
def test_a_name_that_no_peer_can_be_told_is_refused(name):
    room = Versioned()
    room.client("C")
    room.serve("W")
    for route, change in ((name, {"alias": "bert"}), ("stable", {"alias": name})):
        outcome = operator.act(room.core, room.now, "route", route, change)
        assert outcome.status == 400
        json.dumps(outcome.body).encode()
    room.submit("C", 1, 2, model="bert")
    room.lose("W", Side.WORKER)  # clients are told, by all names
    room.turn(0.3)
    room.from_client("C", protocol.plain(protocol.Status({})))
    assert any(isinstance(said, protocol.Status) for said in room.take("C"))


def test_a_route_or_a_version_of_a_version_is_refused_and_a_plain_name_with_at_is_served():
    room = Versioned()
    room.client("C")
    outcome = operator.act(room.core, room.now, "route", "bert@1", {"weights": {"2": 1}})
    assert outcome.status == 400
    assert "a route is for a model" in outcome.body["error"]  # type: ignore[operator]
    info = {"model": "bert@1", "batch_size": 1, "pool": 0, "version": "2"}
    room.from_worker("W", protocol.hello(protocol.Hello(Role.WORKER, 1, info)))
    [refuse] = room.take("W")
    assert "no @ in its name" in refuse.error[1]
    room.serve("V", model="bert@1")
    room.route("bert@0", alias="bert@1")
    room.submit("C", 1, model="bert@0")
    assert room.answer_all("V")["V"] == 1


def test_an_alias_of_an_alias_is_refused():
    with pytest.raises(RouteError, match="alias of an alias"):
        routes.check({"a": Route(alias="b"), "b": Route(alias="c")})
    with pytest.raises(RouteError, match="alias of an alias"):
        routes.check({"a": Route(alias="a")})


def test_a_shadow_gets_copies_and_its_answers_are_compared_and_dropped():
    room = Versioned()
    room.client("C")
    room.serve("W", "1", batch_size=64)
    room.serve("V", "2", batch_size=64)
    room.route(weights={"1": 1}, shadow="2")
    outcomes = [b"out", b"other", errors.to_wire(errors.PredictError("no", "ValueError"))]
    for number, outcome in enumerate(outcomes):
        room.submit("C", *range(10 * number, 10 * number + 10), model="bert")
        work, copies = room.work("W"), room.work("V")
        assert len(work) == len(copies) == 10
        first, second = (("W", work), ("V", copies))[:: 1 if number % 2 else -1]
        for name, tickets in (first, second):
            room.report(name, *tickets, outcome=outcome if name == "V" else b"out")
    answers = room.answers("C")
    assert len(answers) == 30
    assert set(answers.values()) == {b"out"}
    shadow = room.family()["shadow"]
    assert [shadow[key] for key in ("same", "different", "failed", "open")] == [10, 10, 10, 0]
    room.lose("V", Side.WORKER)
    room.submit("C", *range(40, 50), model="bert")
    assert room.answer_all("W")["W"] == 10
    assert room.family()["shadow"]["skipped"] == 10
    assert room.core.scheduler.queued_items == 0


def test_copies_that_nobody_runs_are_dropped_with_the_shadow():
    room = Versioned()
    room.client("C")
    room.serve("W", "1", batch_size=4)
    room.serve("V", "2", batch_size=1)
    room.route(weights={"1": 1}, shadow="2", shadow_share=0.5)
    room.submit("C", *range(40), model="bert")
    assert room.answer_all("W")["W"] == 40
    assert room.family()["shadow"]["open"] == 20
    room.lose("V", Side.WORKER)
    room.turn(0.3)
    assert room.family()["shadow"]["open"] == 0
    assert room.core.scheduler.queued_items == 0
    room.route(shadow=None)
    assert room.family()["shadow"] is None


def test_what_is_no_version_is_refused_and_a_peer_that_says_none_is_served():
    room = Versioned()
    info = {"model": "bert", "batch_size": 1, "pool": 0, "version": "a@b"}
    room.from_worker("W", protocol.hello(protocol.Hello(Role.WORKER, 1, info)))
    [refuse] = room.take("W")
    assert "a version has" in refuse.error[1]
    room.worker("U", model="bert")
    room.client("C")
    room.submit("C", 1, model="bert")
    assert len(room.work("U")) == 1
    assert not room.core.scheduler.versions


def test_a_file_says_the_routes_and_a_mistake_in_it_is_named(tmp_path):
    file = tmp_path / "routes.toml"
    file.write_text(
        "[broker]\nport = 7787\n"
        '[routes.bert]\nweights = { "1" = 90, "2" = 10 }\nhold = { "2" = 4 }\n'
        '[routes.stable]\nalias = "bert@1"\n'
    )
    assert routes_file.read(file) == {
        "bert": Route(weights={"1": 90.0, "2": 10.0}, hold={"2": 4}),
        "stable": Route(alias="bert@1"),
    }
    file.write_text("[routes.bert]\nshadow_share = 2\n")
    with pytest.raises(ConfigError) as caught:
        routes_file.read(file)
    assert "[routes.bert]" in str(caught.value)
    assert "shadow_share" in str(caught.value)


@pytest.mark.parametrize("lane", [0, 7])
def test_a_call_larger_than_its_tenants_rate_is_taken_whole_by_several_versions(lane):
    room = Versioned()
    room.client("C")
    room.serve("W", "1", batch_size=512)
    room.serve("V", "2", batch_size=512)
    room.core.sessions.tenants.agree({"": Terms(items_per_second=100)}, room.now)
    room.submit("C", *range(200), model="bert", lane=lane)
    assert room.answer_all("W", "V") == {"W": 100, "V": 100}
    room.submit("C", *range(200, 400), model="bert", lane=lane)  # the first is not paid for yet
    refused = [slot for slot in room.answers("C").values() if isinstance(slot, list)]
    assert len(refused) == 200
    assert room.answer_all("W", "V") == {}


@pytest.mark.parametrize("limit", ["client_items", "max_items"])
def test_limits_refuse_a_large_call_for_several_versions_as_a_whole(limit):
    room = Versioned(**{limit: 15})
    room.client("C")
    room.serve("W", "1", batch_size=64)
    room.serve("V", "2", batch_size=64)
    room.submit("C", *range(20), model="bert", lane=7)
    assert room.codes("C") == dict.fromkeys(range(20), Code.OVERLOADED)
    assert room.answer_all("W", "V") == {}
    room.submit("C", *range(20), model="bert")  # many small calls: what fits is taken
    assert room.answer_all("W", "V").total() == 15


@pytest.mark.parametrize("lane", [0, 7])
def test_a_large_call_is_refused_whole_where_one_version_would_be_too_late(lane):
    room = Versioned()
    room.client("C")
    room.serve("W", "1")
    room.serve("V", "2")
    room.submit("C", *range(100), model="bert@2", budget=1000)
    for ticket in room.work("V"):
        room.report("V", ticket, beta=1.0)
    room.take("C")
    room.submit("C", 200, 201, model="bert", lane=lane, budget=2.0)
    assert set(room.codes("C").values()) == {Code.OVERLOADED}
    assert len(room.work("W")) == (0 if lane else 1)


def test_who_waits_for_a_routed_model_that_nobody_serves_is_told_and_nobody_else(monkeypatch):
    told: list[str] = []
    build = Admission.model_not_found

    def listen(admission: Admission, name: str) -> errors.ModelNotFound:
        told.append(name)
        return build(admission, name)

    monkeypatch.setattr(Admission, "model_not_found", listen)
    room = Versioned()
    room.client("C")
    room.core.scheduler.versions.agree({f"m{n}": Route(weights={"1": 1}) for n in range(20)})
    room.submit("C", 1, model="m7")
    room.turn(room.core.config.model_grace + 1.0)
    assert room.codes("C") == {1: Code.MODEL_NOT_FOUND}
    assert told == ["m7"]
