"""Orders of operators that the broker cannot carry out: it says so, and goes on."""

from __future__ import annotations

import json
import socket
import threading
from email.message import Message
from typing import Any

import pytest

from tests.helpers.waiting import until
from tests.unit.test_broker_core import Room
from zstreamer.broker.orders import Orders
from zstreamer.system.pages import Page, Pages, Request, words


def ask(core: Any, *bodies: bytes) -> list[Page]:
    """Send orders from threads of their own, and have them carried out."""
    orders, pages = Orders(""), dict[int, Page]()

    def take(number: int, body: bytes) -> None:
        pages[number] = orders.take(Request("127.0.0.1", Message(), body))

    threads = [threading.Thread(target=take, args=each) for each in enumerate(bodies)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        orders.carry_out(core, 0.0)
        threads[0].join(0.005)
    return [pages[number] for number in sorted(pages)]


def drain(name: object, change: object = None) -> bytes:
    return json.dumps({"action": "drain", "name": name, "change": change}).encode()


@pytest.mark.timeout(30)
def test_an_order_at_which_the_broker_fails_is_answered_and_logged(caplog):
    class Broken:
        """A core without what an order needs."""

    pages = ask(Broken(), drain("host"), drain("host"))
    assert [page.status for page in pages] == [500, 500]
    assert "its log" in json.loads(pages[0].body)["error"]
    assert "AttributeError" in caplog.text


@pytest.mark.timeout(30)
def test_an_order_with_too_many_brackets_is_refused():
    deep = b"[" * 2000 + b"]" * 2000
    body = b'{"action": "drain", "name": "x", "change": ' + deep + b"}"
    [page] = ask(Room().core, body)
    assert page.status in (400, 404)  # as deep as Python reads
    [page] = ask(Room().core, drain("\udcff"))
    assert page.status == 404


def test_an_order_that_nobody_waits_for_any_more_is_not_carried_out(monkeypatch):
    core = Room().core
    monkeypatch.setattr("zstreamer.broker.orders.PATIENCE", 0.01)
    orders = Orders("")
    body = json.dumps({"action": "drain", "name": "broker"}).encode()
    page = orders.take(Request("127.0.0.1", Message(), body))  # the loop stands still
    assert (page.status, b"nothing was done" in page.body) == (503, True)
    orders.carry_out(core, 0.0)
    assert not core.draining
    orders.take(Request("127.0.0.1", Message(), body, lambda: True))  # it has hung up
    orders.carry_out(core, 0.0)
    assert not core.draining


@pytest.mark.timeout(30)
def test_a_request_knows_that_its_sender_has_hung_up():
    came, ended = threading.Event(), threading.Event()
    found: list[bool] = []

    def post(request: Request) -> Page:
        found.append(request.gone())
        came.set()
        ended.wait(20)
        until(request.gone, 10)
        found.append(True)
        return words(200, {})

    pages = Pages("127.0.0.1", 0, {}, posts={"/operator": post})
    try:
        with socket.create_connection(("127.0.0.1", pages.port)) as peer:
            head = b"POST /operator HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}"
            peer.sendall(head)
            assert came.wait(20)
        ended.set()
        until(lambda: found == [False, True], 20)
    finally:
        pages.close()
