"""A broker that asks for keys, on real processes and sockets: who gets in, and what others hear."""

import contextlib
import os
import re
import socket
import subprocess
import sys
import threading
import time
from itertools import count
from pathlib import Path

import httpx
import psutil
import pytest

from tests.helpers.cluster import ROOT, Cluster, Gated, free_port
from tests.helpers.keys import Keys
from tests.helpers.waiting import until
from tests.helpers.zmtp import GREETING
from zstreamer import Client, aio
from zstreamer.client.status import fetch
from zstreamer.config import BrokerConfig
from zstreamer.errors import Unauthorized
from zstreamer.setting import ConfigError
from zstreamer.system.process import Process

CONNECT = 5.0
"""Seconds within which each wrong key must be told."""

numbers = count(1)


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    return Keys(tmp_path_factory.mktemp("keys") / "keys")


@pytest.fixture(scope="module")
def others(tmp_path_factory):
    """The keys of another broker."""
    return Keys(tmp_path_factory.mktemp("others") / "keys")


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    return tmp_path_factory.mktemp("logs") / "log"


@pytest.fixture(scope="module")
def cluster(keys, log):
    """A broker with keys, a worker of `echo`, and everything that they log, in a file."""
    with log.open("w") as file, stderr_to(file):
        cluster = Cluster(tcp=True, keys=str(keys.path), log_level="debug")
    with cluster:
        with log.open("a") as file, stderr_to(file):
            worker = keys.worker("gpu", "echo", "gate")
            cluster.worker("echo", model="echo", keys=worker, log_level="debug")
        with client(cluster, keys.client("first"), connect_timeout=30) as first:
            first.wait_ready(30)
        yield cluster


