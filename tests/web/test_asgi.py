"""The gateway and the ASGI app under several servers answer alike."""

import contextlib
import threading

import httpx
import msgpack
import pytest

from tests.helpers.servers import Server, seconds
from tests.helpers.waiting import until
from zstreamer.config import GatewayConfig
from zstreamer.web import asgi

LIMIT = 100_000
SLOW = 0.5
"""Seconds that a request may take to come."""

COMMANDS = {
    "gateway": ("zstreamer", "gateway", "--log-level", "warning"),
    "uvicorn": ("uvicorn", "--log-level", "critical", "zstreamer.web.asgi:app"),
    "granian asgi": ("granian", "--interface", "asgi", "--no-log", "zstreamer.web.asgi:app"),
}


def variables(cluster):
    return {
        "ZSTREAMER_BROKER": cluster.address,
        "ZSTREAMER_MODEL": "echo",
        "ZSTREAMER_MAX_BODY": str(LIMIT),
        "ZSTREAMER_READ_TIMEOUT": str(SLOW),
        "ZSTREAMER_CONNECT_TIMEOUT": "20",
    }


@pytest.fixture(scope="module")
def servers(shared):
    with contextlib.ExitStack() as stack:
        started = {}
        for name, command in COMMANDS.items():  # all start meanwhile
            server = Server(*command, env=variables(shared), wait=False)
            started[name] = stack.enter_context(server)
        for server in started.values():
            server.wait_up()
        shared.wait_warm(1, "echo")
        yield started


@pytest.fixture(params=COMMANDS)
def server(servers, request):
    return servers[request.param]


def test_models_answer_in_json_msgpack_and_forms(server):
    answer = server.predict("ü", [1, None], model="echo")
    assert (answer.status_code, answer.json()) == (200, {"predictions": ["ü", [1, None]]})
    assert answer.headers["content-type"] == "application/json"
    assert "date" in answer.headers
    packed = httpx.post(
        f"{server.url}/v1/models/double:predict",
        content=msgpack.packb({"instances": [1, 2.5]}),
        headers={"content-type": "application/msgpack", "accept": "application/msgpack"},
    )
    assert msgpack.unpackb(packed.content) == {"predictions": [2, 5.0]}
    assert httpx.post(f"{server.url}/stream", data={"s": "a b"}).json() == ["a b"]


def test_a_question_about_models_is_answered_by_the_broker(server):
    assert httpx.get(f"{server.url}/v2/models/echo").json()["name"] == "echo"
    assert httpx.get(f"{server.url}/v2/models/echo/ready").status_code == 200
    assert httpx.get(f"{server.url}/readyz").status_code == 200


