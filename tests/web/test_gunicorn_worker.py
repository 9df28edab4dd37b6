"""gunicorn's worker class: what gunicorn's users expect holds for Flask, Django and a bare app."""

import contextlib
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection, HTTPSConnection
from pathlib import Path

import pytest

from tests.helpers import wsgi_apps
from tests.helpers.cluster import ROOT, free_port
from tests.helpers.waiting import all_gone, descendants, until

APPS = {"bare": "bare", "flask": "in_flask", "django": "in_django"}


CONFIG = """
def post_worker_init(worker):
    worker.log.info("serves now")
"""
"""gunicorn reads it in the current folder."""


class Gunicorn:
    """gunicorn with the worker class, which runs until the block ends."""

    def __init__(self, folder, *options, app="tests.helpers.wsgi_apps:bare", workers=1, env=None):
        self.port = free_port()
        self.log = Path(folder) / f"log-{self.port}"
        self.number = workers
        (Path(folder) / "gunicorn.conf.py").write_text(CONFIG)
        command = [sys.executable, "-m", "gunicorn", "-k", "zstreamer.web.gunicorn.Worker"]
        command += ["-b", f"127.0.0.1:{self.port}", f"--workers={workers}", *options, app]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command,
                cwd=folder,
                env={**os.environ, "PYTHONPATH": f"{folder}:{ROOT}", **(env or {})},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def __enter__(self):
        try:
            until(self.serves, 30)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        left = [*descendants(self.process.pid), self.process.pid]
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(5)
        assert all_gone(left)

    def serves(self):
        """Whether all processes have begun; signals before that get lost."""
        assert self.process.poll() is None, self.words()
        return self.words().count("serves now") == self.number

    def words(self):
        return self.log.read_text()

    def workers(self):
        return sorted(descendants(self.process.pid))

    def connect(self):
        return HTTPConnection("127.0.0.1", self.port, timeout=20)

    def get(self, path, body=None, headers=None, connection=None):
        own = connection or self.connect()
        try:
            own.request("GET" if body is None else "POST", path, body, headers or {})
            answer = own.getresponse()
            return answer.status, dict(answer.headers), answer.read()
        finally:
            if connection is None:
                own.close()

    def pid(self):
        return json.loads(self.get("/pid")[2])[0]

    def signal(self, number):
        self.process.send_signal(number)


@contextlib.contextmanager
def load(server, callers=8):
    """Callers that ask all the time; fails where one gets no answer, or a wrong one."""
    ends, found = threading.Event(), Counter()

    def call(number):
        n = 0
        while not ends.is_set():
            body = f"{number}-{n}".encode()
            try:
                answer = server.get("/echo", body)
                found[answer[0] if answer[2] == body else "wrong"] += 1
            except Exception as error:
                found[repr(error)] += 1
            n += 1

    with ThreadPoolExecutor(callers) as pool:
        for number in range(callers):
            pool.submit(call, number)
        try:
            yield found
        finally:
            ends.set()
    assert set(found) == {200}, found


@pytest.fixture(params=APPS)
def app(request):
    return request.param, f"tests.helpers.wsgi_apps:{APPS[request.param]}"


# Answers


def test_each_app_answers_all_requests_rightly(tmp_path, app):
    name, target = app
    with Gunicorn(tmp_path, app=target, workers=2) as server:
        with load(server) as found:
            until(lambda: found[200] > 300)
        status, headers, body = server.get("/echo", b"a" * 1_000_000)
        assert (status, headers["X-App"], len(body)) == (200, name, 1_000_000)
        assert server.get("/stream")[2] == b"".join(b"%d," % n for n in range(1000))
        kept = server.connect()
        for n in range(5):
            assert server.get("/echo", b"%d" % n, connection=kept)[2] == b"%d" % n
        assert server.get("/fail", connection=kept)[0] == 500
        kept.close()
        if name == "django":
            assert server.get("/file")[2] == wsgi_apps.FILE.read_bytes()
        if name == "bare":
            assert "Error handling request GET /fail" in server.words()


# Signals


def test_a_hangup_replaces_the_processes_and_loses_no_request(tmp_path, app):
    with Gunicorn(tmp_path, app=app[1], workers=2) as server:
        before = server.workers()
        with load(server) as found:
            until(lambda: found[200] > 50)
            server.signal(signal.SIGHUP)
            until(lambda: not set(server.workers()) & set(before) and len(server.workers()) == 2)
            count = found[200]
            until(lambda: found[200] > count + 50)


