"""The WSGI app, and what stands between it and the bytes of the gevent server's connections."""

import io
import socket
from wsgiref.validate import validator

import pytest
from flask import Flask, jsonify
from werkzeug.test import Client as WerkzeugClient

from tests.helpers.program import succeed
from zstreamer import Client, errors
from zstreamer.config import ConfigError, GatewayConfig
from zstreamer.web.cancel_on_disconnect import has_gone
from zstreamer.web.flask import problem
from zstreamer.web.http.environ import Environs
from zstreamer.web.http.wsgi_response import Answer, Gone
from zstreamer.web.wsgi import App, Problems

# From bytes to an environ


class Taken:
    """A connection that keeps what its receiver makes of the bytes."""

    def __init__(self, data, max_body=1000):
        self.environs, self.refused = [], []
        self.receiver = Environs(self, max_body, ("here", 80), ("there", 4711))
        self.receiver.feed(data)

    def begun(self):
        pass

    def expects(self):
        pass

    def grew(self, size):
        pass

    def take(self, request, connection):
        self.environs.append(self.receiver.environ(request))

    def refuse(self, status, detail=""):
        self.refused.append(status)


def environ_of(data):
    [environ] = Taken(data).environs
    return environ


def test_an_environ_says_all_of_a_request():
    environ = environ_of(
        b"POST /a%20b/?q=%20x HTTP/1.1\r\nHost: a:80\r\nContent-Type: text/plain\r\n"
        b"X-Two-Words: yes\r\nContent-Length: 3\r\n\r\nabc"
    )
    assert environ["wsgi.input"].read() == b"abc"
    assert {name: environ[name] for name in environ if name.isupper()} == {
        "REQUEST_METHOD": "POST",
        "SCRIPT_NAME": "",
        "PATH_INFO": "/a b/",
        "QUERY_STRING": "q=%20x",
        "CONTENT_TYPE": "text/plain",
        "CONTENT_LENGTH": "3",
        "HTTP_HOST": "a:80",
        "HTTP_X_TWO_WORDS": "yes",
        "SERVER_NAME": "here",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "SERVER_SOFTWARE": "zstreamer",
        "REMOTE_ADDR": "there",
        "REMOTE_PORT": "4711",
    }


def test_a_path_is_bytes_as_characters_of_latin_1():
    path = environ_of(b"GET /gr%C3%BC%C3%9Fe HTTP/1.1\r\nHost: a\r\n\r\n")["PATH_INFO"]
    assert path.encode("latin-1").decode() == "/grüße"


def test_headers_that_come_again_are_joined():
    environ = environ_of(
        b"GET / HTTP/1.1\r\nHost: a\r\nAccept: a\r\nCookie: c=1\r\nAccept: b\r\nCookie: d=2\r\n\r\n"
    )
    assert (environ["HTTP_ACCEPT"], environ["HTTP_COOKIE"]) == ("a, b", "c=1; d=2")


def test_a_header_cannot_pose_as_another():
    environ = environ_of(b"GET / HTTP/1.1\r\nHost: a\r\nX_User: evil\r\nX-User: good\r\n\r\n")
    assert environ["HTTP_X_USER"] == "good"


def test_a_body_in_chunks_is_whole_and_of_known_length():
    environ = environ_of(
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"2\r\nab\r\n1\r\nc\r\n0\r\n\r\n"
    )
    assert environ["wsgi.input"].read() == b"abc"
    assert environ["CONTENT_LENGTH"] == "3"
    assert "HTTP_TRANSFER_ENCODING" not in environ


def test_requests_behind_each_other_have_environs_of_their_own():
    one, two = Taken(
        b"POST /1 HTTP/1.1\r\nHost: a\r\nX-A: 1\r\nContent-Length: 1\r\n\r\n1"
        b"GET /2 HTTP/1.1\r\nHost: a\r\n\r\n"
    ).environs
    assert (one["PATH_INFO"], one["HTTP_X_A"], one["wsgi.input"].read()) == ("/1", "1", b"1")
    assert (two["PATH_INFO"], two["wsgi.input"].read()) == ("/2", b"")
    assert not {"HTTP_X_A", "CONTENT_LENGTH"} & set(two)


# From an app to bytes