def test_head_has_no_body(server):
    with server.connect() as raw:
        raw.send(b"HEAD /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert raw.read(until_end=True).endswith(b"\r\n\r\n")


def test_errors_are_statuses(server):
    def status(*items, **options):
        return server.predict(*items, **options).status_code

    assert status("fine", "boom", model="picky") == 500
    assert status("fine", model="nobody") == 404
    assert httpx.post(f"{server.url}/v1/models/echo:predict", content=b"{").status_code == 400
    assert httpx.get(f"{server.url}/nowhere").status_code == 404
    problem = server.predict("boom", model="picky")
    assert problem.headers["content-type"] == "application/problem+json"
    assert "the model met boom" in problem.json()["detail"]


def test_a_body_beyond_the_limit_is_refused_however_it_comes(server):
    url = f"{server.url}/v1/models/echo:predict"
    fits = b'["%s"]' % (b"a" * (LIMIT - 20))
    for body in (fits, iter([fits])):
        assert httpx.post(url, content=body).status_code == 400  # no instances, but it was read
    piece = 1000 * b"a"
    pieces = (piece for _ in range(LIMIT // len(piece) + 1))
    assert httpx.post(url, content=pieces).status_code == 413
    with server.connect() as raw:
        raw.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (LIMIT + 1))
        assert raw.status() == 413  # at once, nothing of it has been sent


@pytest.mark.parametrize("kind", ["Content-Length: 9", "Transfer-Encoding: chunked"])
def test_a_slow_sender_is_told_so(server, kind):
    with server.connect() as raw:
        raw.send(
            f"POST /v1/models/echo:predict HTTP/1.1\r\nHost: x\r\n{kind}\r\n\r\n1\r\n".encode()
        )
        took, status = seconds(raw.status)
    assert status == 408
    assert took >= 0.9 * SLOW


def test_a_sender_that_goes_away_harms_nobody(server):
    for _ in range(20):
        with server.connect() as raw:
            raw.send(
                b"POST /v1/models/echo:predict HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n1"
            )
    assert server.predict("a", model="echo").status_code == 200


def test_a_caller_that_hangs_up_takes_its_items_along(server, shared):
    with shared.gate() as (_, gated), server.connect() as stays:
        stays.post(b'{"instances": ["stays"]}', "/v1/models/gate:predict")
        gated.wait_begun("stays")
        with server.connect() as goes:
            goes.post(b'{"instances": ["goes", "too"]}', "/v1/models/gate:predict")
            until(lambda: shared.open_items("gate") == 3)
        until(lambda: shared.open_items("gate") == 1, 5)
        gated.open()
        assert stays.status() == 200
        assert gated.begun == ["stays"]


def test_a_deadline_is_kept(server, shared):
    with shared.gate():
        took, answer = seconds(
            lambda: server.predict(1, model="gate", headers={"X-Request-Timeout": "0.2"})
        )
        assert answer.status_code == 504
        assert took < 10  # less than a call may take


@pytest.mark.parametrize("name", COMMANDS)
def test_a_request_in_flight_is_answered_before_the_end(name, shared):
    with shared.gate() as (_, gated), Server(*COMMANDS[name], env=variables(shared)) as server:
        idle = server.connect()  # must not hold it up
        idle.send(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert idle.status() == 200
        answers = []
        caller = threading.Thread(
            target=lambda: answers.append(server.predict("last", model="gate").json())
        )
        caller.start()
        gated.wait_begun("last")
        server.process.terminate()
        if name == "gateway":
            until(lambda: refused(server))
        assert server.process.poll() is None
        gated.open()
        caller.join(20)
        code = server.process.wait(20)
        idle.close()
    assert answers[0]["predictions"][0][0] == "last"
    assert code == (-15 if name == "uvicorn" else 0)


def refused(server):
    try:
        server.connect().close()
    except ConnectionRefusedError:
        return True
    return False


def transport_of(app):
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://here")


@pytest.mark.asyncio
async def test_an_app_is_mounted_in_another(shared):
    fastapi = pytest.importorskip("fastapi")
    outer = fastapi.FastAPI()
    app = asgi.App(GatewayConfig(broker=(shared.address,), model="echo", connect_timeout=20))
    outer.mount("/models", app)
    async with transport_of(outer) as client:
        answer = await client.post(
            "/models/v1/models/echo:predict", json={"instances": ["a"]}, timeout=20
        )
        assert (await client.get("/v1/models/echo")).status_code == 404
    await app.close()
    assert answer.json() == {"predictions": ["a"]}


def test_an_address_alone_configures_an_app():
    app = asgi.App("tcp://a:1,tcp://b:2")
    assert app._backend.config == GatewayConfig(broker=("tcp://a:1", "tcp://b:2"))


@pytest.mark.asyncio
async def test_other_protocols_are_declined_and_lifespan_is_spoken():
    sent = []

    async def send(message):
        sent.append(message["type"])

    messages = iter(["lifespan.startup", "lifespan.shutdown"])

    async def receive():
        return {"type": next(messages)}

    app = asgi.App("tcp://127.0.0.1:1")
    await app({"type": "websocket"}, receive, send)
    await app({"type": "lifespan"}, receive, send)
    assert sent == ["websocket.close", "lifespan.startup.complete", "lifespan.shutdown.complete"]