def test_processes_come_and_go_by_signal_and_lose_no_request(tmp_path):
    with Gunicorn(tmp_path) as server, load(server):
        server.signal(signal.SIGTTIN)
        until(lambda: len(server.workers()) == 2)
        server.signal(signal.SIGTTIN)
        until(lambda: len(server.workers()) == 3)
        server.signal(signal.SIGTTOU)
        until(lambda: len(server.workers()) == 2)


def test_term_lets_open_requests_end_and_closes_idle_connections(tmp_path, app):
    with Gunicorn(tmp_path, "--keep-alive=60", app=app[1]) as server:
        idle = server.connect()
        server.get("/pid", connection=idle)
        with ThreadPoolExecutor(1) as pool:
            slow = pool.submit(server.get, "/slow")
            time.sleep(0.1)
            begin = time.monotonic()
            server.signal(signal.SIGTERM)
            assert slow.result(10)[2] == b"slow"
        assert server.process.wait(40) == 0
        assert time.monotonic() - begin < 30, "an idle connection has kept it"
        idle.close()


def test_the_grace_ends(tmp_path):
    (tmp_path / "grace.py").write_text(
        "import time\n"
        "def app(environ, start_response):\n"
        "    start_response('200 OK', [])\n"
        "    time.sleep(100)\n"
        "    return [b'late']\n"
    )
    with Gunicorn(tmp_path, "--graceful-timeout=1", app="grace:app") as server:
        connection = server.connect()
        connection.request("GET", "/")
        time.sleep(0.3)
        server.signal(signal.SIGTERM)
        assert server.process.wait(10) == 0
        assert "graceful timeout" in server.words()
        connection.close()


@pytest.mark.parametrize("number", [signal.SIGQUIT, signal.SIGINT])
def test_quit_ends_it_at_once(tmp_path, number):
    (tmp_path / "hooks.py").write_text(
        "def post_worker_init(worker):\n"
        "    worker.log.info('serves now')\n"
        "def worker_int(worker):\n"
        "    worker.log.info('was interrupted')\n"
    )
    with Gunicorn(tmp_path, "-c", "hooks.py") as server:
        connection = server.connect()
        connection.request("GET", "/slow")
        server.signal(number)
        assert server.process.wait(10) == 0
        assert "was interrupted" in server.words()
        assert "Traceback" not in server.words()
        connection.close()


# Life of a process


def test_an_app_is_imported_once_where_it_is_preloaded(tmp_path, app):
    with Gunicorn(tmp_path, "--preload", app=app[1], workers=2) as server:
        for _ in range(10):
            pid, imported_by = json.loads(server.get("/pid")[2])
            assert pid in server.workers()
            assert imported_by == server.process.pid


def test_new_code_is_loaded_where_it_reloads(tmp_path):
    code = "def app(e, start):\n    start('200 OK', [])\n    return [b'{}']\n"
    file = tmp_path / "changing.py"
    file.write_text(code.format("old"))
    options = ("--reload", "--reload-engine=poll")
    with Gunicorn(tmp_path, *options, app="changing:app") as server:
        assert server.get("/")[2] == b"old"
        file.write_text(code.format("new"))
        later = time.time() + 5  # the age of compiled files is in seconds
        os.utime(file, (later, later))

        def answers():
            with contextlib.suppress(OSError):
                return server.get("/")[2] == b"new"

        until(answers, 20)


def test_a_process_retires_after_so_many_requests_and_loses_none(tmp_path):
    with Gunicorn(tmp_path, "--max-requests=50", "--max-requests-jitter=20", workers=2) as server:
        before = set(server.workers())
        with load(server):
            until(lambda: len(server.workers()) == 2 and not before & set(server.workers()), 30)
        assert "Autorestarting worker" in server.words()


def test_a_process_that_stands_still_is_replaced_and_one_that_waits_is_not(tmp_path):
    (tmp_path / "waits.py").write_text(
        "import time, os\n"
        "from tests.helpers.wsgi_apps import bare\n"
        "def app(environ, start_response):\n"
        "    if environ['PATH_INFO'] == '/wait':\n"
        "        time.sleep(4)\n"
        "        environ['PATH_INFO'] = '/pid'\n"
        "    return bare(environ, start_response)\n"
    )
    options = ("--timeout=2",)
    with (
        Gunicorn(tmp_path, *options, app="waits:app") as waits,
        Gunicorn(tmp_path, *options, app="waits:app") as blocked,
        ThreadPoolExecutor(1) as pool,
    ):
        waiting, stuck = waits.pid(), blocked.pid()
        answer = pool.submit(waits.get, "/wait")
        with contextlib.suppress(ConnectionError):
            assert blocked.get("/block")[0] == 500
        until(lambda: blocked.pid() != stuck)
        assert "WORKER TIMEOUT" in blocked.words()
        assert json.loads(answer.result()[2])[0] == waiting


