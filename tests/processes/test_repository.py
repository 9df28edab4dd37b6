"""Models in a folder of a worker host, which callers with the operator's token load and unload."""

import asyncio
import contextlib
import os
import signal
import threading

import httpx
import pytest
import tritonclient.http as triton
from werkzeug.test import Client as WerkzeugClient

from tests.helpers.cluster import Cluster, free_port
from tests.helpers.leaks import secret
from tests.helpers.servers import Server
from tests.helpers.waiting import all_gone, descendants, until
from zstreamer.config import AgentConfig, GatewayConfig
from zstreamer.system.process import Process
from zstreamer.web import asgi, wsgi

TOKEN = secret("only operators know this")
OPERATOR = {"Authorization": f"Bearer {TOKEN}"}
INDEX = "/v2/repository/index"

TAG = """
import time

class Model:
    def init_model(self, tag, seconds=0.0, boot=0.0):
        self.tag, self.seconds = tag, seconds
        time.sleep(boot)

    def predict(self, batch):
        time.sleep(self.seconds)
        return [[item, self.tag] for item in batch]
"""


class Hosted:
    """A cluster whose only workers are those of a repository, and a gateway in front of it."""

    def __init__(self, stack):
        url_port = free_port()
        self.cluster = stack.enter_context(Cluster(http_port=url_port, operator_token=TOKEN))
        self.url = f"http://127.0.0.1:{url_port}"
        self.folder = self.cluster.folder / "models"
        self.folder.mkdir()
        self.model("greet", "greet")
        for version in ("9", "10"):
            self.model(f"bert/{version}", version, seconds=0.01)
        self.model("first", "first", "load = true\n")
        config = AgentConfig(
            broker=(self.cluster.worker_address,),
            repository=str(self.folder),
            batch_size=4,
            log_level="error",
        )
        self.host = stack.enter_context(Process("zstreamer.worker.supervisor", config))
        variables = {"ZSTREAMER_OPERATOR_TOKEN": TOKEN, "ZSTREAMER_BROKER_URL": self.url}
        command = ("zstreamer", "gateway", "--broker", self.cluster.address)
        options = ("--connect-timeout", "20", "--log-level", "error")
        self.gateway = stack.enter_context(Server(*command, *options, env=variables))
        until(lambda: self.states().get("first") == "READY", 30)
        self.unload("first")

    def model(self, place, tag, more="", **kwargs):
        """Put a model into the folder."""
        folder = self.folder / place
        folder.mkdir(parents=True)
        (folder / "tag.py").write_text(TAG)
        words = ", ".join(f"{key} = {value!r}" for key, value in {"tag": tag, **kwargs}.items())
        (folder / "model.toml").write_text(
            f'target = "tag:Model"\nboot_attempts = 1\ninit_kwargs = {{ {words} }}\n{more}'
        )
        return folder

    def post(self, path, body=None, headers=OPERATOR, **more):
        url = f"{self.gateway.url}{path}"
        return httpx.post(url, json=body or {}, headers={**headers, **more}, timeout=60)

    def load(self, name, **more):
        return self.post(f"/v2/repository/models/{name}/load", **more)

    def unload(self, name):
        return self.post(f"/v2/repository/models/{name}/unload")

    def index(self):
        return {(row["name"], row["version"]): row for row in self.post(INDEX, headers={}).json()}

    def states(self):
        """The states of all models, by the names that callers use."""
        rows = self.index().items()
        return {n if v == "1" else f"{n}@{v}": row["state"] for (n, v), row in rows}

    def predict(self, item, model):
        return self.gateway.predict(item, model=model).json()["predictions"][0]


@pytest.fixture(scope="module")
def hosted():
    with contextlib.ExitStack() as stack:
        yield Hosted(stack)


def test_tritons_own_client_loads_a_model_and_unloads_it(hosted):
    ready = {"name": "greet", "version": "1", "state": "READY", "reason": ""}
    with contextlib.closing(triton.InferenceServerClient(hosted.gateway.url[7:])) as client:
        assert hosted.states()["greet"] == "UNAVAILABLE"
        client.load_model("greet", headers=OPERATOR)
        assert client.is_model_ready("greet")
        assert ready in client.get_model_repository_index()
        assert hosted.predict("Ann", "greet") == ["Ann", "greet"]
        again = hosted.load("greet")
        assert (again.status_code, again.json()["models"]) == (200, [ready])  # it stays as it is
        assert hosted.post(INDEX, {"ready": True}).json() == [ready]
        workers = descendants(hosted.host.pid)
        client.unload_model("greet", headers=OPERATOR)
        until(lambda: workers and all_gone(workers), 10)
        assert not client.is_model_ready("greet")
        assert hosted.states()["greet"] == "UNAVAILABLE"
        with pytest.raises(triton.InferenceServerException, match="no model 'nobody'"):
            client.load_model("nobody", headers=OPERATOR)
        with pytest.raises(triton.InferenceServerException, match="not supported"):
            client.load_model("greet", headers=OPERATOR, config="{}")


