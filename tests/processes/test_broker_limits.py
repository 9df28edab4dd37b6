"""What a broker's process does at the edges of what the system gives it."""

import contextlib
import json
import resource
import socket
import subprocess
import sys
import time
import urllib.request

import pytest

from tests.helpers import zmtp
from tests.helpers.cluster import free_port
from tests.helpers.waiting import until
from zstreamer import Client
from zstreamer.client.status import fetch
from zstreamer.errors import BrokerUnreachable
from zstreamer.system.exitcodes import ExitCode
from zstreamer.wire import protocol

MiB = 2**20


class Broker:
    """`zstreamer broker` with some flags, and what it has logged."""

    def __init__(self, folder, *flags, host="127.0.0.1", descriptors=None):
        self.port, self.worker_port, self.http_port = free_port(), free_port(), free_port()
        place = f"[{host}]" if ":" in host else host
        self.address, self.url = f"tcp://{place}:{self.port}", f"http://{place}:{self.http_port}"
        self.log = folder / "log"
        ports = (
            "--port",
            self.port,
            "--worker-port",
            self.worker_port,
            "--http-port",
            self.http_port,
        )
        command = [sys.executable, "-m", "zstreamer", "broker", "--host", host, *ports, *flags]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                list(map(str, command)),
                stderr=log,
                preexec_fn=_limited(descriptors),  # noqa: PLW1509  # nothing but a limit is set
            )

    def __enter__(self):
        until(lambda: "serving" in self.log.read_text() or self.process.poll() is not None)
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(10)

    def get(self, page):
        with urllib.request.urlopen(self.url + page, timeout=5) as answer:
            return json.load(answer)


def _limited(descriptors):
    if descriptors is None:
        return None
    return lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, descriptors))


@pytest.mark.parametrize("host", ["::1", "::"])
def test_the_status_pages_are_served_over_ipv6(tmp_path, host):
    with Broker(tmp_path, "--insecure", host=host) as broker:
        broker.url = f"http://[::1]:{broker.http_port}"
        assert broker.get("/healthz") == {"ok": True}
        if host == "::":
            broker.url = f"http://127.0.0.1:{broker.http_port}"
            assert broker.get("/healthz") == {"ok": True}


def test_a_broker_that_may_open_no_more_says_so_rests_and_still_shows_its_status(tmp_path):
    with Broker(tmp_path, descriptors=128) as broker:
        until(lambda: fetch(broker.address))
        crowd = [
            socket.create_connection(("127.0.0.1", broker.port), timeout=5) for _ in range(200)
        ]
        until(lambda: "file descriptors" in broker.log.read_text())
        assert broker.get("/healthz") == {"ok": True}
        before, begin = cpu_seconds(broker.process.pid), time.monotonic()
        time.sleep(1)
        used = (cpu_seconds(broker.process.pid) - before) / (time.monotonic() - begin)
        assert used < 0.3
        assert broker.log.read_text().count("file descriptors") == 1
        for each in crowd:
            each.close()
        until(lambda: fetch(broker.address))


def test_a_client_is_told_that_the_broker_takes_no_connection(tmp_path):
    with Broker(tmp_path, descriptors=128) as broker:
        until(lambda: fetch(broker.address))
        crowd = [
            socket.create_connection(("127.0.0.1", broker.port), timeout=5) for _ in range(100)
        ]
        until(lambda: "file descriptors" in broker.log.read_text())
        # The descriptor of the connection above may have come free only now.
        crowd += [socket.create_connection(("127.0.0.1", broker.port), timeout=5) for _ in range(9)]
        with Client(broker.address, connect_timeout=1) as client:
            with pytest.raises(BrokerUnreachable, match="no file descriptors left"):
                client.predict(["x"])
        for each in crowd:
            each.close()


@pytest.mark.parametrize("spare", [3, 6, 12])
def test_a_client_that_may_open_no_more_says_so_and_lives(spare):
    """libzmq alone would end the process: `Too many open files (src/epoll.cpp:38)`."""
    program = f"""
import os, resource
from zstreamer import Client
resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))
held = []
while True:
    try:
        held.append(os.open("/", os.O_RDONLY))
    except OSError:
        break
for each in held[:{spare}]:
    os.close(each)
try:
    Client("tcp://127.0.0.1:9", connect_timeout=0.5).predict(["x"])
except Exception as error:
    print(type(error).__name__, error)
"""
    command = [sys.executable, "-c", program]
    said = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout
    assert "BrokerUnreachable this process cannot open a connection: it may have 100" in said


def cpu_seconds(pid):
    import psutil

    times = psutil.Process(pid).cpu_times()
    return times.user + times.system


def test_a_message_that_never_ends_ends_the_broker_before_the_machine(tmp_path):
    with Broker(tmp_path, "--max-memory", "256MiB") as broker:
        with zmtp.Peer(broker.port) as peer, contextlib.suppress(OSError):
            for _ in range(400):
                peer.socket.sendall(zmtp.frame(bytes(MiB), zmtp.MORE))
            peer.socket.settimeout(20)
            while peer.socket.recv(4096):  # heartbeats, until it ends
                pass
        assert broker.process.wait(20) == ExitCode.MEMORY
        assert "max_memory is 256 MiB" in broker.log.read_text()


def test_a_head_larger_than_any_costs_its_sender_the_connection(tmp_path):
    with Broker(tmp_path) as broker:
        with zmtp.Peer(broker.port) as peer, pytest.raises(ConnectionError):
            send_and_read_on(peer, zmtp.frame(bytes(protocol.MAX_FRAME + 1)))


def test_a_message_of_far_too_many_frames_costs_its_sender_the_connection(tmp_path):
    many = zmtp.frame(b"", zmtp.MORE) * 50_000 + zmtp.frame(b"")
    with Broker(tmp_path) as broker:
        with zmtp.Peer(broker.port) as peer, pytest.raises(ConnectionError):
            send_and_read_on(peer, 5 * many)
        until(lambda: broker.get("/status")["broker"]["counts"].get("deaf") == 1)


def send_and_read_on(peer, data):
    peer.socket.sendall(data)
    while True:
        peer.receive()


def test_the_status_port_has_room_for_a_probe_however_many_connect_and_say_nothing(tmp_path):
    with Broker(tmp_path) as broker:
        idle = [
            socket.create_connection(("127.0.0.1", broker.http_port), timeout=5) for _ in range(100)
        ]
        assert broker.get("/healthz") == {"ok": True}
        for each in idle:
            each.close()


def test_a_probe_that_hangs_up_leaves_no_traceback_in_the_log(tmp_path):
    with Broker(tmp_path) as broker:
        for _ in range(20):
            peer = socket.create_connection(("127.0.0.1", broker.http_port), timeout=5)
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, bytes([1, 0, 0, 0, 0, 0, 0, 0]))
            peer.sendall(b"GET /status HTTP/1.1\r\nHost: x\r\n\r\n" * 50)
            peer.close()
        assert broker.get("/healthz") == {"ok": True}
        assert "Traceback" not in broker.log.read_text()
