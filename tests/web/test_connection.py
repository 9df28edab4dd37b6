"""One HTTP/1.1 connection without its socket: what comes next, and what clients may take."""

import math

import pytest

from zstreamer.web.api.problem import Refused
from zstreamer.web.http.connection import (
    ARRIVAL,
    CONTINUE,
    LINGER,
    MOST_IGNORED,
    Connection,
    Overdue,
)
from zstreamer.web.http.response_head import CLOSE, KEEP
from zstreamer.web.http.shared import BODIES, LOOK, Bounds, Shared

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
LIMIT = 1000
BOUNDS = Bounds(max_body=LIMIT, keep_alive=75, read_timeout=30, write_timeout=20)


@pytest.fixture
def shared():
    return Shared(BOUNDS, 100.0, 0.0)


def post(size, sent=None, more=b""):
    body = (size if sent is None else sent) * b"a"
    return b"POST / HTTP/1.1\r\nHost: x\r\n%sContent-Length: %d\r\n\r\n%s" % (more, size, body)


def pass_time(shared, seconds):
    """Look as often as a driver does."""
    at = shared._looked
    for n in range(math.ceil(seconds / LOOK)):
        shared.look(at + (n + 1) * LOOK, 0.0)


# Order


def test_requests_are_begun_one_after_the_other(shared):
    core = Connection(shared)
    core.receive(post(1) + post(2) + post(3))
    for size in (1, 2, 3):
        assert core.waiting
        assert len(core.next().body) == size
        assert core.next() is None, "the one before is not answered"
        assert not core.idle
        assert core.answered(core.connection)
    assert core.next() is None
    assert core.idle


def test_what_cannot_be_read_is_answered_after_what_came_before(shared):
    core = Connection(shared)
    core.receive(GET + b"NONSENSE\r\n\r\n")
    assert core.next().method == "GET"
    assert core.answered(core.connection)
    refusal = core.next()
    assert isinstance(refusal, Refused)
    assert (refusal.status, core.connection) == (400, CLOSE)
    assert not core.answered(core.connection)
    assert core.finish(), "the client may go on sending for a while"


def test_nothing_is_begun_while_the_client_does_not_read(shared):
    core = Connection(shared)
    core.blocked = True
    core.receive(GET)
    assert core.next() is None
    core.blocked = False
    assert core.next() is not None