class Way:
    """Keeps what is sent; `room`: pieces that are taken before the client is gone."""

    date = b"date: now\r\n"
    ends = False

    def __init__(self, room=99):
        self.sent = []
        self.room = room

    def send(self, data):
        if len(self.sent) >= self.room:
            raise Gone
        self.sent.append(data)


def answered(app, method="GET", protocol="HTTP/1.1", way=None, connection=b""):
    """The pieces that leave, and whether the connection is closed."""
    way = way or Way()
    environ = {"REQUEST_METHOD": method, "SERVER_PROTOCOL": protocol, "PATH_INFO": "/"}
    answer = Answer(way, environ, connection)
    answer.run(app)
    return way.sent, answer.connection == b"connection: close\r\n"


def app_of(result, status="200 OK", headers=()):
    def app(environ, start_response):
        start_response(status, list(headers))
        return result() if callable(result) else result

    return app


def test_head_and_body_leave_together():
    sent, closes = answered(app_of([b"ab", b"c"], headers=[("X-A", "1")]))
    assert sent == [b"HTTP/1.1 200 OK\r\nX-A: 1\r\ndate: now\r\ncontent-length: 3\r\n\r\nabc"]
    assert not closes


def test_what_the_app_says_itself_is_not_said_twice():
    headers = [("Content-Length", "1"), ("Date", "then"), ("Connection", "close")]
    sent, closes = answered(app_of([b"a"], headers=headers))
    lines = b"Content-Length: 1\r\nDate: then\r\nConnection: close\r\n"
    assert sent == [b"HTTP/1.1 200 OK\r\n" + lines + b"\r\na"]
    assert closes


def test_what_has_no_known_length_leaves_in_chunks():
    sent, closes = answered(app_of(lambda: iter([b"", b"ab", b"", b"c"])))
    head = b"HTTP/1.1 200 OK\r\ndate: now\r\ntransfer-encoding: chunked\r\n\r\n"
    assert sent == [head + b"2\r\nab\r\n", b"1\r\nc\r\n", b"0\r\n\r\n"]
    assert not closes


def test_to_an_old_client_the_end_of_the_connection_is_that_of_the_body():
    sent, closes = answered(app_of(lambda: iter([b"ab", b"c"])), protocol="HTTP/1.0")
    assert sent == [b"HTTP/1.1 200 OK\r\ndate: now\r\nconnection: close\r\n\r\nab", b"c"]
    assert closes


@pytest.mark.parametrize(
    ("method", "status", "length"),
    [("HEAD", "200 OK", b"content-length: 1\r\n"), ("GET", "204 No", b""), ("GET", "304 No", b"")],
)
def test_some_answers_have_no_body(method, status, length):
    sent, closes = answered(app_of([b"a"], status), method)
    assert sent == [f"HTTP/1.1 {status}\r\ndate: now\r\n".encode() + length + b"\r\n"]
    assert not closes


def test_a_large_body_is_not_copied():
    body = bytes(1_000_000)
    sent, _ = answered(app_of([body], headers=[("Content-Length", "1000000")]))
    assert sent[1] is body


def test_an_app_may_write_before_it_returns():
    def app(environ, start_response):
        write = start_response("200 OK", [])
        write(b"ab")
        return [b"c"]

    sent, _ = answered(app)
    assert b"".join(sent).endswith(b"2\r\nab\r\n1\r\nc\r\n0\r\n\r\n")


def test_an_app_may_change_its_mind_until_something_is_sent():
    def app(environ, start_response):
        start_response("200 OK", [])
        try:
            raise ValueError
        except ValueError as error:
            start_response("500 No", [], (ValueError, error, error.__traceback__))
        return [b"a"]

    assert answered(app)[0][0].startswith(b"HTTP/1.1 500 No\r\n")


@pytest.mark.parametrize(
    "app",
    [
        app_of([b""], "200 OK\r\nX: 1"),
        app_of([b""], headers=[("X", "1\nY: 2")]),
        app_of([b""], headers=[("X", "\u0100")]),
        app_of([b""], headers=[("X", 1)]),
        lambda environ, start_response: [b"no start_response"],
        lambda environ, start_response: 1 / 0,
        app_of([b""], "two hundred"),
    ],
)
def test_an_app_that_fails_is_a_500_that_tells_strangers_nothing(app, caplog):
    sent, closes = answered(app)
    assert sent[0].startswith(b"HTTP/1.1 500 ")
    assert sent[0].endswith(b'"retryable":false}')
    assert len(caplog.records) == 1
    assert not closes


