"""Load that comes over HTTP: gunicorn with gevent workers, and a client of its app.

callers ── WebClient ══ keep-alive connections ══> gunicorn ─ Client in a hub ─ Client in a hub
"""

import socket
import subprocess
import time
from collections import defaultdict, deque
from http.client import HTTPConnection
from pathlib import Path

from zstreamer import codec, errors
from zstreamer.system.interpreter import environment, module_command

ROOT = Path(__file__).parent.parent.parent

PAYLOAD = "application/x-zstreamer"
"""Content type of the app's own answers."""

PROCESSES = 2
"""Of gunicorn, each with a client of its own."""

GUNICORN = ["tests.chaos.web_app:app", "-k", "gevent", "-w", str(PROCESSES)]
# Callers may be busy for longer than gunicorn's two seconds between two requests.
GUNICORN += ["--keep-alive", "60", "--log-level", "error"]

GRACE = 30.0
"""Seconds that gunicorn gives its workers to stop."""


class WebServer:
    """gunicorn, serving `tests.chaos.web_app` for as long as the block.

    Args:
        address: of the brokers.
        model: whose answers it serves.

    Attributes:
        url: where; what connects before gunicorn is up waits in the socket's backlog.
    """

    def __init__(self, address, model):
        variables = {"BROKER": address, "MODEL": model, "PYTHONPATH": str(ROOT)}
        with socket.create_server(("127.0.0.1", 0), backlog=256) as listener:
            fd = listener.fileno()
            self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            self._process = subprocess.Popen(
                [*module_command("gunicorn"), *GUNICORN, "-b", f"fd://{fd}"],
                cwd=ROOT,
                env=environment(variables),
                pass_fds=[fd],
            )

    def stop(self):
        """Ask it to stop as gunicorn does it; returns its exit code."""
        self._process.terminate()
        return self._process.wait(GRACE + 5)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()


class WebError(Exception):
    """The web server has answered with something that is not the app's."""


class WebClient:
    """Calls as a `Client` does, through the clients of a `WebServer`.

    Args:
        url: of the server.
        connections: how many to keep, evenly to each of the server's processes.
        timeout: seconds to wait for an answer; beyond a call's own, since that must end it.
    """

    def __init__(self, url, *, connections, timeout):
        self._host = url.removeprefix("http://")
        self._share = -(-connections // PROCESSES)
        self._timeout = timeout
        self._idle = deque()

    def wait_ready(self, timeout):
        """Open the connections; whichever process takes one must say that it is ready.

        The kernel deals them out as it likes, so those that one process has too many are closed.
        """
        end = time.monotonic() + timeout
        shares = defaultdict(list)
        while sum(map(len, shares.values())) < PROCESSES * self._share:
            assert time.monotonic() < end, f"processes answer on {shares} connections"
            connection = HTTPConnection(self._host, timeout=max(timeout, self._timeout))
            connection.connect()
            connection.auto_open = False  # one that the server closes is an error
            share = shares[self._ask(connection, "GET", "/ready")]
            if len(share) < self._share:
                share.append(connection)
            else:
                connection.close()
        # In turn, so that the processes get as many calls each.
        self._idle.extend(each for pair in zip(*shares.values(), strict=True) for each in pair)

    def predict(self, items, *, timeout, idempotent):
        """As `Client.predict`."""
        connection = self._idle.popleft()
        body = codec.encode([items, timeout, idempotent])
        try:
            return self._ask(connection, "POST", "/predict", body)
        finally:
            self._idle.append(connection)

    def table_sizes(self):
        """How many entries the tables of all the server's clients hold."""
        found = dict(self._ask(connection, "GET", "/tables") for connection in self._idle)
        assert len(found) == PROCESSES, f"the web server's processes have changed: {found}"
        return sum(found.values())

    def close(self):
        """Close the connections."""
        for connection in self._idle:
            connection.close()

    def _ask(self, connection, method, path, body=None):
        connection.request(method, path, body)
        answer = connection.getresponse()
        value = answer.read()
        if answer.headers.get_content_type() != PAYLOAD:
            raise WebError(f"{answer.status} {answer.reason}: {value[:200]!r}")
        if answer.status != 200:
            raise errors.from_wire(codec.decode(value))
        return codec.decode(value)
