"""Models over HTTP on real WSGI servers: gunicorn with our worker class and its own, uWSGI."""

import contextlib
import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path

import pytest

from tests.helpers.cluster import ROOT, free_port
from tests.helpers.waiting import all_gone, descendants, until

MAX_BODY = 100_000
SETTINGS = {"ZSTREAMER_MAX_BODY": str(MAX_BODY), "ZSTREAMER_READ_TIMEOUT": "1"}

GUNICORN = [sys.executable, "-m", "gunicorn", "-b", "127.0.0.1:{port}", "--log-level=error"]
CONFIGURED = [*GUNICORN, "-c", "python:zstreamer.web.gunicorn", "tests.helpers.web_models:app"]
OURS = [*CONFIGURED, "-k", "tests.helpers.web_models.ImpatientWorker", "--workers=2"]
UWSGI = [str(Path(sys.executable).parent / "pyuwsgi"), "--http-socket=127.0.0.1:{port}"]
UWSGI += ["--master", "--processes=2", "--gevent=200", "--gevent-monkey-patch", "--die-on-term"]
UWSGI += ["--disable-logging", f"--home={sys.prefix}", "--module=tests.helpers.web_models:app"]
SERVERS = {
    "worker": OURS,
    "worker-preload": [*OURS, "--preload"],
    "gunicorn-gevent": [*CONFIGURED, "-k", "gevent", "--workers=2"],
    "gunicorn-gthread": [*CONFIGURED, "--workers=1", "-k", "gthread", "--threads=24"],
    "gunicorn-sync": [*GUNICORN, "--workers=3", "tests.helpers.web_models:app"],
    "uwsgi-gevent": UWSGI,
}
if importlib.util.find_spec("pyuwsgi") is None:  # it is for Linux only
    del SERVERS["uwsgi-gevent"]

GEVENT = ["worker", "gunicorn-gevent"]
"""Those that see a client hang up, and bound one that is slow."""


class Server:
    """A program that serves the shared cluster's models."""

    def __init__(self, shared, name, *more):
        self.port = free_port()
        env = {**os.environ, **SETTINGS, "PYTHONPATH": str(ROOT)}
        env["ZSTREAMER_BROKER"] = shared.address
        command = [part.replace("{port}", str(self.port)) for part in (*SERVERS[name], *more)]
        self.process = subprocess.Popen(command, cwd=ROOT, env=env, start_new_session=True)

    def wait_up(self):
        def answers():
            assert self.process.poll() is None, "the server has ended"
            with contextlib.suppress(OSError):
                return self.get("/healthz")[0] == 200

        until(answers, 30)

    def connect(self, timeout=20):
        return HTTPConnection("127.0.0.1", self.port, timeout=timeout)

    def open(self, data=b""):
        """A connection on which these bytes have been sent."""
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=20)
        connection.sendall(data)
        return connection

    def get(self, path, method="GET", body=None, headers=None, **more):
        connection = self.connect()
        try:
            connection.request(method, path, body, headers or {}, **more)
            answer = connection.getresponse()
            return answer.status, dict(answer.headers), answer.read()
        finally:
            connection.close()

    def predict(self, model, items, headers=None):
        status, _, body = self.get(*question(model, items, headers))
        return status, json.loads(body)

    def stop(self):
        """End it and whatever it has started, without a word: how it stops has a test."""
        left = [*descendants(self.process.pid), self.process.pid]
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(5)
        assert all_gone(left)


def question(model, items, headers=None):
    headers = {"Content-Type": "application/json", **(headers or {})}
    path = f"/v1/models/{model}:predict"
    return path, "POST", json.dumps({"instances": items}), headers


def request(model, items, *headers):
    """The same as bytes."""
    path, _, body, _ = question(model, items)
    lines = [f"POST {path} HTTP/1.1", "Host: a", f"Content-Length: {len(body)}", *headers, ""]
    return "\r\n".join([*lines, body]).encode()


def read_all(connection):
    """What comes until the server closes, and how long that took."""
    start, data = time.monotonic(), b""
    with contextlib.suppress(ConnectionError):
        while piece := connection.recv(65536):
            data += piece
    return data, time.monotonic() - start


@pytest.fixture(scope="module")
def servers(shared):
    with contextlib.ExitStack() as stack:
        started = {}
        for name in SERVERS:
            started[name] = Server(shared, name)
            stack.callback(started[name].stop)
        for server in started.values():
            server.wait_up()
        yield started


