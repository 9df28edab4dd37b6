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
from zstreamer.web.api.problem import Refused
from zstreamer.web.cancel_on_disconnect import has_gone
from zstreamer.web.flask import problem
from zstreamer.web.http.connection import Connection
from zstreamer.web.http.environ import Environs, HeaderRules
from zstreamer.web.http.shared import Bounds, Shared
from zstreamer.web.http.wsgi_response import Answer, Gone
from zstreamer.web.wsgi import App, Problems

# From bytes to an environ


BASE = {"SCRIPT_NAME": "", "wsgi.url_scheme": "http"}
NO_RULES = HeaderRules()


def environs_of(data, rules=NO_RULES, client=("there", 4711), server=("here", 80), **base):
    core = Connection(Shared(Bounds(max_body=1000), 0.0, 0.0))
    core.receive(data)
    environs = Environs({**BASE, **base}, rules, client, server)
    found = []
    while (request := core.next()) is not None:
        found.append(environs.of(request))
        core.answered(core.connection)
    return found


def environ_of(data, *more, **base):
    [environ] = environs_of(data, *more, **base)
    return environ


def asked(*headers, path="/"):
    lines = [f"GET {path} HTTP/1.1", "Host: a:8080", *headers, "", ""]
    return "\r\n".join(lines).encode()


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
        "RAW_URI": "/a%20b/?q=%20x",
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
    one, two = environs_of(
        b"POST /1 HTTP/1.1\r\nHost: a\r\nX-A: 1\r\nContent-Length: 1\r\n\r\n1"
        b"GET /2 HTTP/1.1\r\nHost: a\r\n\r\n"
    )
    assert (one["PATH_INFO"], one["HTTP_X_A"], one["wsgi.input"].read()) == ("/1", "1", b"1")
    assert (two["PATH_INFO"], two["wsgi.input"].read()) == ("/2", b"")
    assert not {"HTTP_X_A", "CONTENT_LENGTH"} & set(two)


PROXY = HeaderRules(
    forwarded_allow_ips=["127.0.0.1", "10.0.0.0/8", "::1"],
    secure_scheme_headers={"X-FORWARDED-PROTO": "https", "X-FORWARDED-SSL": "on"},
    forwarder_headers=["SCRIPT_NAME"],
)


@pytest.mark.parametrize(
    ("client", "scheme"),
    [
        (("127.0.0.1", 1), "https"),
        (("10.1.2.3", 1), "https"),
        (("8.8.8.8", 1), "http"),
        (("::1", 1), "https"),
        (("not an address", 1), "http"),
        (None, "https"),
    ],
)
def test_only_a_trusted_proxy_says_that_its_client_came_over_tls(client, scheme):
    environ = environ_of(asked("X-Forwarded-Proto: https"), PROXY, client)
    assert environ["wsgi.url_scheme"] == scheme
    assert environ_of(asked(), PROXY, client)["wsgi.url_scheme"] == "http"


def test_headers_that_contradict_each_other_about_tls_are_refused():
    with pytest.raises(Refused, match="contradict") as refusal:
        environ_of(asked("X-Forwarded-Proto: https", "X-Forwarded-Ssl: off"), PROXY, None)
    assert refusal.value.status == 400


def test_a_path_below_which_the_app_is_mounted_comes_from_a_trusted_proxy():
    data = asked("SCRIPT_NAME: /app", path="/app/x")
    environ = environ_of(data, PROXY, ("127.0.0.1", 1))
    assert (environ["SCRIPT_NAME"], environ["PATH_INFO"]) == ("/app", "/x")
    environ = environ_of(data, PROXY, ("8.8.8.8", 1))
    assert (environ["SCRIPT_NAME"], environ["PATH_INFO"]) == ("", "/app/x")
    assert environ_of(asked(path="/app/x"), SCRIPT_NAME="/app")["PATH_INFO"] == "/x"
    with pytest.raises(Refused, match="not below"):
        environ_of(asked(path="/x"), SCRIPT_NAME="/app")


def test_what_becomes_of_a_header_with_an_underscore_is_a_setting():
    data = asked("X_User: a")
    assert "HTTP_X_USER" not in environ_of(data)
    assert environ_of(data, HeaderRules(header_map="dangerous"))["HTTP_X_USER"] == "a"
    with pytest.raises(Refused, match="underscore"):
        environ_of(data, HeaderRules(header_map="refuse"))


@pytest.mark.parametrize(
    ("rules", "status"),
    [
        ({"limit_request_line": 9}, 414),
        ({"limit_request_fields": 1}, 431),
        ({"limit_request_field_size": 9}, 431),
    ],
)
def test_lines_and_headers_beyond_a_limit_are_refused(rules, status):
    data = asked("X: " + 10 * "x", path="/" + 9 * "x")
    with pytest.raises(Refused) as refusal:
        environ_of(data, HeaderRules(**rules))
    assert refusal.value.status == status
    assert environ_of(asked("X: " + 8 * "x"), HeaderRules(**{**rules, "limit_request_fields": 2}))


@pytest.mark.parametrize(
    ("host", "named"), [("a:8080", ("a", "8080")), ("a", ("a", "80")), ("[::1]", ("[::1]", "80"))]
)
def test_on_a_unix_socket_the_host_header_names_the_server(host, named):
    data = f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
    environ = environ_of(data, NO_RULES, None, None)
    assert (environ["SERVER_NAME"], environ["SERVER_PORT"]) == named
    assert environ["REMOTE_ADDR"] == ""


# From an app to bytes


class Way:
    """Keeps what is sent; `room`: pieces that are taken before the client is gone."""

    date = b"date: now\r\n"
    ends = False

    def __init__(self, room=99):
        self.sent = []
        self.faults = []
        self.room = room

    def send(self, data):
        if len(self.sent) >= self.room:
            raise Gone
        self.sent.append(data)

    def failed(self, environ, error):
        self.faults.append(error)


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
def test_an_app_that_fails_is_a_500_that_tells_strangers_nothing(app):
    way = Way()
    sent, closes = answered(app, way=way)
    assert sent[0].startswith(b"HTTP/1.1 500 ")
    assert sent[0].endswith(b'"retryable":false}')
    assert len(way.faults) == 1
    assert not closes


def test_an_error_of_zstreamer_is_its_own_problem():
    def app(environ, start_response):
        raise errors.Overloaded("full", 2.5)

    way = Way()
    [sent], _ = answered(app, way=way)
    assert sent.startswith(b"HTTP/1.1 429 ")
    assert b"retry-after: 3\r\n" in sent
    assert not way.faults


def test_an_app_that_ends_the_process_ends_its_request_alone():
    def app(environ, start_response):
        raise SystemExit(3)

    way = Way()
    assert answered(app, way=way)[0][0].startswith(b"HTTP/1.1 500 ")
    assert len(way.faults) == 1


def test_an_app_that_has_taken_the_connection_over_ends_it():
    def app(environ, start_response):
        raise StopIteration

    assert answered(app) == ([], True)


def test_headers_of_the_connection_are_the_servers():
    headers = [("Transfer-Encoding", "chunked"), ("Keep-Alive", "timeout=5"), ("X", "1")]
    sent, _ = answered(app_of([b"a"], headers=headers))
    assert sent == [b"HTTP/1.1 200 OK\r\nX: 1\r\ndate: now\r\ncontent-length: 1\r\n\r\na"]


def test_an_app_that_fails_amid_its_answer_is_cut_off():
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
