"""The pages of a broker or worker: under which names, and what idle connections may not do."""

import contextlib
import http.client
import json
import socket

import pytest

from tests.helpers.waiting import until
from zstreamer.system.pages import MAX_CONNECTIONS, Pages, own_name, words


@pytest.fixture(scope="module")
def pages():
    page = {"/status": lambda _: words(200, {"items": 3})}
    pages = Pages("127.0.0.1", 0, page, posts={"/operator": lambda _: words(200, {})})
    yield pages
    pages.close()


@pytest.fixture
def opened():
    with contextlib.ExitStack() as stack:
        yield stack


@pytest.fixture
def connect(opened):
    def connect(pages):
        connection = http.client.HTTPConnection("127.0.0.1", pages.port, timeout=10)
        opened.callback(connection.close)
        return connection

    return connect


def get(connection, host=None, method="GET", path="/status"):
    headers = {} if host is None else {"Host": host}
    connection.request(method, path, "{}" if method == "POST" else None, headers)
    answer = connection.getresponse()
    return answer.status, json.loads(answer.read())


@pytest.mark.parametrize(
    "host",
    ["localhost", "LOCALHOST:7789", "localhost.:80", "127.0.0.1:7789", "[::1]:7789", "10.0.0.5",
     "broker.localhost"],
)  # fmt: skip
def test_loopback_pages_are_served_under_their_own_names(pages, connect, host):
    assert get(connect(pages), host) == (200, {"items": 3})


@pytest.mark.parametrize("host", ["evil.example", "evil.example:7789", "localhost.evil.example",
                                  "127.0.0.1.evil.example", ""])  # fmt: skip
def test_a_site_whose_name_leads_to_loopback_reads_and_orders_nothing(pages, connect, host):
    for method, path in (("GET", "/status"), ("POST", "/operator")):
        status, said = get(connect(pages), host, method, path)
        assert status == 421
        assert "Host" in said["error"]


def test_who_sends_no_host_is_no_browser():
    assert own_name(None)


def test_beyond_loopback_other_names_are_served(connect):
    pages = Pages("0.0.0.0", 0, {"/status": lambda _: words(200, {})})
    try:
        assert get(connect(pages), "broker.example")[0] == 200
    finally:
        pages.close()


def test_idle_connections_do_not_end_that_of_a_probe(pages, connect, opened):
    probe = connect(pages)
    assert get(probe)[0] == 200
    kept = probe.sock
    idle = [
        opened.enter_context(socket.create_connection(("127.0.0.1", pages.port), timeout=10))
        for _ in range(2 * MAX_CONNECTIONS)
    ]
    until(lambda: ended(idle) >= MAX_CONNECTIONS)
    assert get(probe)[0] == 200
    assert probe.sock is kept


def ended(connections):
    """How many the server has closed."""
    found = 0
    for each in connections:
        each.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            found += each.recv(1) == b""
    return found
