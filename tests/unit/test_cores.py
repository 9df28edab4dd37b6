"""Clients, brokers and workers together, on a wire of their own and in virtual time."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from tests.helpers.wire import Cluster
from zstreamer import errors
from zstreamer.errors import (
    DeadlineExceeded,
    ModelNotFound,
    NoWorker,
    PredictError,
    WorkerLost,
    ZStreamerError,
)
from zstreamer.wire import protocol
from zstreamer.wire.protocol import Fate, Flag, WorkerState

MiB = 1024 * 1024


def double(items):
    return [2 * item for item in items]


@pytest.fixture
def cluster():
    return Cluster()


def ran(*workers):
    """How often each input has begun to run, over all these workers."""
    return sum((worker.ran for worker in workers), Counter())


def cut(peer):
    """Cut all connections of a client or worker."""
    for connection in list(peer.connections.values()):
        peer.cluster.cut(connection)


def ended_once(*clients):
    return all(count == 1 for client in clients for count in client.ended.values())


# Without faults


def test_ten_thousand_items_of_one_call_come_back_in_order(cluster):
    cluster.broker()
    workers = [cluster.worker(predict=double) for _ in range(2)]
    client = cluster.client()
    call = client.call(*range(10_000))
    cluster.until(lambda: call.done)
    assert call.results() == [2 * i for i in range(10_000)]
    assert set(ran(*workers).values()) == {1}


def test_every_answer_goes_to_its_own_caller(cluster):
    cluster.broker()
    for _ in range(3):
        cluster.worker(predict=double)
    clients = [cluster.client() for _ in range(20)]
    calls = [(n, client.call(n, keep_errors=True)) for n, client in enumerate(clients * 25)]
    cluster.until(lambda: all(call.done for _, call in calls))
    assert [call.results() for _, call in calls] == [[2 * n] for n, _ in calls]
    assert ended_once(*clients)


def test_batches_fill_while_the_model_is_busy(cluster):
    cluster.broker()
    worker = cluster.worker(batch_size=8)
    clients = [cluster.client() for _ in range(64)]
    for client in clients:
        client.call(*range(20))
    cluster.until(lambda: all(client.ended for client in clients))
    sizes = [len(batch) for batch in worker.batches]
    assert sum(sizes) / len(sizes) > 7.5


def test_a_lone_item_is_not_held_up(cluster):
    """Nothing waits for company: four hops and the model's own time."""
    cluster.broker()
    cluster.worker(beta=0.010, alpha=0.0, max_latency=0.1)
    client = cluster.client()
    first = client.call("wakes everybody up")
    cluster.until(lambda: first.done)
    start = cluster.now
    call = client.call("alone")
    cluster.until(lambda: call.done)
    assert cluster.now - start == pytest.approx(4 * cluster.latency + 0.010)


def test_a_large_payload_holds_nobody_up(cluster):
    cluster.broker()
    cluster.worker()
    client, other = cluster.client(), cluster.client()
    warm = [client.call("warm"), other.call("warm")]
    cluster.until(lambda: all(call.done for call in warm))
    start = cluster.now
    large = client.call(bytes(30 * MiB))
    small = [client.call("small"), other.call("small")]
    cluster.until(lambda: all(call.done for call in small))
    assert cluster.now - start < 0.050
    assert not large.done
    cluster.until(lambda: large.done)
    assert large.results() == [bytes(30 * MiB)]


def test_a_cluster_with_nothing_to_do_says_next_to_nothing(cluster):
    cluster.broker()
    cluster.worker()
    client = cluster.client()
    call = client.call("x")
    cluster.until(lambda: call.done)
    cluster.run(5.0)
    before = len(cluster.seen)
    cluster.run(60.0)
    since = cluster.seen[before:]
    assert {type(seen.message) for seen in since} == {protocol.Ping}
    assert len(since) <= 61