@contextlib.contextmanager
def stderr_to(file):
    """Children that are started meanwhile write their errors into a file."""
    before = os.dup(2)
    os.dup2(file.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(before, 2)
        os.close(before)


def client(cluster, file, **settings):
    return Client(
        cluster.address, **{"model": "echo", "connect_timeout": CONNECT, "keys": file, **settings}
    )


@pytest.fixture
def good(cluster, keys):
    """A client that may call, with a key of its own; its name is `good.name`."""
    name = f"good{next(numbers)}"
    with client(cluster, keys.client(name)) as good:
        good.name = name
        until(lambda: answers(good))
        yield good


def answers(client):
    """Whether its key is known by now."""
    with contextlib.suppress(Unauthorized):
        return client.predict(["warm"])


def refused(cluster, file, words, **settings):
    """A call with this file fails within the time to connect, and says so."""
    begin = time.monotonic()
    address = settings.pop("address", cluster.address)
    with client(cluster, file, **settings) as wrong, pytest.raises(Unauthorized, match=words):
        wrong.predict(["a"])
    with pytest.raises(Unauthorized, match=words):
        fetch(address, CONNECT, file)
    assert time.monotonic() - begin < CONNECT


# ------------------------------------------------------------------ who gets in


def test_a_key_that_is_known_gets_in(good, cluster):
    assert good.predict([1, "two", b"3" * 2_000_000]) == [1, "two", b"3" * 2_000_000]


@pytest.mark.asyncio
async def test_an_async_client_takes_keys(cluster, keys, good):
    file = keys.path / "issued" / f"{good.name}.key_secret"
    async with aio.Client(cluster.address, model="echo", keys=file) as client:
        assert await client.predict([1]) == [1]


def test_the_variable_names_the_key(cluster, keys, good, monkeypatch):
    monkeypatch.setenv("ZSTREAMER_KEYS", str(keys.path / "issued" / f"{good.name}.key_secret"))
    with Client(cluster.address, model="echo") as client:
        assert client.predict([1]) == [1]
    assert "echo" in fetch(cluster.address)["models"]


def test_no_key_is_refused(cluster):
    refused(cluster, "", "asks for a key, and this program has none")


def test_an_unknown_key_is_refused(cluster, keys, others):
    file = keys.trusting(others.client("stranger"), others)
    refused(cluster, file, "does not know the key 'stranger'")


def test_another_server_key_is_refused(cluster, others):
    refused(cluster, others.client("lost"), "does not have the key that .*lost.key_secret expects")


def test_a_clients_key_is_refused_at_the_workers_port(cluster, keys):
    wrong = Client(cluster.worker_address, keys=keys.client("astray"), connect_timeout=CONNECT)
    begin = time.monotonic()
    # Until the broker has read the new file, it does not know the key at all.
    with wrong, pytest.raises(Unauthorized, match=r"for its other port|does not know"):
        wrong.predict(["a"])
    assert time.monotonic() - begin < CONNECT


def test_a_broker_without_keys_is_not_trusted(shared, keys):
    with (
        Client(shared.address, keys=keys.client("proud"), connect_timeout=CONNECT) as proud,
        pytest.raises(Unauthorized, match="has no keys, so nobody could tell"),
    ):
        proud.predict(["a"])


def test_keys_that_are_mixed_up_are_refused_before_a_connection(cluster, keys, good):
    with pytest.raises(ConfigError, match="is the key of a worker, and this program is a client"):
        client(cluster, keys.path / "issued" / "gpu.key_secret")
    with pytest.raises(ConfigError, match="public half only"):
        client(cluster, keys.path / "clients" / f"{good.name}.key")
    with pytest.raises(ConfigError, match="several clients' keys"):
        client(cluster, keys.path)


def test_a_workers_key_serves_its_models_alone(cluster, keys, log):
    with log.open("a") as file, stderr_to(file):
        worker = cluster.worker(
            "echo", model="other", log_level="info", keys=f"{keys.path}/issued/gpu.key_secret"
        )
    with worker:
        words = r"refused: the key 'gpu' may serve echo, gate, and not 'other'"
        until(lambda: re.search(words, log.read_text()))
    assert "other" not in cluster_status(cluster, keys)


def cluster_status(cluster, keys):
    return fetch(cluster.address, keys=f"{keys.path}/issued/first.key_secret")["models"]


def test_a_program_names_a_tenant_only_where_its_key_lets_it(cluster, keys, good):
    speaks = keys.client(f"gateway{next(numbers)}", "*")
    with client(cluster, speaks, tenant="shop") as gateway:
        until(lambda: answers(gateway))
    begin = time.monotonic()
    with client(cluster, f"{keys.path}/issued/{good.name}.key_secret", tenant="shop") as liar:
        with pytest.raises(Unauthorized, match="its key does not let it"):
            liar.predict([1])
    assert time.monotonic() - begin < CONNECT


# ------------------------------------------------------------------ revoking


def test_a_revoked_key_ends_its_call_and_its_sessions_within_a_second(
    cluster, keys, good, tmp_path
):
    gate, ended = Gated(tmp_path), []

    def call():
        try:
            caller.predict(["held"], timeout=60)
        except Unauthorized as error:
            ended.append((time.monotonic(), error))

    file = f"{keys.path}/issued/{good.name}.key_secret"
    worker = f"{keys.path}/issued/gpu.key_secret"
    with (
        cluster.worker("Gate", model="gate", keys=worker, init_kwargs={"folder": str(tmp_path)}),
        client(cluster, file, model="gate") as caller,
    ):
        caller.wait_ready(60)
        waits = threading.Thread(target=call)
        waits.start()
        gate.wait_begun("held")
        begin = time.monotonic()
        keys.folder.revoke(good.name)
        waits.join(10)
        [(at, error)] = ended
        assert at - begin < 1.0
        assert f"the key {good.name!r} was revoked" in str(error)
        gate.open()
        begin = time.monotonic()
        with pytest.raises(Unauthorized, match="does not know the key"):
            caller.predict(["again"])
        assert time.monotonic() - begin < CONNECT


def test_a_revoked_worker_gets_no_more_work(cluster, keys, good):
    worker = keys.worker("passing", "double")
    with cluster.worker("double", model="double", keys=worker):
        with client(cluster, f"{keys.path}/issued/{good.name}.key_secret", model="double") as asks:
            asks.wait_ready(60)
            assert asks.predict([2]) == [4]
            keys.folder.revoke("passing")  # within a second, and a busy machine
            until(lambda: not cluster_status(cluster, keys)["double"]["workers"], 5)


def test_lists_are_edited_under_load_and_no_call_is_hurt(cluster, keys, good):
    done, errors, over = [], [], threading.Event()

    def load():
        while not over.is_set():
            try:
                assert good.predict([1, 2]) == [1, 2]
                done.append(time.monotonic())
            except Exception as error:
                errors.append(error)

    callers = [threading.Thread(target=load) for _ in range(16)]
    for each in callers:
        each.start()
    begin = time.monotonic()
    for number in range(8):
        keys.client(f"passing{number}")
        time.sleep(0.2)  # a look at the files falls into it, or not
        keys.folder.revoke(f"passing{number}")
    until(lambda: time.monotonic() - begin > 1.5)
    over.set()
    for each in callers:
        each.join(20)
    assert not errors
    assert len(done) / (time.monotonic() - begin) > 200


# ------------------------------------------------------------------ the broker's own key


def test_the_brokers_key_changes_under_a_call_and_trusted_ones_are_tried_in_turn(tmp_path):
    keys = Keys(tmp_path / "keys")
    old = keys.client("old")
    kept = tmp_path / "kept.key_secret"
    kept.touch(0o600)
    kept.write_text(Path(old).read_text())
    with Cluster(tcp=True, keys=str(keys.path)) as cluster:
        cluster.worker("echo", model="echo", keys=keys.worker("gpu"))
        with client(cluster, old, connect_timeout=30) as lasting:
            lasting.wait_ready(30)
            keys.folder.rotate()
            with client(cluster, old) as both:
                assert both.predict([1]) == [1]
            keys.folder.finish_rotation()

            def changed():
                with contextlib.suppress(Unauthorized), client(cluster, old) as new:
                    return new.predict([2]) == [2]

            until(changed, 5)
            assert lasting.predict([3]) == [3]
        # A file that knows the old key alone is told so.
        refused(cluster, str(kept), "does not have the key")


def test_the_status_page_beyond_loopback_asks_for_a_token(tmp_path):
    keys = Keys(tmp_path / "keys")
    token, port = keys.folder.add_caller("operator"), free_port()
    places = {"client_address": f"ipc://{tmp_path}/c", "worker_address": f"ipc://{tmp_path}/w"}
    config = BrokerConfig(host="0.0.0.0", http_port=port, keys=str(keys.path), **places)
    with Process("zstreamer.broker", config):
        page = f"http://127.0.0.1:{port}"
        until(lambda: reached(f"{page}/healthz"))
        assert httpx.get(f"{page}/readyz").status_code == 503
        assert httpx.get(f"{page}/status").status_code == 401
        assert httpx.get(f"{page}/status", headers={"authorization": "Bearer x"}).status_code == 401
        known = {"authorization": f"Bearer {token}"}
        assert httpx.get(f"{page}/status", headers=known).json()["models"] == {}


def reached(url):
    with contextlib.suppress(httpx.HTTPError):
        return httpx.get(url, timeout=2)


# ------------------------------------------------------------------ strangers


def test_a_handshake_with_no_mechanism_costs_no_session(cluster, good):
    port = int(cluster.address.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=5) as raw:
        raw.sendall(GREETING)  # NULL, where the broker asks for CURVE
        with contextlib.suppress(ConnectionError):
            while raw.recv(4096):
                pass
    assert good.predict([1]) == [1]


def test_no_secret_is_in_a_log_an_error_or_a_list_of_processes(cluster, keys, log, others):
    told = log.read_text()
    file = keys.path / "issued" / "first.key_secret"
    with client(cluster, file) as shown:
        told += repr(shown) + repr(vars(shown)) + repr(vars(shown._settings))
    for wrong in ("", others.client("told")):
        with client(cluster, wrong) as each, pytest.raises(Unauthorized) as caught:
            each.predict([1])
        told += repr(caught.value) + str(caught.value)
    for process in psutil.process_iter(["cmdline", "environ"]):
        told += repr(process.info)
    secrets = [*keys.secrets(), *others.secrets()]
    assert len(secrets) > 5
    assert "serving clients" in told
    for secret in secrets:
        assert secret not in told


def test_loose_modes_are_refused_by_name_with_the_fix(cluster, keys, tmp_path):
    file = tmp_path / "web.key_secret"
    file.write_text(Path(f"{keys.path}/issued/first.key_secret").read_text())
    file.chmod(0o644)
    with pytest.raises(ConfigError, match=rf"{file} is open to others \(mode 0644\).*chmod 600"):
        client(cluster, file)
    folder = Keys(tmp_path / "loose").path
    for mode, path in ((0o755, folder), (0o640, folder / "broker.key_secret")):
        before = path.stat().st_mode
        path.chmod(mode)
        done = subprocess.run(
            [sys.executable, "-m", "zstreamer", "broker", "--keys", str(folder), "--port", "1"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
        assert done.returncode == 2
        assert f"{path} is open to others" in done.stderr
        assert "chmod" in done.stderr
        path.chmod(before)