@pytest.mark.parametrize(
    ("head", "connection", "goes_on"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"", True),
        (b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", CLOSE, False),
        (b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", KEEP, True),
        (b"GET / HTTP/1.0\r\n\r\n", CLOSE, False),
    ],
)
def test_a_connection_is_kept_where_client_and_version_say_so(shared, head, connection, goes_on):
    core = Connection(shared)
    core.receive(head)
    core.next()
    assert core.connection == connection
    assert core.answered(core.connection) is goes_on


def test_a_server_that_drains_closes_after_the_open_response(shared):
    core = Connection(shared)
    core.receive(GET)
    core.next()
    shared.drain()
    assert core.connection == CLOSE


def test_a_server_that_drains_leaves_a_new_client_time_for_its_request(shared):
    core = Connection(shared)
    assert not core.idle
    pass_time(shared, ARRIVAL)
    assert core.idle


def test_a_client_that_asks_first_is_told_once_and_after_earlier_answers(shared):
    core = Connection(shared)
    core.receive(GET + post(3, 0, b"Expect: 100-continue\r\n"))
    assert core.interim() == b""
    core.next()
    assert core.interim() == b""
    core.answered(core.connection)
    assert core.interim() == CONTINUE
    assert core.interim() == b""
    core.receive(b"aaa")
    assert core.next().body == b"aaa"


def test_a_client_whose_body_is_here_need_not_be_told(shared):
    core = Connection(shared)
    core.receive(post(3, 3, b"Expect: 100-continue\r\n"))
    core.next()
    core.answered(core.connection)
    assert core.interim() == b""


# Bodies in memory


def test_a_connection_that_ends_amid_a_body_gives_its_bytes_back(shared):
    for _ in range(3 * BODIES):
        core = Connection(shared)
        core.receive(post(LIMIT, LIMIT - 1))
        assert core.next() is None
        assert shared.held == LIMIT - 1
        core.lost()
        assert shared.held == 0


@pytest.mark.parametrize("how", ["answered", "refused", "overdue"])
def test_bytes_are_given_back_however_a_request_ends(shared, how):
    core = Connection(shared)
    if how == "answered":
        core.receive(post(LIMIT))
        core.next()
        core.answered(core.connection)
        assert shared.held == 0
    else:
        core.receive(post(LIMIT, LIMIT - 1))
        if how == "overdue":
            core.overdue()
        else:
            core.receive(b"a" + b"NONSENSE\r\n\r\n")
            core.next()
            core.answered(core.connection)
        core.next()
        core.answered(core.connection)
        assert shared.held == 0
    core.lost()
    assert shared.held == 0


def test_an_answer_keeps_the_count_of_the_body_that_follows(shared):
    core = Connection(shared)
    core.receive(post(10) + post(LIMIT, 7))
    core.next()
    core.answered(core.connection)
    assert shared.held == 7


def test_bodies_of_all_connections_together_are_bounded(shared):
    cores = [Connection(shared) for _ in range(BODIES + 2)]
    for core in cores:
        core.receive(post(LIMIT, LIMIT - 1))
    refused = [core.next() for core in cores[BODIES:]]
    assert [each.status for each in refused] == [503, 503]
    assert {core.next() for core in cores[:BODIES]} == {None}
    for core in cores:
        core.lost()
    assert shared.held == 0


# Time


def test_an_idle_connection_is_closed(shared):
    core = Connection(shared)
    assert core.deadline == 75
    assert core.overdue() is Overdue.CLOSE


def test_a_slow_request_is_told_so(shared):
    core = Connection(shared)
    core.receive(post(500, 100))
    assert core.deadline == pytest.approx(30, abs=0.1)
    assert core.overdue() is Overdue.ANSWER
    assert core.next().status == 408


def test_a_large_body_has_longer():
    shared = Shared(Bounds(max_body=2**20, read_timeout=30), 0.0, 0.0)
    core = Connection(shared)
    core.receive(post(2**20, 2**19))
    assert core.deadline == pytest.approx(30 + 8, abs=0.1)


def test_an_open_request_is_bound_by_its_own_budget_alone(shared):
    core = Connection(shared)
    core.receive(GET + post(500, 100))
    core.next()
    assert core.deadline == math.inf
    core.receive(100 * b"a")
    assert core.deadline == math.inf
    core.answered(core.connection)
    assert core.deadline == 30, "the time of the next request begins with the answer"


def test_a_client_that_takes_nothing_is_left_and_one_that_takes_some_is_not(shared):
    core = Connection(shared)
    core.receive(GET)
    core.next()
    core.blocked = True
    core.answered(core.connection)
    assert core.deadline == 20
    assert core.overdue(100) is Overdue.WAIT
    assert core.overdue(99) is Overdue.WAIT
    assert core.overdue(99) is Overdue.ABORT


def test_a_refused_client_is_left_after_a_while(shared):
    core = Connection(shared)
    core.receive(b"NONSENSE\r\n\r\n")
    core.next()
    core.answered(core.connection)
    assert core.finish()
    assert core.deadline == LINGER
    assert core.overdue() is Overdue.ABORT


def test_a_refused_client_may_not_send_for_ever(shared):
    core = Connection(shared)
    assert core.receive(b"NONSENSE\r\n\r\n")
    assert core.receive(bytes(2**20))
    assert core.receive(bytes(MOST_IGNORED // 2))
    assert not core.receive(bytes(MOST_IGNORED // 2))


# All connections


class Served:
    """A driver's connection that notes what it is told."""

    def __init__(self, shared, deadline):
        self.deadline = deadline
        self.told = []
        shared.connections.add(self)

    def overdue(self):
        self.told.append("overdue")
        self.deadline = math.inf

    def drain(self):
        self.told.append("drain")


def test_no_deadline_ends_early_and_none_later_than_two_looks(shared):
    late = Served(shared, 1.0)
    pass_time(shared, 1.0)
    assert late.told == []
    pass_time(shared, 2 * LOOK)
    assert late.told == ["overdue"]


def test_clients_of_a_program_that_stood_still_are_not_blamed(shared):
    served = Served(shared, 5.0)
    shared.look(100.0 + 3600, 0.0)
    assert served.told == []
    assert shared.now <= 2 * LOOK


def test_where_all_connections_are_taken_idle_ones_make_room(shared):
    idle, busy = Served(shared, BOUNDS.keep_alive), Served(shared, math.inf)
    for _ in range(8):
        shared.look(shared._looked + LOOK, 0.0, crowded=True)
    assert set(idle.told) == {"drain"}
    assert busy.told == []


@pytest.mark.parametrize("name", ["max_body", "keep_alive", "read_timeout", "write_timeout"])
@pytest.mark.parametrize("value", [0, -1, True])
def test_a_bound_that_makes_no_sense_is_named(name, value):
    with pytest.raises(ValueError, match=f"{name} must be positive"):
        Bounds(**{name: value})