def test_an_error_of_zstreamer_is_its_own_problem(caplog):
    def app(environ, start_response):
        raise errors.Overloaded("full", 2.5)

    [sent], _ = answered(app)
    assert sent.startswith(b"HTTP/1.1 429 ")
    assert b"retry-after: 3\r\n" in sent
    assert not caplog.records


def test_an_app_that_fails_amid_its_answer_is_cut_off(caplog):
    def app(environ, start_response):
        start_response("200 OK", [])
        yield b"a"
        raise ValueError

    sent, closes = answered(app)
    assert (len(sent), closes) == (1, True)


def test_a_wrong_length_does_not_put_later_answers_out_of_step(caplog):
    _, closes = answered(app_of([b"abc"], headers=[("Content-Length", "2")]))
    assert closes


def test_a_result_is_closed_also_where_the_client_is_gone():
    class Result(list):
        closed = False

        def close(self):
            self.closed = True

    result = Result([b"a"])
    with pytest.raises(Gone):
        answered(app_of(result), way=Way(room=0))
    assert result.closed


# Has the other side gone?


def test_only_the_end_of_a_connection_is_a_hang_up():
    here, there = socket.socketpair()
    here.setblocking(False)
    assert not has_gone(here)
    there.send(b"the next request")
    assert not has_gone(here)
    here.recv(100)
    there.close()
    assert has_gone(here)
    here.close()
    assert has_gone(here)


GIVEN_UP = """
from gevent import monkey
monkey.patch_all()
import gevent, sys
from zstreamer import Client, errors
from zstreamer.client.green import give_up

client = Client(sys.argv[1], model="gate")
assert client.addresses == (sys.argv[1],)
waits = gevent.spawn(client.predict, ["never"])
works = gevent.spawn(gevent.sleep, 0.3)
gevent.sleep(0.1)
give_up([waits, works, None])
waits.join(10)
assert isinstance(waits.exception, errors.Cancelled), waits
works.get(timeout=10)
client.close()
print("fine")
"""


def test_only_what_waits_for_a_model_is_given_up(shared, tmp_path):
    with shared.gate():
        succeed(tmp_path, GIVEN_UP, shared.address)


RAW = """
from gevent import monkey
monkey.patch_all()
import gevent, sys
from zstreamer import Client

client = Client(sys.argv[1], model="double")
answers = []
def call(n):
    answers.append(client.predict([n]))
    if n % 2:
        raise ValueError("a raw greenlet's errors are the hub's")
for n in range(300):
    gevent.spawn_raw(call, n)
with gevent.Timeout(20):
    while len(answers) < 300:
        gevent.sleep(0.01)
assert sorted(answers) == [[2 * n] for n in range(300)]
print("fine")
"""


def test_a_greenlet_that_dies_of_its_answer_leaves_others_theirs(shared, tmp_path):
    succeed(tmp_path, RAW, shared.address)


# The gevent server, where clients take too much

BOUNDED = """
from gevent import monkey
monkey.patch_all()
import gevent, json, socket, sys, time
from zstreamer.web.http import pywsgi

def app(environ, start_response):
    start_response("200 OK", [])
    return [b"here"]

def ask(connection):
    connection.sendall(b"GET / HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n")
    return connection.recv(4096)

def connect():
    return socket.create_connection(server.place, timeout=20)

bounds = pywsgi.Bounds(**json.loads(sys.argv[1]))
server = pywsgi.Server(app, pywsgi.listen("127.0.0.1", 0), bounds)
server.start()
"""

CROWD = (
    BOUNDED
    + """
idle = [connect() for _ in range(2)]
assert ask(idle[0]).endswith(b"here")
assert ask(connect()).endswith(b"here")
assert idle[1].recv(1) == b""
server.stop(1)
print("fine")
"""
)


def test_idle_connections_make_room_for_others(tmp_path):
    succeed(tmp_path, CROWD, '{"max_connections": 2}')


IDLE = (
    BOUNDED
    + """
connection = connect()
assert ask(connection).endswith(b"here")
assert ask(connection).endswith(b"here")
assert connection.recv(1) == b""
server.stop(1)
print("fine")
"""
)