def test_alike_items_run_together_where_the_model_says_what_they_cost(cluster):
    cluster.broker()
    worker = cluster.worker(batch_size=4, cost=float)
    client = cluster.client()
    first = client.call(1)
    cluster.until(lambda: first.done)
    cluster.run(1.0)
    call = client.call(*[1, 1000] * 12)
    cluster.until(lambda: call.done)
    mixed = [batch for batch in worker.batches if len(set(batch)) > 1]
    assert len(mixed) <= 2


# Items and models that fail


def test_one_bad_item_harms_nobody_else(cluster):
    def predict(items):
        if "bad" in items:
            raise ValueError("no such word")
        return items

    cluster.broker()
    cluster.worker(predict=predict)
    client = cluster.client()
    good = [client.call(n) for n in range(10)]
    bad = client.call("bad")
    cluster.until(lambda: bad.done and all(call.done for call in good))
    assert [call.results() for call in good] == [[n] for n in range(10)]
    with pytest.raises(PredictError, match="no such word") as caught:
        bad.results()
    assert caught.value.type == "ValueError"


@pytest.mark.parametrize("mates", [0, 1, 5, 30])
def test_an_item_that_kills_its_model_is_lost_alone(cluster, mates):
    cluster.broker()
    workers = [cluster.worker(kills=lambda batch: "poison" in batch) for _ in range(2)]
    client = cluster.client()
    good = [client.call(n) for n in range(mates)]
    poison = client.call("poison")
    cluster.until(lambda: poison.done and all(call.done for call in good))
    assert [call.results() for call in good] == [[n] for n in range(mates)]
    with pytest.raises(WorkerLost):
        poison.results()
    deaths = [batch for w in workers for batch in w.batches if "poison" in batch]
    assert sum(len(batch) == 1 for batch in deaths) == 2


def test_suspects_keep_only_one_worker_of_a_model_busy(cluster):
    cluster.broker()
    for _ in range(3):
        cluster.worker(kills=lambda batch: "poison" in batch)
    client = cluster.client()
    calls = [client.call(n) for n in range(20)] + [client.call("poison")]
    cluster.until(lambda: all(call.done for call in calls))
    out: set[int] = set()
    for seen in cluster.seen:
        if isinstance(seen.message, protocol.Work) and seen.message.flags & Flag.ALONE:
            assert not out
            out.update(seen.message.tickets)
        elif isinstance(seen.message, protocol.Report):
            out.difference_update(seen.message.done)


def test_a_model_that_cannot_start_is_told_with_its_words(cluster):
    cluster.broker()
    worker = cluster.worker(boot=1000.0, boot_timeout=1.0, boot_attempts=2)
    client = cluster.client()
    call = client.call("x", timeout=60.0)
    cluster.until(lambda: call.done)
    with pytest.raises(NoWorker, match="did not start within 1 s"):
        call.results()
    assert worker.exit is not None
    assert worker.exit.broken


def test_a_model_that_nobody_serves_is_not_found(cluster):
    cluster.broker()
    cluster.worker(model="bert")
    client = cluster.client()
    call = client.call("x", model="brat")
    cluster.until(lambda: call.done, 5.0)
    with pytest.raises(ModelNotFound) as caught:
        call.results()
    assert caught.value.models == ("bert",)


def test_a_predict_that_hangs_is_ended_and_its_mates_are_answered(cluster):
    slow = 1000.0
    cluster.broker()
    hung = cluster.worker(beta=slow, predict_timeout=2.0, batch_size=1)
    client = cluster.client()
    call = client.call("x", timeout=100.0)
    cluster.until(lambda: hung.batches)
    cluster.worker(boot=0.0)
    cluster.until(lambda: call.done)
    assert call.results() == ["x"]


# A client that goes, and comes back


