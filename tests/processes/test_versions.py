"""Versions of a model with real processes: a route, and a rolling replacement under load."""

import contextlib
import os
import shlex
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.helpers.cluster import ROOT, Cluster, free_port
from tests.helpers.document import blocks, matches
from tests.helpers.scrape import page, value
from tests.helpers.versions import Load, begun, command, version
from tests.helpers.waiting import until
from zstreamer import Client
from zstreamer.client.status import fetch
from zstreamer.errors import BrokerUnreachable


@pytest.fixture
def served(tmp_path):
    """A cluster whose broker has an HTTP port and a file of routes."""
    port = free_port()
    routes = tmp_path / "routes.toml"
    routes.write_text('[routes.stable]\nalias = "bert@1"\n')
    with Cluster(http_port=port, routes=str(routes)) as cluster:
        cluster.url = f"http://127.0.0.1:{port}"
        cluster.routes = routes
        cluster.wait_up()
        yield cluster


def test_a_roll_under_load_loses_nothing_and_ends_on_the_new_version(served):
    version(served, "")
    with Load(served) as load:
        until(lambda: len(load.answers) > 50, 30)
        results = []
        roll = threading.Thread(
            target=lambda: results.append(
                command(served, "roll", "bert", "--to", "2", "--pause", "0.5", "--timeout", "60")
            )
        )
        roll.start()
        until(lambda: served.model("bert").get("route", {}).get("weights") == {"": 1.0}, 30)
        version(served, "2")
        roll.join(90)
        assert results[0].return_value == 0, results[0].output
        assert "stop them" in results[0].output
        ended = time.monotonic()
        until(lambda: len(load.answers) > 50 and load.versions(ended), 30)
    assert not load.wrong
    assert load.versions() == {"none", "2"}
    assert load.versions(ended) == {"2"}
    items = begun(served, "none") + begun(served, "2")
    assert len(set(items)) == len(items) == len(load.answers)
    rows = served.model("bert")["versions"]
    assert rows["2"]["share"] == 1.0
    assert rows[""]["out"] == 0


def test_routes_come_from_the_file_and_from_the_command(served):
    version(served, "1")
    served.wait_warm(1, "bert@1")
    client = served.client(model="stable", timeout=30)
    assert client.predict(["x"]) == [["x", "1"]]
    served.routes.write_text('[routes.other]\nalias = "bert"\n')
    until(lambda: served.model("other").get("alias") == "bert", 10)
    assert served.client(model="other", timeout=30).predict(["x"]) == [["x", "1"]]
    shown = command(served, "route", "bert", "1=90", "2=10", "--hold", "2=3").output
    assert "1: 100.0 % of the items" in shown
    route = served.model("bert")["route"]
    assert route == {"weights": {"1": 90.0, "2": 10.0}, "hold": {"2": 3}}
    assert "stands for bert" in command(served, "route").output
    assert "none" in command(served, "route", "other", "--alias", "none").output


def test_the_page_on_versions_does_what_it_shows(tmp_path):
    ports = {name: str(free_port()) for name in ("PORT", "WORKER_PORT", "HTTP_PORT")}
    places = {
        "ADDRESS": f"tcp://127.0.0.1:{ports['PORT']}",
        "BROKER": f"tcp://127.0.0.1:{ports['WORKER_PORT']}",
        "BROKER_URL": f"http://127.0.0.1:{ports['HTTP_PORT']}",
        "CONNECT_TIMEOUT": "20",
    }
    variables = {f"ZSTREAMER_{name}": value for name, value in {**ports, **places}.items()}
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    run = {"cwd": tmp_path, "env": {**os.environ, **variables, "PATH": path}, "text": True}
    printed, said, terminals = "", "", []
    try:
        for block in blocks((ROOT / "docs" / "versions.md").read_text(encoding="utf-8")):
            if block.name:
                (tmp_path / block.name).write_text(block.text)
            elif "terminal" in block.words:
                arguments = shlex.split(block.text)
                terminals.append(subprocess.Popen(arguments, stderr=subprocess.DEVNULL, **run))
                if block.words["terminal"] != "broker":
                    model = f"greet@{len(terminals) - 1}"
                    until(lambda name=model: is_warm(places["ADDRESS"], name), 30)
            elif block.language == "sh":
                printed = output(said := block.text, run)
            elif block.language == "text":
                if said == "zstreamer route greet":  # it only looks, so it may look again
                    with contextlib.suppress(AssertionError):
                        until(lambda text=block.text: matches(text, output(said, run)), 20)
                    printed = output(said, run)
                assert matches(block.text, printed), f"{block}: {printed}"
    finally:
        for each in terminals:
            each.kill()
            each.wait(20)


def output(text, run):
    shell = ["bash", "-ec", text]
    return subprocess.run(shell, check=True, stdout=subprocess.PIPE, timeout=60, **run).stdout


def test_up_runs_all_models_of_a_file(tmp_path):
    ports = [free_port() for _ in range(3)]
    first = free_port(2)
    models = "\n".join(
        f'[[worker]]\ntarget = "tests.helpers.models:{target}"\nmodel = "{model}"\n'
        f"metrics_port = {first}\nversion = '7'\n"
        for target, model in (("double", "twice"), ("echo", "same"))
    )
    file = tmp_path / "cluster.toml"
    text = f"[broker]\nport = {ports[0]}\nworker_port = {ports[1]}\nhttp_port = {ports[2]}\n"
    file.write_text(text + models)
    command = [sys.executable, "-m", "zstreamer", "up", "-c", str(file)]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
    try:
        with Client(f"tcp://127.0.0.1:{ports[0]}", timeout=60, connect_timeout=30) as client:
            for model, answer in (("twice", 4), ("same", 2)):
                client.wait_ready(30, model=model)
                assert client.predict([2], model=model) == [answer]
        for port, model in ((first, "twice@7"), (first + 1, "same@7")):
            assert value(page(port), "zstreamer_worker_ready", model=model) == 1
    finally:
        process.terminate()
        assert process.wait(40) == 0
    file.write_text(text + models.replace("same", "twice"))
    said = subprocess.run(
        command, check=False, cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert said.returncode == 2
    assert "two [[worker]] tables serve model 'twice'" in " ".join(said.stderr.split())


def is_warm(address, model):
    with contextlib.suppress(BrokerUnreachable):
        return fetch(address)["models"].get(model, {}).get("ready")