def test_an_idle_connection_is_closed_in_time(tmp_path):
    succeed(tmp_path, IDLE, '{"keep_alive": 0.5}')


UNPATCHED = """
from zstreamer.web.http import pywsgi
try:
    pywsgi.serve(None)
except RuntimeError as error:
    assert "monkey.patch_all()" in str(error)
    print("fine")
"""


def test_a_program_that_is_not_patched_is_told_so(tmp_path):
    succeed(tmp_path, UNPATCHED)


# The app


class Browser(WerkzeugClient):
    """Closes what an app has returned, as a server does."""

    def open(self, *arguments, **more):
        return super().open(*arguments, buffered=True, **more)


@pytest.fixture(scope="module")
def app(shared):
    with Client(shared.address) as client:
        yield App(client)


@pytest.fixture
def browser(app):
    return Browser(validator(app))  # checks both sides of PEP 3333


def ask(browser, model, items, **more):
    return browser.post(f"/v1/models/{model}:predict", json={"instances": items}, **more)


def test_the_app_answers(browser):
    answer = ask(browser, "double", [1, 2])
    assert (answer.status, answer.json) == ("200 OK", {"predictions": [2, 4]})
    assert answer.headers["Content-Length"] == str(len(answer.data))
    form = {"s": ["a", "b"]}
    assert browser.post("/stream", data=form).status_code == 404  # there is no model `default`
    assert browser.get("/readyz?model=double").json["ready"] is True


def test_the_app_answers_a_head_without_a_body(browser):
    whole, answer = browser.get("/healthz"), browser.head("/healthz")
    assert (answer.status_code, answer.data) == (200, b"")
    assert answer.headers["Content-Length"] == str(len(whole.data))


def test_the_app_serves_below_a_path_that_is_not_ascii(browser):
    answer = browser.get("/v1/models/grün")
    assert answer.status_code == 404
    assert "grün" in answer.json["detail"]


@pytest.mark.parametrize(
    ("environ", "body", "status"),
    [
        ({"CONTENT_LENGTH": "1000"}, b"short", 400),
        ({"CONTENT_LENGTH": "many"}, b"", 400),
        ({"CONTENT_LENGTH": "-1"}, b"", 400),
        ({"CONTENT_LENGTH": "9" * 30}, b"", 413),
        ({"HTTP_TRANSFER_ENCODING": "chunked"}, b"{}", 411),
    ],
)
def test_a_body_that_cannot_be_read_is_refused(app, environ, body, status):
    given = {
        "REQUEST_METHOD": "POST",
        "PATH_INFO": "/v1/models/double:predict",
        "QUERY_STRING": "",
        "wsgi.input": io.BytesIO(body),
        **environ,
    }
    started = []
    app(given, lambda status, headers: started.append(status))
    assert started[0].startswith(str(status))


def test_an_address_that_is_none_is_named():
    with pytest.raises(ConfigError, match="localhost:7787"):
        App("localhost:7787")
    with pytest.raises(ConfigError, match="max_timeout"):
        App(GatewayConfig(timeout=10, max_timeout=5))


def test_an_app_of_its_own_may_be_closed(shared):
    app = App(shared.address)
    assert ask(Browser(app), "double", [1]).status_code == 200
    app.close()
    assert ask(Browser(app), "double", [1]).status_code == 499


# Around apps of one's own


def overloaded(environ, start_response):
    raise errors.Overloaded("full", 2.5)


def test_errors_of_a_bare_app_become_problems():
    answer = Browser(validator(Problems(overloaded))).get("/")
    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "3")
    assert answer.json["type"] == "urn:zstreamer:problem:overloaded"
    bare = Browser(Problems(overloaded)).head("/")
    assert (bare.data, bare.headers["Content-Length"]) == (b"", str(len(answer.data)))


def test_errors_of_a_flask_app_become_problems(client_of):
    client = client_of("picky")
    app = Flask("own")
    app.register_error_handler(errors.ZStreamerError, problem)
    app.add_url_rule("/", view_func=lambda: jsonify(client.predict(["boom"])))
    answer = Browser(app).get("/")
    assert answer.status_code == 500
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.json["detail"] == "ValueError: the model met boom"
