"""Broker, worker and client on hosts of their own, as far as the network can tell."""

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.helpers.cluster import ROOT
from tests.helpers.waiting import until
from zstreamer.system.exitcodes import ExitCode

NETWORK = "10.213.57"
HOSTS = {"broker": 1, "worker": 2, "web": 3, "spare": 4}


def ip(*arguments, check=True):
    return subprocess.run(["ip", *arguments], check=check, capture_output=True, text=True)


def why_not():
    """What keeps this machine from making network namespaces; empty where nothing does."""
    if not shutil.which("ip"):
        return "iproute2 is not installed"
    if os.geteuid():
        return "only root may make network namespaces"
    name = f"zst{os.getpid()}-try"
    if ip("netns", "add", name, check=False).returncode:
        return "this machine forbids network namespaces"
    ip("netns", "del", name)
    return ""


pytestmark = pytest.mark.root


class Network:
    """Namespaces joined by virtual Ethernet to a bridge that lives in a namespace of its own."""

    def __init__(self):
        self._processes = []

    def __enter__(self):
        try:
            self._build()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _build(self):
        ip("netns", "add", self.name("switch"))
        self.inside("switch", "link", "add", "bridge", "type", "bridge")
        self.inside("switch", "link", "set", "bridge", "up")
        for host, number in HOSTS.items():
            ip("netns", "add", self.name(host))
            ends = f"{host}0", f"{host}1"
            self.inside("switch", "link", "add", ends[0], "type", "veth", "peer", "name", ends[1])
            self.inside("switch", "link", "set", ends[1], "netns", self.name(host))
            self.inside("switch", "link", "set", ends[0], "master", "bridge", "up")
            self.inside(host, "addr", "add", f"{NETWORK}.{number}/24", "dev", ends[1])
            self.inside(host, "link", "set", ends[1], "up")
            self.inside(host, "link", "set", "lo", "up")

    def name(self, host):
        return f"zst{os.getpid()}-{host}"

    def inside(self, host, *arguments):
        return ip("-n", self.name(host), *arguments)

    def start(self, host, *command, **settings):
        """Start a Python program on a host."""
        process = subprocess.Popen(
            ["ip", "netns", "exec", self.name(host), sys.executable, *command],
            cwd=ROOT,
            text=True,
            **settings,
        )
        self._processes.append(process)
        return process

    def name_hosts(self, text):
        """What /etc/hosts holds on every host from now on."""
        for host in HOSTS:
            path = Path("/etc/netns", self.name(host), "hosts")  # `ip netns exec` mounts it
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    def cut(self, host):
        """Pull a host's plug: what it sends and what is sent to it is lost without a word."""
        self.inside("switch", "link", "set", f"{host}0", "down")

    def mend(self, host):
        self.inside("switch", "link", "set", f"{host}0", "up")

    def __exit__(self, *_):
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
            process.kill()
            with process:  # waits for it and closes its pipes
                pass
        for host in ("switch", *HOSTS):
            ip("netns", "del", self.name(host), check=False)
            shutil.rmtree(Path("/etc/netns", self.name(host)), ignore_errors=True)


@pytest.fixture
def network():
    if reason := why_not():
        pytest.skip(reason)
    with Network() as network:
        yield network


BROKER = ("-m", "zstreamer", "broker", "--host", f"{NETWORK}.1", "--log-level", "warning")
WORKER = ("-m", "zstreamer", "worker", "tests.helpers.models:double", "--num", "2")
WORKER += ("--broker", f"tcp://{NETWORK}.1:7788", "--log-level", "error")
ADDRESS = f"tcp://{NETWORK}.1:7787"

