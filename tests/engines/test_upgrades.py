"""An older version against this one: `scripts/engines upgrades`.

ZSTREAMER_OLD names the older commit; otherwise it is the last tag, or where there is none
the commit 60 before this one.
"""

import contextlib
import os
import subprocess
import sys
import threading
import venv
from pathlib import Path

import pytest

from tests.engines.load import Load
from tests.helpers.cluster import ROOT, free_port
from tests.helpers.waiting import until
from zstreamer import Client
from zstreamer.client.status import fetch
from zstreamer.errors import BrokerUnreachable

pytestmark = pytest.mark.timeout(300)

MODEL = "def double(batch):\n    return [2 * item for item in batch]\n"

OLD_CALLER = """
import sys
from zstreamer import Client
with Client(sys.argv[1], timeout=30, connect_timeout=30) as client:
    for number in range(10**9):
        assert client.predict([number, number + 1]) == [2 * number, 2 * number + 2]
        print(number, flush=True)
"""


def git(*arguments):
    command = ["git", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


def older():
    if given := os.environ.get("ZSTREAMER_OLD"):
        return given
    tags = git("tag", "--list", "v*", "--sort=-version:refname").split()
    return tags[0] if tags else git("rev-list", "--max-count=1", "--skip=60", "HEAD").strip()


@pytest.fixture(scope="module")
def pythons(tmp_path_factory):
    """The interpreters of the older version's environment and of this one's."""
    folder = tmp_path_factory.mktemp("old")
    commit = older()
    archive = folder / "source.tar"
    git("archive", f"--output={archive}", commit)
    source = folder / "source"
    source.mkdir()
    subprocess.run(["tar", "xf", archive, "-C", source], check=True)
    build = [sys.executable, "-m", "build", "--wheel", "--outdir", folder, source]
    subprocess.run(build, check=True, capture_output=True)
    venv.create(folder / "venv", with_pip=True, symlinks=True)
    python = folder / "venv" / "bin" / "python"
    wheel = next(folder.glob("*.whl"))
    subprocess.run([python, "-m", "pip", "install", "--quiet", wheel], check=True)
    print(f"\nolder: {git('show', '-s', '--format=%h %ad', '--date=short', commit).strip()}")
    return {"old": python, "new": Path(sys.executable)}


class Mixed:
    """Two brokers and two workers of any versions, each replaced by itself."""

    def __init__(self, folder, pythons):
        self.folder, self.pythons = folder, pythons
        (folder / "own_model.py").write_text(MODEL)
        self.ports = [(free_port(), free_port()) for _ in range(2)]
        self.clients = ",".join(f"tcp://127.0.0.1:{port}" for port, _ in self.ports)
        self.workers = ",".join(f"tcp://127.0.0.1:{port}" for _, port in self.ports)
        self.running = {}

    def start(self, name, version):
        if name.startswith("broker"):
            port, worker_port = self.ports[int(name[-1])]
            ports = "--port", port, "--worker-port", worker_port, "--http-port", 0
            command = "broker", *ports
        else:
            command = "worker", "own_model:double", "--broker", self.workers
        python = self.pythons[version]
        command = [python, "-m", "zstreamer", *command, "--log-level", "error"]
        self.running[name] = subprocess.Popen(list(map(str, command)), cwd=self.folder)

    def warm(self, name="", count=2):
        """Wait until each broker has so many warm workers."""

        def found():
            for address in self.clients.split(","):
                with contextlib.suppress(BrokerUnreachable):
                    model = fetch(address, 1.0)["models"].get("default", {"workers": []})
                    if sum(each["state"] == "warm" for each in model["workers"]) == count:
                        continue
                return False
            return True

        until(found, 60, 0.1)

    def replace(self, name, version):
        """As docs/upgrades.md says."""
        old = self.running[name]
        if name.startswith("worker"):
            self.start(name, version)
            self.warm(count=3)
            old.terminate()
        else:
            old.terminate()
            assert old.wait(40) == 0
            self.start(name, version)
        assert old.wait(40) == 0
        self.warm()

    def kill(self, name):
        self.running[name].kill()
        self.running[name].wait()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for name in self.running:
            self.kill(name)


NAMES = ("broker0", "worker0", "broker1", "worker1")


@pytest.mark.parametrize(("before", "after"), [("old", "new"), ("new", "old")])
def test_a_cluster_is_upgraded_and_taken_back_under_load(tmp_path, pythons, before, after):
    with Mixed(tmp_path, pythons) as mixed:
        for name in NAMES:
            mixed.start(name, before)
        mixed.warm()
        caller = subprocess.Popen(
            [str(pythons["old"]), "-c", OLD_CALLER, mixed.clients],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
        )
        counted = [0]

        def count():
            with contextlib.suppress(ValueError):  # closed
                for _ in caller.stdout:
                    counted[0] += 1

        threading.Thread(target=count, daemon=True).start()
        mixed.running["caller"] = caller
        client = Client(mixed.clients, timeout=30, connect_timeout=30)
        with caller.stdout, client, Load(client, callers=4) as load:
            load.go_on(100)
            for name in NAMES:
                mixed.replace(name, after)
                answered, worst = load.go_on(100)
                print(f"{name} {before} → {after}: {answered} answered, worst {worst:.2f} s")
                assert load.errors == []
                before_it = counted[0]
                until(lambda least=before_it + 20: counted[0] >= least)
                # A worker that dies takes nobody's answer with it, whatever the versions.
                mixed.kill("worker1")
                mixed.start("worker1", before if name != "worker1" else after)
                mixed.warm()
                load.go_on(100)
                assert load.errors == []
        assert caller.poll() is None
        print(f"{load}; {counted[0]} calls of an older client")
