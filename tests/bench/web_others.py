"""How zstreamer's peers are started and asked, with the settings that serve each of them best.

What was tried, on the sleeping model at 32, 128 and 512 connections:

- mosec: waiting 1, 2, 3, 5 and 10 ms for a full batch; msgpack in place of JSON, no faster here.
- LitServe: waiting 0, 1, 5 and 20 ms, with and without `fast_queue`, with one and two API servers.
- service-streamer: waiting 2, 5, 20 and 100 ms (its default).
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from tests.bench.web_environments import python
from tests.bench.web_ours import GUNICORN_GEVENT, field
from tests.bench.web_server import Service
from tests.helpers.cluster import free_port

MOSEC = "mosec"
LITSERVE = "LitServe"
THREADED = "service-streamer's ThreadedStreamer"
STREAMER = "service-streamer's Streamer"
REDIS = "service-streamer over Redis"
STREAMERS = (THREADED, STREAMER, REDIS)

FOLDER = Path(__file__).parent / "others"

MOSEC_WAIT = "2"
MOSEC_WAITS = ("1", "2", "5", "10")
LITSERVE_WAIT = "5"
THREADED_WAIT = "2"
STREAMER_WAIT = "5"
"""Milliseconds. All of them wait for a full batch even while nobody else asks."""


def all_of(model: str) -> list[Service]:
    """Every peer that can run here, behind a model that costs no packages."""
    found = [mosec(model), litserve(model), threaded(model), streamer(model)]
    return [*found, redis(model)] if has_redis() else found


def has_redis() -> bool:
    """Whether there is a Redis to start."""
    return shutil.which("redis-server") is not None


def mosecs(model: str) -> list[Service]:
    """One for each wait: which is best depends on the load."""
    return [mosec(model, wait, f"{MOSEC}, {wait} ms") for wait in MOSEC_WAITS]


def mosec(model: str, wait: str = MOSEC_WAIT, name: str = MOSEC) -> Service:
    """One worker; its answers are JSON, a text in and a text out."""
    options = ("--address", "127.0.0.1", "--port", "{port}", "--log-level", "error")
    command = (python("mosec"), str(FOLDER / "with_mosec.py"), *options)
    variables = {"MODEL": model, "WAIT_MS": wait}
    return _peer(
        name, command, "/inference", variables, body=lambda text: json.dumps(text).encode()
    )


def litserve(model: str) -> Service:
    """One worker behind two API servers: with one, it is slower."""
    command = (python("litserve"), str(FOLDER / "with_litserve.py"), "{port}")
    return _peer(LITSERVE, command, "/predict", {"MODEL": model, "WAIT_MS": LITSERVE_WAIT})


def threaded(model: str) -> Service:
    """The model in the web process, where its sleep lets other greenlets run."""
    return _streamer(THREADED, MODE="threaded", MODEL=model, WAIT_MS=THREADED_WAIT)


def streamer(model: str) -> Service:
    """One worker process."""
    return _streamer(STREAMER, MODE="streamer", MODEL=model, WAIT_MS=STREAMER_WAIT)


def redis(model: str) -> Service:
    """One worker process, and a Redis of its own."""
    port = str(free_port())
    helpers = (
        ("redis-server", "--bind", "127.0.0.1", "--port", port, "--save", ""),
        (python("service-streamer"), str(FOLDER / "with_service_streamer.py")),
    )
    variables = {"MODE": "redis", "REDIS": f"127.0.0.1:{port}"}
    return _streamer(REDIS, helpers, MODEL=model, WAIT_MS=STREAMER_WAIT, **variables)


def _plain(text: str) -> bytes:
    return json.dumps(text).encode()


def _streamer(name: str, helpers: tuple[tuple[str, ...], ...] = (), **variables: str) -> Service:
    app = ("--chdir", str(FOLDER), "with_service_streamer:make_app()")
    command = (python("service-streamer"), "-m", *GUNICORN_GEVENT, *app)
    return _peer(name, command, "/stream", variables, helpers=helpers)


def _peer(
    name: str, command: tuple[str, ...], path: str, variables: dict[str, str], **rest: object
) -> Service:
    # Without zstreamer's own folders on the import path.
    variables = {"PYTHONPATH": "", **variables}
    return Service(name, command, path, variables=variables, stops=True, **{"body": field, **rest})