@pytest.fixture(params=SERVERS)
def server(servers, request):
    return servers[request.param]


@pytest.fixture(params=GEVENT)
def green(servers, request):
    return servers[request.param]


@pytest.fixture(params=[*GEVENT, "gunicorn-gthread"])
def keeping(servers, request):
    """A server that keeps connections."""
    return servers[request.param]


@pytest.fixture
def worker(servers):
    return servers["worker"]


# Answers


def test_every_answer_is_right_for_its_own_question(server):
    with ThreadPoolExecutor(24) as pool:
        answers = list(pool.map(lambda n: server.predict("double", [n, -n]), range(300)))
    assert answers == [(200, {"predictions": [2 * n, -2 * n]}) for n in range(300)]


def test_a_connection_is_kept_for_many_requests(keeping):
    connection = keeping.connect()
    for n in range(5):
        connection.request(*(question("double", [n])[i] for i in (1, 0, 2, 3)))
        answer = connection.getresponse()
        assert json.load(answer) == {"predictions": [2 * n]}
    connection.close()


def test_errors_are_problem_documents_with_their_status(server):
    status, found = server.predict("picky", ["fine", "boom"])
    assert (status, found["status"], found["index"]) == (500, 500, 1)
    assert "the model met boom" in found["detail"]
    status, headers, body = server.get("/v1/models/double:predict", "POST", b'{"inst')
    assert status == 400
    assert headers["content-type"] == "application/problem+json"
    assert json.loads(body)["type"] == "urn:zstreamer:problem:bad-request"
    assert server.get("/nowhere")[0] == 404
    assert server.get("/v1/models/double:predict")[0] == 405


def test_a_head_has_no_body_and_leaves_the_connection_in_step(keeping):
    connection = keeping.connect()
    lengths = set()
    for method in ("HEAD", "GET"):
        connection.request(method, "/healthz")
        answer = connection.getresponse()
        assert (answer.status, bool(answer.read())) == (200, method == "GET")
        lengths.add(answer.headers["Content-Length"])
    assert len(lengths) == 1
    connection.close()


def test_the_deadline_of_a_request_is_kept(server, shared):
    with shared.gate():
        start = time.monotonic()
        headers = {"X-Request-Timeout": "0.2"}
        assert server.predict("gate", ["late"], headers)[0] == 504
        assert time.monotonic() - start < 5


# Bodies


def test_a_body_beyond_the_limit_is_refused_before_it_is_sent(server):
    head = f"POST /stream HTTP/1.1\r\nHost: a\r\nContent-Length: {MAX_BODY + 1}\r\n\r\n"
    with server.open(head.encode()) as connection:
        assert connection.recv(4096).startswith(b"HTTP/1.1 413 ")


def test_a_body_beyond_the_limit_is_refused_with_a_reason_that_arrives(worker):
    with worker.open() as connection:
        head = f"POST /stream HTTP/1.1\r\nHost: a\r\nContent-Length: {10 * MAX_BODY}\r\n\r\n"
        connection.sendall(head.encode() + bytes(10 * MAX_BODY))
        answer, _ = read_all(connection)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"urn:zstreamer:problem:too-large" in answer


def test_bodies_may_come_in_chunks_where_the_server_reads_them(servers):
    head = b"POST /v1/models/double:predict HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n"
    chunks = b'Connection: close\r\n\r\n5\r\n{"ins\r\nf\r\ntances": [21]}\n\r\n0\r\n\r\n'
    for name, server in servers.items():
        with server.open(head + chunks) as connection:
            answer, _ = read_all(connection)
        if name.startswith("uwsgi"):
            assert answer.split()[1] == b"411"
        else:
            assert answer.endswith(b'{"predictions":[42]}'), name


