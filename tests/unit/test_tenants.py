"""What tenants share, and what each may ask for."""

from __future__ import annotations

import math
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from tests.unit.test_broker_core import Room
from tests.unit.test_queue import lot
from zstreamer.broker import terms
from zstreamer.broker.clients import ClientRecord
from zstreamer.broker.queue import FairQueue
from zstreamer.broker.tenants import MAX_TENANTS, OTHERS, Tenant, Tenants, Terms
from zstreamer.errors import Code
from zstreamer.setting import ConfigError
from zstreamer.wire import protocol
from zstreamer.wire.protocol import Role


def served(queue, count, by):
    """Count whom so many items are of, taken a batch at a time."""
    found: Counter[object] = Counter()
    while sum(found.values()) < count:
        for each in queue.take(64):
            found[by(each)] += len(each.ids)
    return found


@settings(deadline=None, max_examples=25)
@given(some.integers(1, 12), some.integers(1, 4), some.sampled_from([0.25, 1.0, 3.0]))
def test_tenants_share_by_weight_however_many_clients_each_has(many, few, weight):
    queue = FairQueue()
    queue.fit(64)
    crowd, other = Tenant("crowd", Terms()), Tenant("other", Terms(weight=weight))
    members = [ClientRecord(n, 1000, tenant=crowd) for n in range(many)]
    members += [ClientRecord(100 + n, 1000, tenant=other) for n in range(few)]
    for client in members:
        queue.push(lot(client, *range(9_000)))
    found = served(queue, 6_000, lambda each: each.client.tenant.name)
    share = found["other"] / sum(found.values())
    assert share == pytest.approx(weight / (1 + weight), rel=0.05)


def test_clients_of_one_tenant_still_take_turns():
    queue = FairQueue()
    one, other = Tenant("one", Terms()), Tenant("other", Terms())
    for n, tenant in ((1, one), (2, one), (3, other)):
        queue.push(lot(ClientRecord(n, 1000, tenant=tenant), *range(5000)))
    found = served(queue, 4000, lambda each: each.client.id)
    assert found[3] == pytest.approx(2000, rel=0.05)
    assert found[1] == pytest.approx(found[2], rel=0.07)


def test_who_comes_beside_a_tenant_of_a_hundred_times_its_load_is_served_next():
    queue = FairQueue()
    crowd, small = Tenant("crowd", Terms()), Tenant("small", Terms())
    for n in range(100):
        queue.push(lot(ClientRecord(n, 1000, tenant=crowd), *range(100)))
    queue.take(64)
    client = ClientRecord(1000, 1000, tenant=small)
    assert queue.ahead(client, 0) <= 64
    queue.push(lot(client, 0))
    assert client in [each.client for each in queue.take(65)]


def test_a_rate_holds_on_average_and_says_when_to_come_again():
    tenant = Tenant("t", Terms(items_per_second=10.0), now=0.0)
    now, taken = 0.0, 0
    while now < 20.0:
        refusal = tenant.refusal(now, 5, 0, 1000, 1000)
        if refusal is None:
            tenant.admit(5, 0)
            taken += 5
        else:
            assert 0 < refusal.retry_after <= 0.6
            now += refusal.retry_after
    assert 200 <= taken <= 220  # and the second's worth that it had saved


def test_a_call_larger_than_a_second_of_the_rate_is_taken_and_paid_for_afterwards():
    tenant = Tenant("t", Terms(items_per_second=10.0), now=0.0)
    assert tenant.refusal(0.0, 100, 0, 1000, 1000) is None
    tenant.admit(100, 0)
    refusal = tenant.refusal(0.0, 1, 0, 1000, 1000)
    assert refusal is not None
    assert refusal.retry_after == pytest.approx(9.0, abs=0.01)
    assert tenant.refusal(9.1, 1, 0, 1000, 1000) is None


def hello(room, name, tenant, id):
    info = {"open": [], "tenant": tenant}
    room.from_client(name, protocol.hello(protocol.Hello(Role.CLIENT, id, info)))
    return room.take(name)


def refused(room, name):
    return [
        (slot[0], slot[2])
        for message in room.take(name)
        if isinstance(message, protocol.Answer)
        for slot in message.slots
        if isinstance(slot, list)
    ]


def test_the_clients_of_a_tenant_share_its_limits_and_others_do_not():
    room = Room()
    tenants = {"t": Terms(open_items=3), OTHERS: Terms(open_items=2)}
    room.core.sessions.tenants.agree(tenants, room.now)
    for n, (name, tenant) in enumerate([("A", "t"), ("B", "t"), ("C", "u")], 1):
        hello(room, name, tenant, n)
    room.submit("A", 1, 2)
    room.submit("B", 1, lane=1)
    assert refused(room, "A") == refused(room, "B") == []
    room.submit("B", 2, lane=2)
    [(code, details)] = refused(room, "B")
    assert code == Code.OVERLOADED
    assert details["retry_after"] > 0
    room.submit("C", 1, 2, lane=1)
    assert refused(room, "C") == []
    room.from_client("A", protocol.plain(protocol.Cancel([1])))
    room.submit("B", 3)  # what is given up counts no more
    assert refused(room, "B") == []


