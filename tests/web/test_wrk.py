"""The whole way under load: wrk, gunicorn with our worker class, the broker, a real BERT."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import urllib.request
from urllib.parse import quote

import psutil
import pytest

from tests.helpers.cluster import ROOT, Cluster, free_port
from tests.helpers.marks import needs_torch
from tests.helpers.waiting import descendants, until

SECONDS = 4
EXACT = {"BERT_DTYPE": "float32", "HF_HUB_OFFLINE": "1"}
NAMES = ("Anna", "Ben", "Clara", "David")
PLACES = ("garden", "station", "library", "office")
SENTENCES = [
    f"{name} went to the {place} and {end}."
    for name in NAMES
    for place in PLACES
    for end in ("said good night to [MASK]", "found the [MASK]", "[MASK] came home")
]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(180),
    pytest.mark.skipif(not shutil.which("wrk"), reason="wrk is not installed"),
]


@contextlib.contextmanager
def gunicorn(broker, processes, model):
    port = free_port()
    command = ["-m", "gunicorn", "-c", "examples/gunicorn_cluster.py", "--log-level=warning"]
    web = subprocess.Popen(
        [sys.executable, *command, "examples.flask_cluster:app"],
        cwd=ROOT,
        env={
            **os.environ,
            "BIND": f"127.0.0.1:{port}",
            "WORKERS": str(processes),
            "ZSTREAMER_BROKER": broker,
            "ZSTREAMER_MODEL": model,
        },
    )
    url = f"http://127.0.0.1:{port}"

    def healthy():
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{url}/healthz") as answer:
            return answer.status == 200

    try:
        until(healthy)
        yield f"{url}/stream", web.pid
    finally:
        web.send_signal(signal.SIGTERM)
        web.wait(20)


def wrk(folder, url, expected):
    """Start wrk, which checks each answer to the sentences against the one that is expected."""
    questions = folder / "questions.tsv"
    lines = [f"{quote(s)}\t{json.dumps([e], separators=(',', ':'))}\n" for s, e in expected]
    questions.write_text("".join(lines))
    return subprocess.Popen(
        [
            *("wrk", "-t2", "-c128", f"-d{SECONDS}s", "--timeout=10s", "--latency"),
            *("-s", str(ROOT / "tests/web/check_answers.lua"), url, "--", str(questions)),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )


def counts(process):
    """What wrk has counted: answers that were right, that were wrong, and that did not come."""
    output, _ = process.communicate(timeout=60)
    print(output)
    [found] = [line.split() for line in output.splitlines() if line.startswith("right")]
    return tuple(map(int, found[1::2])), output


@pytest.fixture(scope="module")
def cluster():
    with Cluster(tcp=True) as cluster:
        yield cluster


@needs_torch
def test_every_answer_of_a_real_model_is_right_under_128_connections(
    cluster, tmp_path, monkeypatch
):
    for name, value in EXACT.items():
        monkeypatch.setenv(name, value)
    settings = {"model": "bert", "num": 2, "batch_size": 64}
    with (
        cluster.worker("examples.bert_model:ManagedBertModel", **settings),
        cluster.client(model="bert", timeout=60) as client,
        gunicorn(cluster.address, 4, "bert") as (url, _),
    ):
        client.wait_ready(60)
        words = [client.predict([sentence])[0] for sentence in SENTENCES]
        assert len(set(words)) > 3, "one word for everything would be right for anybody"
        (right, *bad), output = counts(wrk(tmp_path, url, zip(SENTENCES, words, strict=True)))
    assert right > 100
    assert bad == [0, 0], output


def resident(pid):
    """Resident memory of a process in MiB."""
    return psutil.Process(pid).memory_info().rss / 2**20


def test_memory_does_not_grow_with_the_requests(cluster, tmp_path):
    with (
        cluster.worker("echo", model="echo", batch_size=64),
        cluster.client(model="echo") as client,
        gunicorn(cluster.address, 2, "echo") as (url, web),
    ):
        client.wait_ready(30)
        pids = descendants(os.getpid())
        assert web in pids
        expected = [(sentence, sentence) for sentence in SENTENCES]
        warm_up, _ = counts(wrk(tmp_path, url, expected))
        before = {pid: resident(pid) for pid in pids}
        (right, *bad), output = counts(wrk(tmp_path, url, expected))
        after = {pid: resident(pid) - size for pid, size in before.items()}
    assert warm_up[1:] == (0, 0) and bad == [0, 0], output
    assert right > 500
    # 1 KiB that each request left behind would be more.
    assert max(after.values()) < 4, f"MiB grown in {right} requests: {after}, from {before}"