@settings(deadline=None, max_examples=60)
@given(
    cuts=some.lists(some.floats(0.0, 0.3), min_size=1, max_size=4),
    once=some.booleans(),
)
def test_a_lost_connection_costs_nothing_and_nothing_is_run_twice(cuts, once):
    cluster = Cluster()
    cluster.broker()
    workers = [cluster.worker(batch_size=4) for _ in range(2)]
    client = cluster.client()
    calls = [client.call(*range(10 * n, 10 * n + 10), once=once) for n in range(8)]
    for time in cuts:
        cluster.after(time, partial(cut, client))
    cluster.until(lambda: all(call.done for call in calls), 10.0)
    assert [call.results() for call in calls] == [
        list(range(10 * n, 10 * n + 10)) for n in range(8)
    ]
    assert set(ran(*workers).values()) == {1}
    assert ended_once(client)


def test_a_client_that_does_not_come_back_leaves_nothing_behind(cluster):
    broker = cluster.broker()
    worker = cluster.worker(batch_size=2)
    client = cluster.client()
    client.call(*range(1000))
    cluster.until(lambda: len(worker.batches) > 2)
    client.frozen = True
    cluster.cut(client.connection)
    cluster.run(5.0)
    assert broker.core.clients == {}
    assert broker.core.scheduler.queued_items == 0
    assert worker.core.backlog.jobs == {}


@pytest.mark.parametrize("moment", [0.0, 0.002, 0.1015, 0.105, 0.15])
def test_what_is_given_up_leaves_nothing_behind(cluster, moment):
    broker = cluster.broker()
    worker = cluster.worker(batch_size=2)
    client = cluster.client()
    call = client.call(*range(100), bytes(10 * MiB))
    cluster.run(moment)
    client.core.cancel(call)
    cluster.run(1.0)
    assert broker.core.clients[1].items == {}
    assert broker.core.clients[1].receiver.bytes == 0
    assert worker.core.backlog.jobs == {}
    (known,) = broker.core.workers.values()
    assert known.tickets == {}
    assert known.bytes == 0


# A broker that goes, and comes back


@settings(deadline=None, max_examples=60)
@given(kill=some.floats(0.0, 0.4), away=some.floats(0.001, 1.0), once=some.booleans())
def test_a_broker_that_is_restarted_loses_only_what_may_not_run_twice(kill, away, once):
    cluster = Cluster()
    broker = cluster.broker()
    workers = [cluster.worker(batch_size=4) for _ in range(2)]
    client = cluster.client()
    calls = [client.call(n, once=once) for n in range(60)]
    cluster.after(kill, broker.kill)
    cluster.after(kill + away, broker.start)
    cluster.until(lambda: all(call.done for call in calls), 15.0)
    assert ended_once(client)
    for n, call in enumerate(calls):
        if once:
            with suppress(WorkerLost):
                assert call.results() == [n]
        else:
            assert call.results() == [n]
    if once:
        assert set(ran(*workers).values()) <= {1}


def test_the_others_take_over_from_a_broker_that_is_gone(cluster):
    brokers = [cluster.broker(name) for name in ("a", "b")]
    for _ in range(2):
        cluster.worker("a", "b")
    client = cluster.client("a", "b")
    calls = [client.call(*range(100)) for _ in range(5)]
    cluster.until(lambda: len(client.connections) == 2 and any(c.sent for c in calls))
    cluster.run(0.150)
    brokers[0].kill()
    cluster.until(lambda: all(call.done for call in calls), 5.0)
    assert all(call.results() == list(range(100)) for call in calls)


def test_a_broker_that_is_never_there_is_an_error_in_time(cluster):
    client = cluster.client("nowhere", connect_timeout=2.0)
    call = client.call("x")
    start = cluster.now
    cluster.until(lambda: call.done)
    assert cluster.now - start == pytest.approx(2.0)
    with pytest.raises(errors.BrokerUnreachable, match="nowhere"):
        call.results()


# A worker that goes


