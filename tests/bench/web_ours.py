"""How zstreamer's doors, and the same servers with nothing behind them, are started and asked."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

from tests.bench.web_server import Service

GATEWAY = "gateway"
ASGI = "ASGI app under uvicorn"
RSGI = "RSGI app under granian"
BARE = "pywsgi, bare handler"
APP = "pywsgi, ready app"
FLASK = "Flask on gunicorn gevent"
NAIVE = "naive, Flask on gunicorn gevent"
THREADED = "ThreadedStreamer, Flask on gunicorn gevent"
STREAMER = "Streamer, Flask on gunicorn gevent"

EMPTY_GRANIAN = "granian RSGI, empty handler"
EMPTY_UVICORN = "uvicorn ASGI, empty handler"
EMPTY_PYWSGI = "pywsgi, empty handler"
EMPTY_FLASK = "Flask on gunicorn gevent, empty handler"

PYTHON = (sys.executable, "-m")

CONNECTIONS = 4096
"""That a server may have, and may let wait: more than are ever used."""

LIMIT = str(CONNECTIONS)

GUNICORN = (
    *("gunicorn", "--worker-class=gevent", "--workers=1", "--log-level=warning"),
    *(f"--worker-connections={LIMIT}", f"--backlog={LIMIT}", "--keep-alive=75"),
    "--bind=127.0.0.1:{port}",
)
"""One process, as every web server here has: two cores are shared with all the rest."""

UVICORN = (
    *("uvicorn", "--host=127.0.0.1", "--port={port}", f"--backlog={LIMIT}"),
    *("--log-level=warning", "--no-access-log"),
)

GRANIAN = (
    *("granian", "--interface=rsgi", "--port={port}", f"--backlog={LIMIT}", "--no-ws"),
    *("--log-level=warning", "--no-access-log"),
)


def instances(text: str) -> bytes:
    """The body for the models' own path."""
    return json.dumps({"instances": [text]}).encode()


def field(text: str) -> bytes:
    """The body for a handler that reads one field of it."""
    return json.dumps({"s": text}).encode()


def gateway(broker: str, model: str) -> Service:
    """`zstreamer gateway`."""
    command = (*PYTHON, "zstreamer", "gateway", "--broker", broker, "--port", "{port}")
    return Service(GATEWAY, (*command, "--log-level", "warning"), _path(model), instances)


def asgi(broker: str, model: str) -> Service:
    """The ASGI app under another server."""
    command = (*PYTHON, *UVICORN, "zstreamer.web.asgi:app")
    variables = {"ZSTREAMER_BROKER": broker}
    return Service(ASGI, command, _path(model), instances, variables=variables)


def rsgi(broker: str, model: str) -> Service:
    """The RSGI app under granian."""
    command = (*PYTHON, *GRANIAN, "zstreamer.web.rsgi:app")
    variables = {"ZSTREAMER_BROKER": broker}
    return Service(RSGI, command, _path(model), instances, variables=variables)


def bare(broker: str, model: str) -> Service:
    """A handler with nothing between it and the client."""
    variables = {"BROKER": broker, "MODEL": model}
    command = (*PYTHON, "tests.bench.web_bare", "bare")
    return Service(BARE, command, "/stream", field, variables=variables)


def app(broker: str, model: str) -> Service:
    """The ready WSGI app, with all that the gateway can do."""
    variables = {"BROKER": broker, "MODEL": model}
    command = (*PYTHON, "tests.bench.web_bare", "app")
    return Service(APP, command, _path(model), instances, variables=variables)


def flask(broker: str, model: str) -> Service:
    """A client in a Flask app, with the settings for gunicorn that zstreamer brings."""
    settings = ("--config", "python:zstreamer.web.gunicorn")
    return _flask(FLASK, "cluster", {"BROKER": broker, "MODEL": model}, settings)


def naive(model: str, **variables: str) -> Service:
    """The model in the web process, one predict a request."""
    return _flask(NAIVE, "naive", {"MODEL": model, **variables})


def threaded(model: str, **variables: str) -> Service:
    """The model in the web process, in batches."""
    return _flask(THREADED, "threaded", {"MODEL": model, **variables})


def streamer(model: str, workers: int, **variables: str) -> Service:
    """The model in processes of the web process's own."""
    variables = {"MODEL": model, "WORKERS": str(workers), **variables}
    return _flask(STREAMER, "streamer", variables)


def local(model: str, workers: int) -> list[Service]:
    """All ways without a cluster of one's own; only the last has more than one worker."""
    alone = [naive(model), threaded(model)] if workers == 1 else []
    return [*alone, streamer(model, workers)]


def doors(broker: str, model: str) -> list[Service]:
    """The ways into a cluster that are measured under every load."""
    return [make(broker, model) for make in (gateway, asgi, bare, flask)]


def other_doors(broker: str, model: str) -> list[Service]:
    """The same apps as two of these, on other servers."""
    return [make(broker, model) for make in (rsgi, app)]


def empty() -> list[Service]:
    """The servers by themselves."""
    commands: list[tuple[str, Sequence[str]]] = [
        (EMPTY_GRANIAN, (*PYTHON, *GRANIAN, "tests.bench.web_empty:rsgi")),
        (EMPTY_UVICORN, (*PYTHON, *UVICORN, "tests.bench.web_empty:asgi")),
        (EMPTY_PYWSGI, (*PYTHON, "tests.bench.web_bare", "empty")),
        (EMPTY_FLASK, (*PYTHON, *GUNICORN, "tests.bench.web_empty:flask")),
    ]
    return [Service(name, command, "/stream", field, empty=True) for name, command in commands]


def empty_flask() -> Service:
    """What Flask and gunicorn leave to whoever is called there."""
    return next(each for each in empty() if each.name == EMPTY_FLASK)


def _flask(
    name: str, way: str, variables: dict[str, str], settings: tuple[str, ...] = ()
) -> Service:
    command = (*PYTHON, *GUNICORN, *settings, "tests.bench.web_flask:make_app()")
    return Service(name, command, "/stream", field, variables={"WAY": way, **variables})


def _path(model: str) -> str:
    return f"/v1/models/{model}:predict"
