"""Web servers as processes of their own, and raw connections to them."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx

from tests.helpers.cluster import free_port
from tests.helpers.waiting import until

ROOT = Path(__file__).parents[2]


class Server:
    """`python -m COMMAND… --port PORT`, which serves until the block ends or it is stopped.

    env: variables besides this process's own.
    """

    def __init__(self, *command, env=None, wait=True):
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.process = subprocess.Popen(
            [sys.executable, "-m", *map(str, command), "--port", str(self.port)],
            cwd=ROOT,
            env={**os.environ, **(env or {})},
        )
        if wait:
            self.wait_up()

    def wait_up(self):
        """Wait until it answers."""

        def answers():
            assert self.process.poll() is None, f"it ended with {self.process.returncode}"
            with contextlib.suppress(httpx.HTTPError):
                return httpx.get(f"{self.url}/healthz", timeout=2).status_code == 200

        until(answers)

    def predict(self, *items, model="default", headers=None, timeout=30, **body):
        """The response of the model to these items."""
        return httpx.post(
            f"{self.url}/v1/models/{model}:predict",
            json={"instances": items, **body},
            headers=headers,
            timeout=timeout,
        )

    def connect(self):
        """A bare connection, whose reads end in time."""
        return Raw(self.port)

    def stop(self, number=signal.SIGTERM):
        """Ask it to end; its exit code."""
        self.process.send_signal(number)
        return self.process.wait(20)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


class Raw:
    """A connection that sends whatever bytes one likes."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=10)

    def send(self, data):
        with contextlib.suppress(ConnectionError):  # it may have been refused half way
            self.socket.sendall(data)

    def post(self, body, path="/v1/models/default:predict", *headers):
        self.send(post(body, path, *headers))

    def read(self, until_end=False):
        """What has come: the first bytes, or all until the server closes."""
        data = b""
        with contextlib.suppress(ConnectionError):
            while part := self.socket.recv(65536):
                data += part
                if not until_end:
                    break
        return data

    def status(self):
        """The status of the response that comes, 0 where the connection is closed instead."""
        words = self.read().split(b" ", 2)
        return int(words[1]) if len(words) > 1 else 0

    def close(self):
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def post(body, path="/v1/models/default:predict", *headers):
    """A POST request as bytes."""
    lines = [f"POST {path} HTTP/1.1", "Host: x", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def seconds(action):
    """How long something takes, and what it returns."""
    start = time.monotonic()
    result = action()
    return time.monotonic() - start, result