@settings(deadline=None, max_examples=60)
@given(kill=some.floats(0.1, 0.4), once=some.booleans())
def test_a_worker_that_is_killed_costs_time_only(kill, once):
    cluster = Cluster()
    cluster.broker()
    workers = [cluster.worker(batch_size=4, boot=0.05) for _ in range(2)]
    client = cluster.client()
    calls = [client.call(n, once=once) for n in range(80)]
    cluster.after(kill, workers[0].kill)
    cluster.until(lambda: all(call.done for call in calls), 10.0)
    lost = 0
    for n, call in enumerate(calls):
        try:
            assert call.results() == [n]
        except WorkerLost:
            lost += 1
    assert lost <= (8 if once else 0)
    assert ended_once(client)
    if once:
        assert set(ran(*workers).values()) <= {1}


def test_the_only_worker_may_be_killed_in_its_first_batch_and_replaced(cluster):
    cluster.broker()
    worker = cluster.worker(beta=10.0)
    client = cluster.client()
    call = client.call("x")
    cluster.until(lambda: worker.batches)
    worker.kill()
    cluster.run(5.0)
    cluster.worker()
    cluster.until(lambda: call.done)
    assert call.results() == ["x"]


@settings(deadline=None, max_examples=40)
@given(some.lists(some.floats(0.1, 0.6), min_size=1, max_size=4))
def test_a_model_that_is_killed_from_outside_costs_time_only(kills):
    cluster = Cluster()
    cluster.broker()
    worker = cluster.worker(batch_size=4, boot=0.02)
    client = cluster.client()
    calls = [client.call(n) for n in range(60)]

    def kill():
        if worker.process is not None:
            worker.kill_model()

    for time in kills:
        cluster.after(time, kill)
    cluster.until(lambda: all(call.done for call in calls), 15.0)
    failed = [call for call in calls if call.error]
    assert len(failed) <= len(kills) // 2  # who stood alone at two kills is taken for the cause
    assert ended_once(client)


def test_what_a_worker_brings_after_it_was_given_up_is_dropped(cluster):
    """A worker stands still, is cut off, and wakes up with its old batch done."""
    cluster.broker()
    late = cluster.worker(batch_size=4, beta=0.050)
    client = cluster.client()
    call = client.call(*range(4))
    cluster.until(lambda: late.batches)
    late.frozen = True
    connection = late.connection
    connection.up = False
    connection.broker.gone(connection)
    other = cluster.worker(batch_size=4)
    cluster.until(lambda: call.done)
    assert call.results() == [0, 1, 2, 3]
    late.frozen = False
    late.lost(connection.link, connection)
    cluster.run(5.0)
    assert ended_once(client)
    assert ran(other) == Counter(range(4))
    (_, again) = cluster.messages(protocol.Hello, late.name)
    assert again.id == 1
    assert late.core.backlog.jobs == {}


def test_a_worker_that_stands_still_keeps_what_it_has_and_gets_nothing_new(cluster):
    cluster.broker()
    stalled = cluster.worker(batch_size=1)
    client = cluster.client()
    first = client.call("first")
    cluster.until(lambda: first.done)
    stalled.frozen = True
    cluster.run(4.0)
    cluster.worker(batch_size=1)
    calls = [client.call(n) for n in range(20)]
    cluster.until(lambda: all(call.done for call in calls), 5.0)
    assert stalled.ran == Counter(["first"])
    stalled.thaw()
    cluster.run(1.5)
    more = [client.call(n) for n in range(20)]
    cluster.until(lambda: all(call.done for call in more), 5.0)
    assert sum(stalled.ran.values()) > 1


def test_a_budget_ends_on_time_and_what_has_not_begun_is_not_run(cluster):
    cluster.broker()
    worker = cluster.worker(batch_size=1, beta=1.0, alpha=0.0)
    client = cluster.client()
    warm = client.call("warm")
    cluster.until(lambda: warm.done)
    start = cluster.now
    calls = [client.call(n, timeout=2.5) for n in range(5)]
    cluster.until(lambda: all(call.done for call in calls))
    assert cluster.now - start == pytest.approx(2.5)
    cluster.run(10.0)
    assert [type(call.error) for call in calls].count(DeadlineExceeded) >= 2
    assert set(worker.ran) <= {"warm", 0, 1, 2}


# Draining


