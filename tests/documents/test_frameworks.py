"""The examples for Django and Celery, on processes of their own and a real cluster."""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys

import pytest
import requests

from tests.helpers.cluster import ROOT, free_port
from tests.helpers.waiting import until


@contextlib.contextmanager
def program(*command, **variables):
    """A program in the repository's root that runs as long as the block."""
    environment = {**os.environ, **variables}
    with subprocess.Popen([str(each) for each in command], cwd=ROOT, env=environment) as process:
        try:
            yield process
        finally:
            process.terminate()
            process.wait(20)


def listening(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


DJANGO = {
    "stream": [
        *("gunicorn", "-k", "zstreamer.web.gunicorn.Worker", "-w", "2"),
        *("--graceful-timeout", "2", "-b"),
    ],
    "async": ["uvicorn", "--log-level", "warning", "--port"],
}


@pytest.mark.parametrize("path", DJANGO)
def test_django_answers_under_wsgi_and_asgi(shared, path):
    port = free_port()
    where = f"127.0.0.1:{port}" if path == "stream" else port
    app = "application" if path == "stream" else "asgi_application"
    settings = {"ZSTREAMER_BROKER": shared.address, "ZSTREAMER_MODEL": "picky"}
    module, *options = DJANGO[path]
    command = [sys.executable, "-m", module, *options, where, f"examples.django_example:{app}"]
    with program(*command, **settings):
        until(lambda: listening(port), 40)
        url = f"http://127.0.0.1:{port}/{path}"
        answer = requests.post(url, data={"s": ["one", "two"]}, timeout=20)
        assert (answer.status_code, answer.json()) == (200, ["one", "two"])
        refused = requests.post(url, data={"s": "boom"}, timeout=20)
        assert (refused.status_code, refused.json()["status"]) == (400, 400)
        assert refused.headers["content-type"] == "application/problem+json"
        assert requests.get(url, timeout=20).status_code == 405


def test_celery_tasks_ask_the_cluster(shared):
    pytest.importorskip("celery")
    if not shutil.which("redis-server"):
        pytest.skip("redis-server, which carries Celery's tasks, is not installed")
    port = free_port()
    settings = {
        "CELERY_BROKER": f"redis://127.0.0.1:{port}/0",
        "ZSTREAMER_BROKER": shared.address,
        "ZSTREAMER_MODEL": "picky",
    }
    worker = ["-m", "celery", "-A", "examples.celery_example", "worker", "--concurrency", "2"]
    quiet = ["--loglevel", "error", "--without-gossip", "--without-mingle"]
    with (
        program("redis-server", "--port", port, "--save", "", "--loglevel", "warning"),
        program(sys.executable, *worker, *quiet, **settings),
    ):
        until(lambda: listening(port))

        def run(*sentences):
            return subprocess.run(
                [sys.executable, "-m", "examples.celery_example", *sentences],
                cwd=ROOT,
                env={**os.environ, **settings},
                capture_output=True,
                text=True,
                timeout=50,
                check=False,
            )

        done = run("one", "two")
        assert json.loads(done.stdout) == ["one", "two"], done.stderr
        failed = run("boom")
        assert failed.returncode != 0
        assert "the model met boom" in failed.stderr
