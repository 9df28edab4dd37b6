"""When an order to load or unload is done, failed or still on its way, whatever looks show."""

import pytest
from hypothesis import given
from hypothesis import strategies as some

from zstreamer.errors import DeadlineExceeded, NoWorker
from zstreamer.web.api.problem import Refused
from zstreamer.web.api.watch import GONE, Hosted, Seen, Taken, Watch

END = 60.0


def watch(action="load", now=0.0, **more):
    return Watch(Taken(action, ["bert@2"], {"a": 3}, **more), now, END)


def seen(state="", orders=3, ready=False, workers=False, whole=True, why="", others=()):
    offers = {("bert", "2"): (state, why)} if state else {}
    hosts = {"a": Hosted(orders, offers, whole), **{id: Hosted(0, {}) for id in others}}
    names = frozenset(["bert@2"])
    return Seen(
        hosts,
        names if ready else frozenset(),
        names if workers else frozenset(),
        {"bert@2": why}.get,
    )


NOBODY = Seen({}, frozenset(), frozenset(), lambda name: "")


def test_a_host_that_no_look_shows_is_gone_after_a_while_and_not_at_once():
    for action in ("load", "unload"):
        order = watch(action)
        assert not order.look(1.0, NOBODY)
        assert not order.look(GONE, None)
        with pytest.raises(NoWorker, match="may still run"):
            order.look(GONE + 1, NOBODY)


def test_one_that_comes_back_is_waited_for():
    order = watch()
    assert not order.look(GONE - 1, NOBODY)
    assert not order.look(GONE, seen("loaded"))
    assert not order.look(2 * GONE - 1, NOBODY)
    assert order.look(2 * GONE, seen("loaded", ready=True))


def test_what_a_snapshot_leaves_out_is_neither_gone_nor_unloaded():
    assert not watch().look(1.0, seen("", whole=False))
    assert watch().look(1.0, seen("", whole=False, ready=True))
    assert not watch("unload").look(1.0, seen("", whole=False, workers=True))
    assert watch("unload").look(1.0, seen("", whole=False))
    with pytest.raises(NoWorker, match="does not offer it any more"):
        watch().look(1.0, seen(""))


def test_a_model_that_was_loaded_again_is_not_waited_for():
    order = watch("unload")
    assert not order.look(1.0, seen("loaded"))
    with pytest.raises(Refused, match="loaded again") as caught:
        order.look(2.0, seen("loaded", orders=4))
    assert caught.value.status == 409


def test_hosts_that_refused_are_told_once_the_others_are_done():
    order = watch("unload", refused=["the host b:1 does not answer"])
    assert not order.look(1.0, seen("unloading"))
    with pytest.raises(NoWorker, match="b:1 does not answer"):
        order.look(2.0, seen("unloaded"))


looks = some.none() | some.builds(
    seen,
    some.sampled_from(["", "unloaded", "loaded", "unloading", "failed"]),
    some.integers(2, 4),
    some.booleans(),
    some.booleans(),
    some.booleans(),
    some.sampled_from(["", "exit code 4"]),
)


@given(some.sampled_from(["load", "unload"]), some.lists(looks | some.just(NOBODY), max_size=30))
def test_whatever_is_seen_it_ends_and_only_a_fresh_look_says_that_it_is_done(action, shown):
    order, now = watch(action), 0.0
    try:
        for look in [*shown, *[None] * 30]:
            now += 5.0
            if order.look(now, look):
                assert look.hosts["a"].orders >= 3
                assert action == "unload" or "bert@2" in look.ready
                return
    except (NoWorker, Refused):
        return
    except DeadlineExceeded:
        assert now >= END
        return
    raise AssertionError("it has no end")