# Logs, hooks, metrics


def test_the_access_log_has_the_format_that_was_asked_for(tmp_path, app):
    log_format = "%(m)s %(U)s?%(q)s %(s)s %(B)s %({x-a}i)s %({x-app}o)s %(r)s %(h)s"
    options = ("--access-logfile=-", f"--access-logformat={log_format}")
    with Gunicorn(tmp_path, *options, app=app[1]) as server:
        server.get("/echo?q=1", b"abc", {"X-A": "yes"})
        server.get("/fail")
        line = f"POST /echo?q=1 200 3 yes {app[0]} POST /echo?q=1 HTTP/1.1 127.0.0.1"
        until(lambda: line in server.words())
        until(lambda: "GET /fail? 500 " in server.words())


def test_hooks_are_called_around_each_request(tmp_path):
    (tmp_path / "hooks.py").write_text(
        "def pre_request(worker, req):\n"
        "    worker.log.info('before %s %s %s', req.method, req.path, dict(req.headers)['X-A'])\n"
        "def post_request(worker, req, environ, resp):\n"
        "    worker.log.info('after %s %s', environ['QUERY_STRING'], resp.status)\n"
        "    raise ValueError('of a hook')\n"
        "def post_worker_init(worker):\n"
        "    worker.log.info('has begun; serves now')\n"
        "def worker_exit(server, worker):\n"
        "    worker.log.info('has ended')\n"
    )
    with Gunicorn(tmp_path, "-c", "hooks.py") as server:
        assert server.get("/echo?q", b"a", {"X-A": "1"})[0] == 200
        assert server.get("/echo?q", b"a", {"X-A": "2"})[0] == 200
        server.signal(signal.SIGTERM)
        assert server.process.wait(10) == 0
        words = server.words()
    for each in ("before POST /echo 1", "before POST /echo 2", "after q 200 OK"):
        assert each in words
    assert words.index("has begun") < words.index("before") < words.index("has ended")


def test_statsd_is_told_of_each_request(tmp_path):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as metrics:
        metrics.bind(("127.0.0.1", 0))
        metrics.settimeout(20)
        with Gunicorn(tmp_path, f"--statsd-host=127.0.0.1:{metrics.getsockname()[1]}") as server:
            server.get("/echo", b"a")
            found = set()
            while not {b"gunicorn.requests", b"gunicorn.request.status.200"} <= found:
                found.add(metrics.recv(1000).partition(b":")[0])
            assert b"gunicorn.request.duration" in found


# Requests


def test_limits_of_the_request_are_kept(tmp_path):
    limits = ("--limit-request-line=100", "--limit-request-fields=5")
    options = (*limits, "--limit-request-field_size=50")
    with Gunicorn(tmp_path, *options) as server:
        assert server.get("/echo?" + "a" * 90, b"")[0] == 200
        assert server.get("/echo?" + "a" * 100, b"")[0] == 414
        assert server.get("/echo", b"", {"X": "a" * 51})[0] == 431
        assert server.get("/echo", b"", {f"X-{n}": "a" for n in range(5)})[0] == 431
        until(lambda: server.words().count("Invalid request from ip=127.0.0.1") == 3)


@pytest.mark.parametrize(("proxies", "scheme"), [("127.0.0.1", "https"), ("10.0.0.1", "http")])
def test_only_proxies_that_are_named_are_believed(tmp_path, proxies, scheme):
    with Gunicorn(tmp_path, f"--forwarded-allow-ips={proxies}") as server:
        found = server.get("/scheme", None, {"X-Forwarded-Proto": "https"})[2]
        assert json.loads(found)[0] == scheme


@pytest.mark.parametrize("workers", [1, 2])
def test_an_app_is_told_how_it_is_served(tmp_path, workers):
    with Gunicorn(tmp_path, workers=workers) as server:
        environ = json.loads(server.get("/environ?a=b")[2])
    assert environ["wsgi.multiprocess"] is (workers > 1)
    assert environ["wsgi.multithread"] is True
    assert environ["RAW_URI"] == "/environ?a=b"
    assert environ["SERVER_PORT"] == str(server.port)
    assert environ["SERVER_SOFTWARE"].startswith("gunicorn/")


