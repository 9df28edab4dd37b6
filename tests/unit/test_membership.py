"""Brokers whose addresses change: cores of clients and workers are told, and follow."""

import pytest

from tests.helpers.wire import Cluster
from zstreamer.errors import BrokerUnreachable, WorkerLost
from zstreamer.wire.link import LinkState

BY_NAME = "tcp+dns://brokers:7787"


@pytest.fixture
def cluster():
    cluster = Cluster()
    for name in ("one", "two"):
        cluster.broker(name)
    return cluster


def told(peer, *names):
    addresses = [f"tcp://{name}:1" for name in names]
    peer.core.on_addresses(peer.cluster.now, addresses, f"{BY_NAME} ({', '.join(addresses)})")


def addresses_of(peer):
    return [link.address for link in peer.core.links]


def done(cluster, call):
    cluster.until(lambda: call.done)
    return call.results()


def test_a_client_of_a_name_waits_for_its_addresses(cluster):
    cluster.worker("one")
    client = cluster.client(BY_NAME)
    call = client.call("a")
    cluster.run(1.0)
    assert not call.done
    told(client, "one")
    assert done(cluster, call) == ["a"]


def test_a_name_that_names_nobody_is_unreachable_and_says_why(cluster):
    client = cluster.client(BY_NAME)
    client.core.on_addresses(cluster.now, [], f"{BY_NAME} (Name or service not known)")
    call = client.call("a")
    cluster.until(lambda: call.done)
    with pytest.raises(BrokerUnreachable, match="Name or service not known"):
        call.results()
    assert cluster.now <= 1005.1


def test_one_broker_found_by_name_holds_items_until_a_worker_comes(cluster):
    client = cluster.client(BY_NAME)
    told(client, "one")
    call = client.call("a")
    cluster.run(1.0)
    cluster.worker("one")
    assert done(cluster, call) == ["a"]


def test_new_work_goes_to_a_new_broker_and_what_is_open_is_answered_by_the_old_one(cluster):
    workers = {name: cluster.worker(name, beta=1.0) for name in ("one", "two")}
    client = cluster.client(BY_NAME)
    told(client, "one")
    cluster.run(0.5)
    first = client.call("first", once=True)
    cluster.run(0.5)
    told(client, "two")
    second = client.call("second")
    cluster.run(0.1)
    assert addresses_of(client) == ["tcp://one:1", "tcp://two:1"]
    assert done(cluster, first) == ["first"]
    assert done(cluster, second) == ["second"]
    assert workers["one"].ran == {"first": 1}
    assert addresses_of(client) == ["tcp://two:1"]
    cluster.run(0.01)
    assert not [each for each in cluster.brokers["one"].connections.values() if each.peer is client]


def test_items_at_a_broker_that_is_gone_move_at_once(cluster):
    cluster.worker("one", beta=5.0)
    cluster.worker("two")
    client = cluster.client(BY_NAME)
    told(client, "one")
    cluster.run(0.5)
    call, once = client.call("a"), client.call("b", once=True)
    cluster.run(0.5)
    told(client, "two")
    cluster.run(0.1)
    lost_at = cluster.now
    cluster.brokers["one"].kill()
    assert done(cluster, call) == ["a"]
    assert cluster.now - lost_at < 0.2
    with pytest.raises(WorkerLost):
        done(cluster, once)
    assert addresses_of(client) == ["tcp://two:1"]


def test_an_address_that_never_answered_is_forgotten(cluster):
    cluster.brokers["one"].kill()
    cluster.worker("two")
    client = cluster.client(BY_NAME)
    told(client, "one")
    call = client.call("a")
    cluster.run(1.0)
    told(client, "two")
    assert done(cluster, call) == ["a"]
    assert addresses_of(client) == ["tcp://two:1"]


def test_an_address_that_comes_back_is_kept(cluster):
    cluster.worker("one", beta=1.0)
    client = cluster.client(BY_NAME)
    told(client, "one")
    cluster.run(0.5)
    call = client.call("a", once=True)
    cluster.run(0.2)
    [link] = client.core.links
    told(client, "two")
    cluster.run(0.1)
    told(client, "one")
    assert done(cluster, call) == ["a"]
    assert client.core.links == [link]


def test_a_name_that_cannot_be_resolved_for_a_while_changes_nothing(cluster):
    cluster.worker("one")
    client = cluster.client(BY_NAME)
    told(client, "one")
    assert done(cluster, client.call("a")) == ["a"]
    told(client)
    assert done(cluster, client.call("b")) == ["b"]
    assert addresses_of(client) == ["tcp://one:1"]


def test_a_client_that_waits_for_a_model_hears_of_it_from_a_new_broker(cluster):
    client = cluster.client(BY_NAME)
    told(client, "one")
    watch = client.watch()
    cluster.run(1.0)
    cluster.worker("two")
    told(client, "two")
    cluster.until(lambda: watch.done)
    assert watch.error is None


def test_a_worker_joins_a_new_broker_and_stays_with_the_old_one_until_it_ends(cluster):
    worker = cluster.worker("one")
    old, new = cluster.client("tcp://one:1"), cluster.client("tcp://two:1")
    assert done(cluster, old.call("a")) == ["a"]
    told(worker, "two")
    assert done(cluster, new.call("b")) == ["b"]
    assert done(cluster, old.call("c")) == ["c"]  # its clients may not have heard yet
    cluster.brokers["one"].kill()
    cluster.run(0.1)
    assert addresses_of(worker) == ["tcp://two:1"]
    assert [link.state for link in worker.core.links] == [LinkState.READY]
    assert done(cluster, new.call("d")) == ["d"]


@pytest.mark.parametrize("seed", range(20))
def test_brokers_come_and_go_while_calls_are_made(seed):
    """Every call is answered once, and each broker that is gone is left."""
    cluster = Cluster()
    names = [f"b{number}" for number in range(6)]
    for name in names:
        cluster.broker(name)
    worker = cluster.worker(names[0], beta=0.02)
    clients = [cluster.client(BY_NAME) for _ in range(3)]
    for client in clients:
        told(client, names[0])
    cluster.run(0.5)
    calls = []
    for step in range(1, 30):
        here = {names[(step // 5) % 6], names[(step * (seed + 3) // 7) % 6]}
        told(worker, *sorted(here))
        for client in clients:
            told(client, *sorted(here))
            calls.append(client.call(f"{step}-{client.name}", timeout=30.0))
        if step % 5 == seed % 5:
            for name in set(names) - here:
                if cluster.brokers[name].running:
                    cluster.brokers[name].kill()
                    cluster.brokers[name].start()
        cluster.run(0.05 * (1 + seed % 4))
    cluster.until(lambda: all(call.done for call in calls))
    assert [call.error for call in calls if call.error] == []
    assert all(client.ended[call] <= 1 for client in clients for call in calls)
    cluster.run(1.0)
    for client in clients:
        assert set(addresses_of(client)) == {f"tcp://{name}:1" for name in here}
