"""`zstreamer roll` where a broker is busy, does not answer, or refuses in the middle of it."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from click.testing import CliRunner

from tests.unit.test_versions import Versioned
from zstreamer.broker import operator
from zstreamer.broker.routes import Route
from zstreamer.broker.sessions import Side
from zstreamer.cli import roll as command
from zstreamer.cli import route as routes
from zstreamer.setting import ConfigError

pytestmark = pytest.mark.timeout(60)

Fault = Callable[[Versioned, dict[str, Any]], int]
"""Told of an order, returns the status to answer with: 200 to carry it out, 0 for no answer."""


@contextmanager
def broker(room: Versioned, fault: Fault) -> Iterator[str]:
    """Serve a broker core's orders over HTTP, with faults."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            status, body = fault(room, asked), {"error": "a fault"}
            if status == 200:
                order = asked["action"], asked["name"], asked["change"]
                status, body = operator.act(room.core, room.now, *order)
                room.turn(0.3)
            if status:
                self.send_response(status)
                self.end_headers()
                self.wfile.write(json.dumps(body).encode())

        def log_message(self, *_: object) -> None: ...

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def room(monkeypatch):
    monkeypatch.setattr(command, "LOOK", 0.01)
    room = Versioned()
    room.serve("W", "1")
    room.serve("V", "2")
    room.route(weights={"1": 1})
    return room


def run(url: str) -> Any:
    options = (
        "--to",
        "2",
        "--steps",
        "50,100",
        "--pause",
        "0",
        "--timeout",
        "20",
        "--broker-url",
        url,
    )
    return CliRunner().invoke(command.roll, ["bert", *options], standalone_mode=False)


@pytest.mark.parametrize("status", [503, 0])
def test_a_roll_asks_a_broker_again_that_does_not_answer_for_a_while(room, status):
    count = iter(range(1, 1000))
    with broker(room, lambda *_: 200 if next(count) % 3 else status) as url:
        result = run(url)
    assert (result.exception, result.return_value) == (None, 0), result.output
    assert "the workers of bert@1 hold nothing and get nothing: stop them" in result.output
    assert room.family()["route"] == {"weights": {"2": 1.0}}
    assert room.family()["versions"]["1"]["warm"] == 0


def test_an_old_worker_that_leaves_by_itself_is_as_good_as_drained(room):
    def leave(room: Versioned, asked: dict[str, Any]) -> int:
        if asked["action"] == "drain":
            room.lose("W", Side.WORKER)
        return 200

    with broker(room, leave) as url:
        result = run(url)
    assert (result.exception, result.return_value) == (None, 0), result.output
    assert "done: no other version has a worker" in result.output
    assert room.family()["route"] == {"weights": {"2": 1.0}}


def test_a_roll_tells_a_broker_again_that_has_forgotten_its_routes(room):
    versions, forgets = room.core.scheduler.versions, iter([True])

    def forget(room: Versioned, asked: dict[str, Any]) -> int:
        route = versions.routes.get("bert", Route())
        if route.weights == {"2": 1.0} and next(forgets, False):
            versions.agree({})
        return 200

    with broker(room, forget) as url:
        result = run(url)
    assert (result.exception, result.return_value) == (None, 0), result.output
    assert next(forgets, None) is None
    assert room.family()["route"] == {"weights": {"2": 1.0}}


def test_a_roll_that_an_error_ends_puts_the_weights_back(room):
    busy = iter([503, 0, 503])

    def refuse(room: Versioned, asked: dict[str, Any]) -> int:
        weights = (asked["change"] or {}).get("weights", {})
        if weights == {"2": 1.0}:
            return 400
        return next(busy, 200) if weights == {"1": 1.0} else 200

    with broker(room, refuse) as url:
        result = run(url)
    assert isinstance(result.exception, ConfigError)
    assert "the items go as before" in result.output
    assert room.family()["route"] == {"weights": {"1": 1.0}}


def test_a_roll_that_fails_while_the_broker_is_busy_puts_the_weights_back(room):
    busy = iter([503, 0, 503])

    def lose(room: Versioned, asked: dict[str, Any]) -> int:
        weights = (asked["change"] or {}).get("weights", {})
        if "1" in weights and "2" in weights:
            room.lose("V", Side.WORKER)
        return next(busy, 200) if weights == {"1": 1.0} else 200

    with broker(room, lose) as url:
        result = run(url)
    assert (result.exception, result.return_value) == (None, 1), result.output
    assert room.family()["route"] == {"weights": {"1": 1.0}}


def test_a_roll_that_fails_leaves_no_weights_where_there_were_none(room):
    room.route(weights=None)

    def refuse(room: Versioned, asked: dict[str, Any]) -> int:
        return 400 if (asked["change"] or {}).get("weights") == {"2": 1.0} else 200

    with broker(room, refuse) as url:
        result = run(url)
    assert isinstance(result.exception, ConfigError)
    assert not room.family()["route"].get("weights")


def test_a_route_names_versions_that_have_no_worker_yet(room):
    room.route(weights={"1": 90, "3": 10}, hold={"3": 4})
    with broker(room, lambda *_: 200) as url:
        options = ["bert", "--broker-url", url]
        result = CliRunner().invoke(routes.route, options, standalone_mode=False)
    assert "3: no worker yet, weight 10, held back until 4 are warm" in result.output