@pytest.mark.parametrize(("seconds", "kept"), [(0, False), (1, True)])
def test_connections_are_kept_as_long_as_was_asked(tmp_path, seconds, kept):
    with Gunicorn(tmp_path, f"--keep-alive={seconds}") as server:
        connection = socket.create_connection(("127.0.0.1", server.port), 20)
        time.sleep(0.6)
        connection.sendall(b"GET /pid HTTP/1.1\r\nHost: a\r\n\r\n")
        begin, data = time.monotonic(), b""
        while piece := connection.recv(1000):
            data += piece
        assert (b"connection: close" not in data) is kept
        assert time.monotonic() - begin >= 0.9 * seconds
        connection.close()


def test_idle_connections_make_room_where_all_are_taken(tmp_path):
    with Gunicorn(tmp_path, "--worker-connections=2", "--keep-alive=60") as server:
        idle = [server.connect() for _ in range(2)]
        for each in idle:
            server.get("/echo", b"a", connection=each)
        assert server.get("/echo", b"b")[2] == b"b"
        for each in idle:
            each.close()


def test_a_unix_socket_serves(tmp_path):
    with Gunicorn(tmp_path, "-b", f"unix:{tmp_path}/s") as server:
        assert server.pid() in server.workers()
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(20)
            connection.connect(f"{tmp_path}/s")
            connection.sendall(b"GET /environ HTTP/1.0\r\nHost: a:1\r\n\r\n")
            data = b""
            while piece := connection.recv(10_000):
                data += piece
        assert json.loads(data.partition(b"\r\n\r\n")[2])["SERVER_PORT"] == "1"


# TLS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    command += ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    try:
        subprocess.run(
            [*command, "-keyout", "key", "-out", "cert"],
            cwd=folder,
            check=True,
            capture_output=True,
        )
    except FileNotFoundError:
        pytest.skip("openssl is not installed")
    return folder / "cert", folder / "key"


def secure(server, certificate, own=False):
    context = ssl.create_default_context(cafile=certificate[0])
    if own:
        context.load_cert_chain(*certificate)
    return HTTPSConnection("127.0.0.1", server.port, context=context, timeout=20)


def test_apps_are_served_over_tls(tmp_path, certificate, app):
    options = (f"--certfile={certificate[0]}", f"--keyfile={certificate[1]}")
    with Gunicorn(tmp_path, *options, app=app[1], env={"ZSTREAMER_READ_TIMEOUT": "2"}) as server:
        kept = secure(server, certificate)
        assert json.loads(server.get("/scheme", connection=kept)[2]) == ["https", None]
        body = os.urandom(2_000_000)
        assert server.get("/echo", body, connection=kept)[2] == body
        silent = contextlib.nullcontext()
        if app[0] == "bare":  # it is ended after the time for a head, which is waited for once
            silent = socket.create_connection(("127.0.0.1", server.port))
            assert server.get("/echo", b"a", connection=kept)[2] == b"a"
        with contextlib.suppress(OSError):
            server.get("/echo", b"not TLS")
        assert server.get("/echo", b"b", connection=kept)[2] == b"b"
        with silent:
            server.signal(signal.SIGTERM)
            assert server.process.wait(20) == 0
        kept.close()


def test_an_app_sees_the_certificate_of_its_client(tmp_path, certificate):
    options = [f"--certfile={certificate[0]}", f"--keyfile={certificate[1]}"]
    options += [f"--ca-certs={certificate[0]}", f"--cert-reqs={ssl.CERT_REQUIRED.value}"]
    with Gunicorn(tmp_path, *options) as server:
        known = secure(server, certificate, own=True)
        scheme, subject = json.loads(server.get("/scheme", connection=known)[2])
        known.close()
        assert (scheme, subject) == ("https", [[["commonName", "localhost"]]])
        stranger = secure(server, certificate)
        with pytest.raises((ConnectionError, ssl.SSLError)):
            server.get("/scheme", connection=stranger)
        stranger.close()


# What is not supported


@pytest.mark.parametrize(
    ("option", "words"),
    [("--proxy-protocol", "does not support proxy_protocol"), ("--http-protocols=h2", "HTTP/1.1")],
)
def test_a_setting_that_cannot_be_served_is_named_at_the_start(tmp_path, option, words):
    command = [sys.executable, "-m", "gunicorn", "-k", "zstreamer.web.gunicorn.Worker", option]
    command += ["-b", f"127.0.0.1:{free_port()}", "tests.helpers.wsgi_apps:bare"]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False
    )
    if re.search("unrecognized arguments|not installed", done.stderr):
        pytest.skip("this gunicorn has no such setting, or lacks a package for it")
    assert done.returncode != 0
    assert words in done.stderr
