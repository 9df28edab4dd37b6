"""Clients that were made before a fork, before gevent patches, or before a web server starts."""

import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.helpers.cluster import ROOT, free_port
from tests.helpers.program import succeed
from tests.helpers.waiting import all_gone, descendants, until

AROUND_A_FORK = """
import os, signal, sys
from zstreamer import Client

client = Client(sys.argv[1], model="double")
if "used" in sys.argv:
    assert client.predict([1]) == [2]
    waiting = [client.submit([i]) for i in range(100)]

children = []
for number in range(4):
    pid = os.fork()
    if not pid:
        signal.alarm(30)
        good = [client.predict([i]) for i in range(50)] == [[2 * i] for i in range(50)]
        grandchild = os.fork()
        if not grandchild:
            signal.alarm(30)
            os._exit(0 if client.predict([7]) == [14] else 1)
        good = good and os.waitpid(grandchild, 0)[1] == 0 and client.predict([8]) == [16]
        client.close()
        os._exit(0 if good else 1)
    children.append(pid)
    assert client.predict([number]) == [2 * number]

if "used" in sys.argv:
    assert [f.result(20) for f in waiting] == [[2 * i] for i in range(100)]
for pid in children:
    assert os.waitpid(pid, 0)[1] == 0
assert client.predict([3]) == [6]
print("fine")
"""


@pytest.mark.parametrize("how", ["unused", "used"])
def test_a_client_made_before_a_fork_works_in_the_parent_and_in_every_child(shared, tmp_path, how):
    succeed(tmp_path, AROUND_A_FORK, shared.address, how)


def test_a_greenlets_client_made_before_a_fork_works_on_both_sides(shared, tmp_path):
    patched = "from gevent import monkey\nmonkey.patch_all()\n" + AROUND_A_FORK
    succeed(tmp_path, patched, shared.address, "used")


BEFORE_ALL = """
import os, signal, sys
from zstreamer import Client

client = Client(sys.argv[1], model="double")
if "used" in sys.argv:
    assert client.predict([1]) == [2]

def child():
    from gevent import monkey
    monkey.patch_all()
    import gevent
    ticks = []
    def tick():
        while True:
            ticks.append(1)
            gevent.sleep(0.001)
    gevent.spawn(tick)
    jobs = [gevent.spawn(client.predict, [i]) for i in range(100)]
    gevent.joinall(jobs)
    assert [job.value for job in jobs] == [[2 * i] for i in range(100)]
    assert len(ticks) > 2, ticks
    again = os.fork()
    if not again:
        os._exit(0 if gevent.spawn(client.predict, [5]).get() == [10] else 1)
    assert os.waitpid(again, 0)[1] == 0

pid = os.fork()
if not pid:
    signal.alarm(30)
    try:
        child()
    except BaseException:
        import traceback
        traceback.print_exc()
        os._exit(1)
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
child()
assert client.predict([4]) == [8]
print("fine")
"""


@pytest.mark.parametrize("how", ["unused", "used"])
def test_a_client_made_before_a_fork_and_before_gevent_patches_works_after_both(
    shared, tmp_path, how
):
    succeed(tmp_path, BEFORE_ALL, shared.address, how)


POOL = """
import multiprocessing, sys
from zstreamer import Client

client = Client(sys.argv[1], model="double")

def call(i):
    return client.predict([i])

if __name__ == "__main__":
    assert client.predict([1]) == [2]
    with multiprocessing.get_context("fork").Pool(3) as pool:
        assert pool.map(call, range(60)) == [[2 * i] for i in range(60)]
    assert client.predict([1]) == [2]
    print("fine")
"""


def test_a_pool_of_multiprocessing_shares_a_client(shared, tmp_path):
    succeed(tmp_path, POOL, shared.address)


@contextlib.contextmanager
def web_server(shared, command, **variables):
    """A web server of several processes that serves tests/helpers/web_app.py; gives its URL."""
    port = free_port()
    env = {**os.environ, "BROKER": shared.address, "PYTHONPATH": str(ROOT), **variables}
    command = [part.format(port=port) for part in command]
    with subprocess.Popen(command, cwd=ROOT, env=env, start_new_session=True) as server:
        started = set()
        try:
            url = f"http://127.0.0.1:{port}/"

            def answers():
                assert server.poll() is None, "the web server has ended"
                with contextlib.suppress(OSError):
                    return get(url, 1)

            until(answers)
            started = set(descendants(server.pid))
            yield url
        finally:
            started |= set(descendants(server.pid))
            # Without a word: how web servers stop has tests of its own.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGKILL)
            server.wait(5)
            assert all_gone(started)


def get(url, n):
    with urllib.request.urlopen(f"{url}?n={n}", timeout=20) as answer:  # loopback only
        return json.load(answer)


def serves_its_own_answers(url):
    """Every request of 300 is answered rightly, by more than one process."""
    with ThreadPoolExecutor(24) as pool:
        answers = list(pool.map(lambda n: get(url, n), range(300)))
    assert [answer["answer"] for answer in answers] == [2 * n for n in range(300)]
    return len({answer["pid"] for answer in answers}) > 1


GUNICORN = [sys.executable, "-m", "gunicorn", "tests.helpers.web_app:app", "-b", "127.0.0.1:{port}"]
GUNICORN += ["--workers=3", "--log-level=error"]


@pytest.mark.parametrize("variables", [{}, {"CALL_AT_IMPORT": "1"}], ids=["unused", "used"])
@pytest.mark.parametrize("preload", [[], ["--preload"]], ids=["each", "preload"])
@pytest.mark.parametrize("kind", [["-k", "gevent"], ["-k", "gthread", "--threads=8"]])
def test_gunicorn_serves_with_a_client_made_at_import(shared, kind, preload, variables):
    with web_server(shared, [*GUNICORN, *kind, *preload], **variables) as url:
        until(lambda: serves_its_own_answers(url))


@pytest.mark.skipif(
    importlib.util.find_spec("pyuwsgi") is None, reason="pyuwsgi is installed on Linux only"
)
@pytest.mark.parametrize("lazy", [[], ["--lazy-apps"]], ids=["preload", "each"])
def test_uwsgi_with_gevent_serves_with_a_client_made_at_import(shared, lazy):
    command = [
        str(Path(sys.executable).parent / "pyuwsgi"),
        "--master",
        "--processes=2",
        "--gevent=100",
        "--gevent-monkey-patch",
    ]
    command += [
        "--http-socket=127.0.0.1:{port}",
        "--module=tests.helpers.web_app:app",
        "--die-on-term",
    ]
    command += ["--disable-logging", f"--home={sys.prefix}", *lazy]
    with web_server(shared, command) as url:
        until(lambda: serves_its_own_answers(url))
