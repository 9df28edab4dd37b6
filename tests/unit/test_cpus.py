"""A worker's share of the cores, as Linux describes them."""

import math
import os

import pytest

from zstreamer.system import cpus


@pytest.fixture
def machine(tmp_path):
    """Write what the kernel says of 4 cores with two hardware threads each."""
    for cpu in range(8):
        folder = tmp_path / f"cpu{cpu}/topology"
        folder.mkdir(parents=True)
        (folder / "thread_siblings_list").write_text(f"{cpu % 4},{cpu % 4 + 4}\n")
    return tmp_path


@pytest.mark.parametrize(
    ("allowed", "cores"),
    [(range(8), 4), (range(4), 4), ([0, 4], 1), ([0, 1, 4], 2), ([8, 9], 2)],
    ids=["all", "one thread of each", "one core", "two cores", "not described"],
)
def test_cores_are_counted_and_not_their_threads(machine, allowed, cores):
    assert cpus.cores(machine, allowed) == cores


def test_what_this_process_may_use_is_asked_of_the_system():
    assert 1 <= cpus.cores() <= os.cpu_count()


def cgroup(folder, own, **files):
    """Write cgroups; files: "path/name" with __ for each slash, and what the file says."""
    (folder / "own").write_text(own)
    for name, text in files.items():
        path = folder / "mount" / name.replace("__", "/").replace("cpu_max", "cpu.max")
        path = path.with_name(path.name.replace("cfs_", "cpu.cfs_"))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return cpus.granted(folder / "own", folder / "mount")


def test_a_container_is_granted_what_its_cgroup_says(tmp_path):
    assert cgroup(tmp_path, "0::/\n", cpu_max="150000 100000") == 1.5


def test_the_tightest_of_the_cgroups_around_a_process_counts(tmp_path):
    granted = cgroup(
        tmp_path, "0::/pods/one\n", pods__cpu_max="200000 100000", pods__one__cpu_max="max 100000"
    )
    assert granted == 2


def test_version_1_has_a_tree_for_the_cpu_controller(tmp_path):
    own = "5:memory:/other\n4:cpu,cpuacct:/docker/f00\n"
    granted = cgroup(tmp_path, own, cpu__cfs_quota_us="300000", cpu__cfs_period_us="100000")
    assert granted == 3


@pytest.mark.parametrize("own", ["", "0::/\n", "4:cpu:/\n", "0::/../elsewhere\n"])
def test_without_a_limit_there_is_none(tmp_path, own):
    files = {"cpu_max": "max 100000", "cpu__cfs_quota_us": "-1", "cpu__cfs_period_us": "100000"}
    assert cgroup(tmp_path, own, **files) == math.inf


@pytest.mark.parametrize(
    ("cores", "granted", "workers", "share"),
    [(8, math.inf, 2, 4), (8, math.inf, 3, 2), (8, 3.5, 1, 3), (2, math.inf, 8, 1), (8, 0.5, 1, 1)],
)
def test_workers_share_the_cores_and_each_has_one(monkeypatch, cores, granted, workers, share):
    monkeypatch.setattr(cpus, "cores", lambda: cores)
    monkeypatch.setattr(cpus, "granted", lambda: granted)
    assert cpus.share(workers) == share


def threads(batch):
    """A model that tells how many threads OpenMP was allowed in its process."""
    return [os.environ["OMP_NUM_THREADS"]] * len(batch)


@pytest.fixture
def serving(shared):
    """Ask workers of `threads`, so many on this machine, what they were allowed."""

    def serving(workers, others=0):
        settings = {"num": workers, "others": others}
        with shared.serving("tests.unit.test_cpus:threads", **settings) as client:
            return client.predict([0])[0]

    return serving


@pytest.mark.parametrize(("workers", "others"), [(1, 0), (2, 0), (1, 1)])
def test_the_workers_of_a_command_get_their_share(serving, monkeypatch, workers, others):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert serving(workers, others) == str(cpus.share(workers + others))


def test_what_the_user_says_comes_first(serving, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert serving(2) == "7"