WEB = """
import json, sys, urllib.request
from concurrent.futures import ThreadPoolExecutor
from threading import Thread
from wsgiref.simple_server import WSGIRequestHandler, make_server
from zstreamer import Client

client = Client(sys.argv[1], timeout=30)
client.wait_ready(30)

def app(environ, start_response):
    [answer] = client.predict([int(environ["QUERY_STRING"])])
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(answer).encode()]

class Quiet(WSGIRequestHandler):
    def log_message(self, *_): pass

server = make_server("127.0.0.1", 8000, app, handler_class=Quiet)
Thread(target=server.serve_forever, daemon=True).start()

def get(n):
    with urllib.request.urlopen(f"http://127.0.0.1:8000/?{n}", timeout=40) as answer:
        return json.load(answer)

large = bytes(3_000_000)
waiting = []
for line in sys.stdin:
    first, count = map(int, line.split())
    with ThreadPoolExecutor(8) as pool:
        print(json.dumps(list(pool.map(get, range(first, first + count)))), flush=True)
    assert all(future.result(40) == [2 * large] for future in waiting)
    waiting = [client.submit([large])]
"""


def test_broker_worker_and_web_server_each_on_a_host_of_its_own_serve(network):
    network.start("broker", *BROKER, "--insecure")
    worker = network.start("worker", *WORKER)
    web = network.start("web", "-c", WEB, ADDRESS, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def ask(first, count):
        web.stdin.write(f"{first} {count}\n")
        web.stdin.flush()

    def answered(first, count):
        assert json.loads(web.stdout.readline()) == [2 * n for n in range(first, first + count)]

    ask(0, 200)
    answered(0, 200)

    # The worker's host is cut off while a large item is with it and small ones come in, and is
    # back before their time is over.
    network.cut("worker")
    ask(200, 50)
    status = ("-m", "zstreamer", "status", "--json", "--address", ADDRESS)

    def workers():
        shown = network.start("web", *status, stdout=subprocess.PIPE).communicate(timeout=20)[0]
        return json.loads(shown)["models"]["default"]["workers"]

    until(lambda: not workers(), 15)
    network.mend("worker")
    answered(200, 50)
    assert until(lambda: len(found := workers()) == 2 and found)[0]["host"]

    # And the web server's own host.
    network.cut("web")
    ask(300, 20)
    network.mend("web")
    answered(300, 20)

    assert worker.poll() is None
    worker.terminate()
    assert worker.wait(20) == ExitCode.OK


def test_a_broker_does_not_bind_a_network_unless_told_so_in_so_many_words(network):
    broker = network.start("broker", *BROKER, stderr=subprocess.PIPE)
    _, words = broker.communicate(timeout=20)
    assert broker.returncode == ExitCode.USAGE
    assert re.search(r"refusing to bind.*--insecure", " ".join(words.split()))


def test_a_broker_that_comes_back_under_another_address_is_followed(network):
    """Packets to the old one vanish; the name says where the new one is."""
    network.name_hosts(f"127.0.0.1 localhost\n{NETWORK}.1 zs-broker\n")
    start = ("-m", "zstreamer", "broker", "--insecure", "--host")
    network.start("broker", *start, f"{NETWORK}.1", "--log-level", "warning")
    by_name = (*WORKER[:-4], "--broker", "tcp+dns://zs-broker:7788", *WORKER[-2:])
    network.start("worker", *by_name)
    name = "tcp+dns://zs-broker:7787"
    web = network.start("web", "-c", WEB, name, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def ask(first, count):
        web.stdin.write(f"{first} {count}\n")
        web.stdin.flush()

    def answered(first, count):
        assert json.loads(web.stdout.readline()) == [2 * n for n in range(first, first + count)]

    ask(0, 50)
    answered(0, 50)
    network.cut("broker")
    ask(100, 50)  # into the void
    spare = network.start("spare", *start, f"{NETWORK}.4", stderr=subprocess.PIPE)
    network.name_hosts(f"127.0.0.1 localhost\n{NETWORK}.4 zs-broker\n")
    assert "serving" in spare.stderr.readline()
    moved_at = time.monotonic()
    answered(100, 50)
    assert time.monotonic() - moved_at < 10.0  # 2 s, and a busy machine
    ask(200, 50)
    answered(200, 50)