def test_a_worker_that_is_asked_to_stop_costs_nobody_an_error(cluster):
    cluster.broker()
    workers = [cluster.worker(batch_size=4) for _ in range(2)]
    client = cluster.client()
    calls = [client.call(n, once=True) for n in range(100)]
    cluster.until(lambda: workers[0].batches)
    workers[0].core.drain()
    cluster.until(lambda: all(call.done for call in calls))
    assert [call.results() for call in calls] == [[n] for n in range(100)]
    cluster.run(1.0)
    assert workers[0].exit is not None
    assert not workers[0].exit.broken
    assert set(ran(*workers).values()) == {1}


def test_a_broker_that_is_asked_to_stop_finishes_and_refuses(cluster):
    broker = cluster.broker()
    cluster.worker(batch_size=4)
    client = cluster.client()
    calls = [client.call(n) for n in range(50)]
    cluster.run(0.110)
    broker.core.drain()
    cluster.run(0.010)
    late = client.call("late")
    cluster.until(lambda: broker.core.idle and late.done)
    assert [call.results() for call in calls] == [[n] for n in range(50)]
    with pytest.raises(errors.Overloaded) as caught:
        late.results()
    assert caught.value.retry_after > 0


# Everything at once


FAULTS = ["cut client", "cut worker", "kill model", "restart broker", "give up", "freeze"]


@settings(deadline=None, max_examples=80)
@given(
    faults=some.lists(
        some.tuples(some.floats(0.0, 1.5), some.sampled_from(FAULTS), some.integers(0, 9)),
        max_size=8,
    )
)
def test_whatever_goes_wrong_each_call_ends_once_and_nothing_leaks(faults):
    cluster = Cluster()
    broker = cluster.broker()
    workers = [cluster.worker(batch_size=3, boot=0.05, beta=0.02) for _ in range(2)]
    clients = [cluster.client() for _ in range(2)]
    calls = [
        (n, clients[n % 2].call(n, n, timeout=20.0, once=n % 3 == 0, keep_errors=n % 5 == 0))
        for n in range(60)
    ]

    def fault(name, pick):
        client, worker = clients[pick % 2], workers[pick % 2]
        match name:
            case "cut client":
                cut(client)
            case "cut worker":
                cut(worker)
            case "kill model":
                if worker.process is not None:
                    worker.kill_model()
            case "restart broker":
                broker.kill()
                cluster.after(0.2, broker.start)
            case "give up":
                client.core.cancel(calls[pick * 6 + pick % 2][1])
            case "freeze":
                worker.frozen = True
                cluster.after(0.5, worker.thaw)

    for time, name, pick in faults:
        cluster.after(time, partial(fault, name, pick))
    cluster.until(lambda: all(call.done for _, call in calls), 30.0)
    cluster.run(5.0)
    _every_output_is_its_own(calls)
    assert ended_once(*clients)
    assert all(ran(*workers)[n] <= 2 for n in range(0, 60, 3)), "an item ran more than ONCE"
    _nothing_is_left(broker, workers, clients)
    again = clients[0].call("again")
    cluster.until(lambda: again.done)
    assert again.results() == ["again"]


def _every_output_is_its_own(calls):
    for n, call in calls:
        with suppress(ZStreamerError):
            for result in call.results():
                assert result == n or isinstance(result, ZStreamerError)


def _nothing_is_left(broker, workers, clients):
    core = broker.core
    assert core.scheduler.queued_items == core.scheduler.queued_bytes == 0
    assert all(not c.items and not c.bytes and not c.unread for c in core.clients.values())
    assert all(not w.tickets and not w.bytes and not w.running for w in core.workers.values())
    assert all(not worker.core.backlog.jobs for worker in workers)
    assert all(not link.sent and not link.sent_bytes for c in clients for link in c.core.links)


def test_states_and_fates_have_the_numbers_that_the_protocol_gives_them():
    assert [state.value for state in WorkerState] == [1, 2, 3, 4, 5]
    assert [fate.value for fate in Fate] == [601, 602, 603]
