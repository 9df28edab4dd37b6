"""What a repository's host does with the processes of its models; they are played here."""

import itertools
import os
import types

import pytest

from tests.unit.test_repository import model
from zstreamer.config import WorkerConfig
from zstreamer.setting import ConfigError
from zstreamer.system import slots
from zstreamer.system.exitcodes import ExitCode
from zstreamer.wire.offers import LoadState
from zstreamer.worker import supervisor
from zstreamer.worker.repository import folder, host

pytestmark = pytest.mark.timeout(30)

GREET = ("greet", "")


class Stop:
    """A request to stop that comes at once, or after so many questions for it."""

    def __init__(self, after=0):
        self.asked, self.after = 0, after
        self.reader, self.writer = os.pipe()
        os.write(self.writer, b"\0")  # so that no turn waits

    def tick(self):
        """Between two turns."""

    def fileno(self):
        return self.reader

    @property
    def requests(self):
        self.asked += 1
        self.tick()
        return int(self.asked > self.after)


class Supervisor:
    """A process that runs until it is told how it ends."""

    code = None
    pid = 1

    def __init__(self, module, config):
        self.module, self.config = module, config
        self.all.append(self)

    all: list["Supervisor"] = []  # noqa: RUF012  # each test begins with none

    def poll(self):
        return self.code

    def close(self):
        """Nothing is left of it."""


@pytest.fixture
def started(monkeypatch, tmp_path):
    """Makes a host of the models in a folder, whose processes and last drain are played."""
    drained = []
    monkeypatch.setattr(host, "Process", Supervisor)
    monkeypatch.setattr(Supervisor, "all", [])
    monkeypatch.setattr(slots, "drain", lambda *given: drained.append(given) or [0])
    hosts = []

    def start(**files):
        for name, text in files.items():
            model(tmp_path, name, text)
        nobody = (f"ipc://{tmp_path}/nobody",)
        config = WorkerConfig(repository=str(tmp_path), drain_grace=3, broker=nobody)
        hosts.append(host.Host(config))
        return hosts[-1]

    start.drained = drained
    return start


def test_a_model_whose_file_or_process_fails_in_an_unexpected_way_leaves_the_others_alone(
    started, monkeypatch
):
    def read(entry, host):
        if entry.name == "odd":
            raise KeyError("nobody expects this")
        return WorkerConfig(model=entry.name)

    def start(module, config):
        if config.model == "greet":
            raise ConfigError("nobody expects this")
        return Supervisor(module, config)

    monkeypatch.setattr(folder, "config", read)
    monkeypatch.setattr(host, "Process", start)
    load = 'target = "m:M"\nload = true'
    found = started(odd=load, greet=load, good=load)
    assert found.run(Stop(after=3), None) == 0
    rows = {name: row for (name, _), row in found.core.rows.items()}
    assert rows["good"].state is LoadState.LOADED
    assert rows["odd"].reason.startswith("odd/model.toml cannot be read: KeyError")
    assert (rows["greet"].state, rows["greet"].reason) == (
        LoadState.FAILED,
        "its workers could not be started: nobody expects this",
    )


@pytest.mark.parametrize(("own", "grace"), [("drain_grace = 60", 60), ("drain_grace = 1", 3)])
def test_a_host_that_ends_gives_each_model_its_own_grace(started, own, grace):
    started(greet=f'target = "m:M"\nload = true\n{own}').run(Stop(after=3), None)
    [(_, _, _, given, _)] = started.drained
    assert given == grace + host.LAST


@pytest.mark.parametrize(("seconds", "looks"), [(0.01, 100), (1.0, 5)])
def test_a_folder_that_is_slow_to_look_at_is_looked_at_seldom(started, monkeypatch, seconds, looks):
    """seconds: that one look takes."""
    clock = types.SimpleNamespace(now=1000.0, looks=0)
    clock.monotonic = lambda: clock.now

    def look(root):
        clock.looks += 1
        clock.now += seconds
        return folder.Found([], [])

    def tick():
        clock.now += 0.1

    monkeypatch.setattr(host, "time", clock)
    monkeypatch.setattr(folder, "look", look)
    stop = Stop(after=1000)
    stop.tick = tick
    started().run(stop, None)
    assert clock.looks == pytest.approx(looks, abs=0.1 * looks + 2)


def test_workers_that_die_say_so_until_they_run_and_a_wrong_setting_is_final(started, monkeypatch):
    clock = types.SimpleNamespace(now=1000.0)
    clock.monotonic = lambda: clock.now
    monkeypatch.setattr(host, "time", clock)
    found = started(greet='target = "m:M"\nload = true')
    reasons = []
    codes = {5: ExitCode.NOT_DRAINED, 50: ExitCode.USAGE}

    def tick():
        clock.now += 0.2
        row = found.core.rows[GREET]
        reasons.append((row.state, row.reason))
        if stop.asked in codes:
            Supervisor.all[-1].code = codes[stop.asked]

    stop = Stop(after=60)
    stop.tick = tick
    found.run(stop, None)
    words = "its workers have ended with exit code"
    seen = [each for each, _ in itertools.groupby(reasons)]
    assert seen == [
        (LoadState.LOADED, ""),
        (LoadState.LOADED, f"{words} 5 and are started again; see the host's log"),
        (LoadState.LOADED, ""),
        (LoadState.FAILED, f"{words} 2; see the host's log"),
    ]
    assert len(Supervisor.all) == 2


@pytest.mark.parametrize(
    ("agents", "code"),
    [
        ([], ExitCode.OK),
        ([0, 0], ExitCode.OK),
        ([0, ExitCode.MODEL], ExitCode.OK),
        ([0, ExitCode.USAGE], ExitCode.OK),
        ([ExitCode.MODEL, ExitCode.MODEL], ExitCode.MODEL),
        ([ExitCode.USAGE, ExitCode.USAGE], ExitCode.USAGE),
        ([ExitCode.USAGE, ExitCode.MODEL], ExitCode.MODEL),
        ([0, ExitCode.FAILED], ExitCode.NOT_DRAINED),
        ([ExitCode.USAGE, ExitCode.NOT_DRAINED], ExitCode.NOT_DRAINED),
    ],
)
def test_a_supervisor_ends_with_what_kept_all_its_agents_from_serving(agents, code):
    assert supervisor.exit_code(agents) == code
