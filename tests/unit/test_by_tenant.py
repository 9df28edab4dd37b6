"""A gateway's clients by tenant: a bounded number, whose places are given on."""

import pytest

from zstreamer.client.client import Client
from zstreamer.metrics import ClientCollector
from zstreamer.web.tenants import IDLE, MOST, OTHERS, ByTenant


class Fake:
    """A client by name; `open_calls` is what a test says."""

    def __init__(self, name):
        self.name = name
        self.open_calls = 0


class Room:
    """Clients by tenant whose clock a test sets."""

    def __init__(self):
        self.now = 0.0
        self.closed = []
        self.clients = ByTenant(
            Fake(""), Fake, lambda client: self.closed.append(client.name), lambda: self.now
        )

    def of(self, name):
        return self.clients.of(name).name


@pytest.fixture
def full():
    room = Room()
    for number in range(MOST):
        assert room.of(f"made up {number}") == f"made up {number}"
    return room


def test_a_header_that_has_filled_all_places_keeps_nobody_out_for_ever(full):
    assert full.of("honest") == OTHERS
    full.now += IDLE
    assert full.of("honest") == "honest"
    assert full.closed == ["made up 0"]
    assert len(full.clients.all()) <= MOST + 2


def test_a_place_that_is_in_use_is_not_taken_away(full):
    full.now += IDLE
    full.of("made up 0")
    full.clients.of("made up 1").open_calls = 1
    full.now += 0.5 * IDLE
    assert full.of("honest") == "honest"
    assert full.closed == ["made up 2"]
    assert full.of("") == ""


def test_a_client_that_is_let_go_leaves_its_counts():
    client = Client("tcp://127.0.0.1:1", keys="")
    collector = ClientCollector(client, registry=None)
    client.tallies.new().calls["m", "ok"] += 3
    client.close()
    collector.retire(client)
    collector.retire(client)
    del client
    families = {each.name: each for each in collector.collect()}
    [sample] = families["zstreamer_client_calls"].samples
    assert sample.value == 3