def test_a_body_in_too_many_chunks_is_refused(green):
    def chunks():
        for _ in range(MAX_BODY // 1000 + 1):
            yield bytes(1000)

    with contextlib.suppress(ConnectionError):  # it may stop reading amid them
        assert green.get("/stream", "POST", chunks(), encode_chunked=True)[0] == 413


def test_a_slow_sender_is_told_so_in_time(green):
    with green.open(b"POST /stream HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\ns=") as slow:
        answer = slow.recv(4096)
        assert answer.startswith(b"HTTP/1.1 408 ")


def test_a_slow_head_is_told_so_in_time(worker):
    with worker.open(b"POST /stream HTTP/1.1\r\nHost: ") as slow:
        answer, seconds = read_all(slow)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert seconds < 5


def test_a_client_may_ask_before_it_sends_a_body(keeping):
    asked = request("double", [2], "Expect: 100-continue", "Connection: close")
    head, body = asked.split(b"\r\n\r\n")
    with keeping.open(head + b"\r\n\r\n") as connection:
        assert connection.recv(4096) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(body)
        answer, _ = read_all(connection)
    assert answer.endswith(b'{"predictions":[4]}')


def test_a_body_that_breaks_off_is_nobodys_work(server):
    with server.open(request("double", [1])[:-5]) as connection:
        connection.shutdown(socket.SHUT_WR)
        answer, _ = read_all(connection)
    assert not answer or answer.startswith(b"HTTP/1.1 400 ")


# Hanging up


def test_a_caller_that_hangs_up_takes_its_items_out_of_the_queue(green, shared):
    with shared.gate() as (client, gate):
        running = client.submit(["running"])
        gate.wait_begun("running")
        callers = [green.open(request("gate", [f"gone{n}"])) for n in range(3)]
        until(lambda: shared.open_items("gate") == 4)
        for caller in callers:
            caller.close()
        until(lambda: shared.open_items("gate") == 1, 5)
        gate.open()
        running.result(20)
        assert gate.begun == ["running"]


def test_a_caller_that_asks_again_before_it_is_answered_has_not_hung_up(green, shared):
    with shared.gate() as (_, gate):
        with green.open(request("gate", ["first"])) as connection:
            gate.wait_begun("first")
            connection.sendall(request("double", [3], "Connection: close"))
            time.sleep(0.6)  # several looks at whether it is still there
            assert shared.open_items("gate") == 1
            gate.open()
            answers, _ = read_all(connection)
    assert answers.count(b"HTTP/1.1 200 OK") == 2
    assert answers.index(b"first") < answers.index(b"[6]")


# Bounds of the worker class

MALFORMED = [
    b"GARBAGE\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"GET / HTTP/9.9\r\nHost: a\r\n\r\n",
    b"GET / HTTP/1.1\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nno colon\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: ten\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: " + b"a" * 200_000 + b"\r\n\r\n",
    b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
    b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
]


def test_what_is_no_request_is_refused_and_harms_nobody(worker):
    for data in MALFORMED * 20:
        with worker.open() as connection:
            with contextlib.suppress(ConnectionError):
                connection.sendall(data)
                connection.shutdown(socket.SHUT_WR)
            answer, seconds = read_all(connection)
        assert not answer or answer[9:10] in b"45", answer
        assert seconds < 5
    assert worker.predict("double", [4]) == (200, {"predictions": [8]})


def test_a_client_that_reads_nothing_is_left(worker):
    big = request("echo", ["x" * (MAX_BODY - 100)])
    with worker.open() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.setblocking(False)

        def left():
            with contextlib.suppress(BlockingIOError):
                return send_until_it_breaks(connection, big)

        until(left)
    assert worker.predict("double", [4]) == (200, {"predictions": [8]})


def send_until_it_breaks(connection, data):
    """True once the other side has closed; raises BlockingIOError where it takes no more now."""
    try:
        while True:
            connection.send(data)
    except ConnectionError:
        return True


# Stopping


@pytest.mark.parametrize("name", GEVENT)
def test_a_server_that_is_told_to_stop_finishes_what_it_has_begun(shared, name):
    # gunicorn may miss to tell a second process that is just being started.
    server = Server(shared, name, "--workers=1")
    try:
        server.wait_up()
        with shared.gate() as (_, gate), ThreadPoolExecutor(1) as pool:
            answer = pool.submit(server.predict, "gate", ["open"])
            gate.wait_begun("open")
            # Its own worker lets idle connections be until they are as old as `keepalive`.
            idle = [server.open()] if name == "worker" else []
            server.process.terminate()
            until(lambda: refuses(server))
            gate.open()
            status, found = answer.result(20)
            assert (status, found["predictions"][0][0]) == (200, "open")
            assert server.process.wait(15) == 0
            for each in idle:
                each.close()
    finally:
        server.stop()


def refuses(server):
    try:
        server.open().close()
    except ConnectionError:
        return True
    return False