def test_versions_are_loaded_one_by_one_and_unloading_one_under_load_loses_no_answer(hosted):
    assert hosted.load("bert").json()["models"][0]["version"] == "10"  # the newest
    assert hosted.load("bert/versions/9").json()["models"][0]["version"] == "9"
    for version in ("9", "10"):
        assert hosted.predict(1, f"bert/versions/{version}") == [1, version]
    wrong, answers, stop = [], [], threading.Event()
    client = hosted.cluster.client(model="bert", timeout=60)

    def call(number):
        item = 0
        while not stop.is_set():
            item += 1
            asked = [[number, item, each] for each in range(6)]
            try:
                found = client.predict(asked)
            except Exception as error:
                wrong.append(error)
                return
            wrong.extend(f for a, f in zip(asked, found, strict=True) if f[0] != a)
            answers.extend(version for _, version in found)

    threads = [threading.Thread(target=call, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    try:
        until(lambda: {"9", "10"} <= set(answers), 30)
        assert hosted.unload("bert@9").status_code == 200
        done = len(answers) + 4 * 6  # of calls that were under way
        until(lambda: len(answers) > done + 20, 30)
    finally:
        stop.set()
        for thread in threads:
            thread.join(60)
    assert not wrong
    assert set(answers[done:]) == {"10"}
    assert hosted.unload("bert").status_code == 200  # all versions
    states = hosted.states()
    assert states["bert@9"] == states["bert@10"] == "UNAVAILABLE"
    assert "bert" not in states  # which no worker serves without a version


def test_a_load_that_takes_too_long_is_a_504_and_goes_on(hosted):
    hosted.model("slow", "slow", boot=600.0)
    late = hosted.load("slow", **{"X-Request-Timeout": "0.3"})
    assert late.status_code == 504
    assert "goes on" in late.json()["detail"]
    assert hosted.states()["slow"] == "LOADING"
    assert hosted.unload("slow").status_code == 200
    assert hosted.states()["slow"] == "UNAVAILABLE"


@pytest.mark.parametrize(
    ("name", "status", "words"),
    [
        ("..", 404, "no page"),  # as the caller's library resolves it
        ("..%2Fmodels%2Fgreet", 404, "no model '../models/greet' in the repository: it has"),
        ("out", 404, "no model 'out'"),
        ("a%00b", 400, "printable text"),
        ("odd", 400, "odd/model.toml has tarqet, which nothing reads; did you mean target?"),
        ("x" * 300, 400, "1 to 255 characters"),
    ],
)
def test_what_is_not_in_the_folder_or_makes_no_sense_is_refused(hosted, name, status, words):
    elsewhere = hosted.cluster.folder / "elsewhere"
    if not elsewhere.exists():
        elsewhere.mkdir()
        (elsewhere / "model.toml").write_text('target = "os:getcwd"')
        (hosted.folder / "out").symlink_to(elsewhere)
        (hosted.folder / "odd").mkdir()
        (hosted.folder / "odd" / "model.toml").write_text('tarqet = "a:b"')
    response = hosted.load(name)
    assert response.status_code == status, response.text
    assert words in response.json()["detail"]
    assert str(hosted.folder) not in response.text


def test_only_an_operator_loads_and_unloads(hosted):
    for action in ("load", "unload"):
        for headers in ({}, {"Authorization": "Bearer x"}, {"Authorization": f"bearer{TOKEN}"}):
            found = hosted.post(f"/v2/repository/models/greet/{action}", headers=headers)
            assert found.status_code == 401
            assert TOKEN not in found.text
    assert hosted.states()["greet"] == "UNAVAILABLE"


def test_a_model_that_cannot_start_says_why_also_from_the_apps_for_wsgi_and_asgi(hosted):
    folder = hosted.model("weak", "weak")
    good = (folder / "tag.py").read_text()
    (folder / "tag.py").write_text("raise OSError('no weights')")
    config = GatewayConfig(
        broker=(hosted.cluster.address,),
        broker_url=(hosted.url,),
        operator_token=TOKEN,
        connect_timeout=20,
    )
    load = "/v2/repository/models/weak/load"
    app = wsgi.App(config)
    try:  # it is there although the folder was looked at before
        response = WerkzeugClient(app).post(load, headers=OPERATOR)
    finally:
        app.close()
    assert response.status_code == 503
    assert response.json["detail"] == "model 'weak' could not be loaded: OSError: no weights"
    assert hosted.index()["weak", "1"]["reason"] == "OSError: no weights"
    (folder / "tag.py").write_text(good)

    async def again():
        app = asgi.App(config)
        transport = httpx.ASGITransport(app=app)
        try:
            async with httpx.AsyncClient(transport=transport, timeout=60) as client:
                return await client.post(f"http://x{load}", headers=OPERATOR)
        finally:
            await app.close()

    found = asyncio.run(again())
    assert (found.status_code, found.json()["models"][0]["state"]) == (200, "READY")
    hosted.unload("weak")


def test_what_runs_goes_on_when_the_broker_restarts_and_ends_with_its_host(hosted):
    hosted.load("greet")
    os.kill(hosted.cluster.broker.pid, signal.SIGKILL)
    hosted.cluster.broker.close()
    hosted.cluster.start_broker()
    until(lambda: hosted.load("greet").status_code == 200, 30)
    assert hosted.predict("Ann", "greet") == ["Ann", "greet"]
    workers = descendants(hosted.host.pid)
    hosted.host.terminate()
    assert hosted.host.wait(30) == 0
    assert workers
    assert all_gone(workers)
    # Until the broker has run for some seconds, a host may still be on its way to it.
    until(lambda: (response := hosted.load("greet")).status_code == 404 and response, 30)
    response = hosted.load("greet")
    assert "--repository" in response.json()["detail"]
    assert "READY" not in hosted.states().values()
