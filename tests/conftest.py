"""Fixtures for tests on real processes; nothing that a test starts may outlive the run."""

import os
import re
import uuid
from importlib.util import find_spec

import psutil
import pytest
from hypothesis import settings

from tests.helpers.cluster import Cluster
from tests.helpers.leaks import pytest_runtest_makereport  # noqa: F401  # a hook
from tests.helpers.waiting import all_gone

settings.register_profile("project", deadline=None)  # a busy machine may be slow at any example
settings.load_profile("project")

MARK = "TEST_RUN_MARK"
"""A variable of the environment that all descendants inherit, orphans too."""


def marked(mark):
    """The processes, besides this one, that this test run has started."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and process.environ().get(MARK) == mark:
                found.append(process)
        except psutil.Error:
            continue
    return found


class WithoutTorch(pytest.Module):
    """Tests of a file, where torch is not installed."""

    def collect(self):
        """Skip them all where the file, or what it imports, needs torch."""
        try:
            return super().collect()
        except self.CollectError as error:
            if re.search(r"No module named 'torch'|needs torch", str(error)):
                pytest.skip("needs torch", allow_module_level=True)
            raise


def pytest_pycollect_makemodule(module_path, parent):
    """Skip files that need torch where it is not installed, as where no CPU build exists."""
    if find_spec("torch"):
        return None
    return WithoutTorch.from_parent(parent, path=module_path)


@pytest.fixture(scope="session", autouse=True)
def no_process_left():
    """After the last test, everything that was started has ended."""
    mark = os.environ[MARK] = str(uuid.uuid4())
    yield
    left = marked(mark)
    if not all_gone([process.pid for process in left]):
        words = [f"{p.pid} {' '.join(p.cmdline()[:6])}" for p in left if p.is_running()]
        for process in left:
            process.kill()
        pytest.fail(f"left behind: {words}")


@pytest.fixture(scope="session")
def shared(no_process_left):
    """A cluster for all tests that leave it as it is; it serves `double`, `echo` and `picky`."""
    with Cluster() as cluster:
        for target in ("double", "echo", "picky"):
            cluster.worker(target, model=target, batch_size=64)
        yield cluster


@pytest.fixture
def client_of(shared):
    """Make a client for a model of the shared cluster."""
    opened = []

    def client_of(model, **settings):
        client = shared.client(model=model, **settings)
        opened.append(client)
        return client

    yield client_of
    for client in opened:
        client.close()