def test_new_terms_hold_at_once_and_a_priority_above_the_highest_counts_as_that():
    room = Room()
    hello(room, "A", "low", 1)
    hello(room, "B", "", 2)
    room.core.sessions.tenants.agree({"low": Terms(max_priority=-1)}, room.now)
    room.submit("A", 1, priority=9)
    room.submit("B", 1)
    room.worker("W")
    room.turn()
    work = [each for each in room.take("W") if isinstance(each, protocol.Work)]
    assert work
    lots = [each for worker in room.core.workers.values() for each in worker.tickets.values()]
    assert {each.client.id: each.priority for each in lots} == {1: -1, 2: 0}


@pytest.mark.parametrize("tenant", [7, None, "x" * 256, ["t"], "a\u2028b"])
def test_a_tenant_that_is_no_name_is_refused_with_words(tenant):
    room = Room()
    [refuse] = hello(room, "A", tenant, 1)
    assert isinstance(refuse, protocol.Refuse)
    assert "tenant" in refuse.error[1]


def test_names_that_peers_make_up_cost_a_bounded_number_of_records():
    tenants = Tenants({"known": Terms(weight=2)})
    held = [tenants.named(f"made up {n}", 0.0) for n in range(MAX_TENANTS)]
    for each in held:
        each.clients = 1
    assert tenants.named("one more", 0.0).name == OTHERS
    assert tenants.named("known", 0.0).terms.weight == 2
    for each in held:
        each.clients = 0
    assert tenants.named("later", 0.0).name == "later"
    assert len(list(tenants)) <= MAX_TENANTS


def test_a_tenant_that_is_forgotten_while_it_owes_would_have_a_fresh_rate():
    tenants = Tenants({OTHERS: Terms(items_per_second=10)})
    tenants.named("greedy", 0.0).admit(1000, 0)
    for n in range(2 * MAX_TENANTS):
        tenants.named(f"made up {n}", 0.0)
    assert tenants.named("greedy", 1.0).refusal(1.0, 1, 0, 10**6, 10**6) is not None
    for n in range(2 * MAX_TENANTS):
        tenants.named(f"made up {n}", 200.0)
    assert tenants.named("greedy", 200.0).refusal(200.0, 1, 0, 10**6, 10**6) is None


def test_a_file_says_what_tenants_may_ask_for_and_is_read_again(tmp_path):
    file = tmp_path / "tenants.toml"
    file.write_text(
        '[broker]\nport = 7787\n[tenants.a]\nweight = 2\n[tenants."*"]\nopen_items = 5\n'
    )
    read = terms.TermsFile(file)
    assert read.terms == {"a": Terms(weight=2.0), "*": Terms(open_items=5)}
    assert not read.changed(0.0)
    file.write_text("[tenants.a]\nweight = 3.5\n")
    assert read.changed(10.0)
    assert read.terms == {"a": Terms(weight=3.5)}
    file.write_text("[tenants.a]\nweight = -1\n")
    assert not read.changed(20.0)
    assert read.terms == {"a": Terms(weight=3.5)}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[tenants.a]\nweigth = 1", "weigth"),
        ("[tenants.a]\nweight = 0", "0.001 to 1000"),
        ("[tenants.a]\nweight = 1e308", "0.001 to 1000"),
        ("[tenants.a]\nopen_items = inf", "whole number"),
        ("[tenants.a]\nmax_priority = nan", "whole number"),
        ("[tenants.a]\nitems_per_second = 1e-310", "0.001 to"),
        ("[tenants.a]\nbytes_per_second = " + "9" * 400, "0.001 to"),
        ("[tenants.a]\nopen_items = 1.5", "whole number"),
        ("[tenants.a]\nqueue_share = 2", "1e-06 to 1"),
        ("[tenants.a]\nitems_per_second = true", "0.001 to"),
        ("[tenants]\na = 1", "[tenants.a]"),
        ('[tenants."a\\u2028b"]\nweight = 1', "printable"),
        ("tenants = 1", "[tenants.NAME]"),
    ],
)
def test_a_mistake_in_the_file_is_named(tmp_path, text, words):
    file = tmp_path / "tenants.toml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        terms.TermsFile(file)
    assert words in str(caught.value)
    assert str(file) in str(caught.value)


def test_without_terms_nothing_is_limited():
    assert not Terms().limited
    assert not Terms(weight=3).limited
    assert Terms(items_per_second=1).limited
    assert Terms().items_per_second == math.inf
