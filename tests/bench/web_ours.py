"""How zstreamer's doors, and the same servers with nothing behind them, are started and asked."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

from tests.bench.web_server import Service

GATEWAY = "gateway"
ASGI = "ASGI app under uvicorn"
GRANIAN = "ASGI app under granian"
BARE = "bare handler on our gunicorn worker"
APP = "ready app on our gunicorn worker"
FLASK = "Flask on our gunicorn worker"
FLASK_GEVENT = "Flask on gunicorn gevent"
NAIVE = "naive, Flask on our gunicorn worker"
THREADED = "ThreadedStreamer, Flask on our gunicorn worker"
STREAMER = "Streamer, Flask on our gunicorn worker"

EMPTY_GRANIAN = "granian ASGI, empty handler"
EMPTY_UVICORN = "uvicorn ASGI, empty handler"
EMPTY_BARE = "our gunicorn worker, empty handler"
EMPTY_FLASK = "Flask on our gunicorn worker, empty handler"
EMPTY_FLASK_GEVENT = "Flask on gunicorn gevent, empty handler"

PYTHON = (sys.executable, "-m")

CONNECTIONS = 4096
"""That a server may have, and may let wait: more than are ever used."""

LIMIT = str(CONNECTIONS)

GUNICORN = (
    *("gunicorn", "--workers=1", "--log-level=warning"),
    *(f"--worker-connections={LIMIT}", f"--backlog={LIMIT}", "--keep-alive=75"),
    "--bind=127.0.0.1:{port}",
)
GUNICORN_GEVENT = (*GUNICORN, "--worker-class=gevent")
OUR_GUNICORN = (*GUNICORN, "--worker-class=zstreamer.web.gunicorn.Worker")
"""One process, as every web server here has: two cores are shared with all the rest."""

UVICORN = (
    *("uvicorn", "--host=127.0.0.1", "--port={port}", f"--backlog={LIMIT}"),
    *("--log-level=warning", "--no-access-log"),
)

WITH_GRANIAN = (
    *("granian", "--interface=asgi", "--port={port}", f"--backlog={LIMIT}", "--no-ws"),
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


def granian(broker: str, model: str) -> Service:
    """The ASGI app under a third server."""
    command = (*PYTHON, *WITH_GRANIAN, "zstreamer.web.asgi:app")
    variables = {"ZSTREAMER_BROKER": broker}
    return Service(GRANIAN, command, _path(model), instances, variables=variables)


def bare(broker: str, model: str) -> Service:
    """A handler with nothing between it and the client."""
    variables = {"BROKER": broker, "MODEL": model}
    command = (*PYTHON, *OUR_GUNICORN, "tests.bench.web_bare:bare()")
    return Service(BARE, command, "/stream", field, variables=variables)


def app(broker: str, model: str) -> Service:
    """The ready WSGI app, with all that the gateway can do."""
    variables = {"ZSTREAMER_BROKER": broker}
    command = (*PYTHON, *OUR_GUNICORN, "zstreamer.web.wsgi:app")
    return Service(APP, command, _path(model), instances, variables=variables)


def flask(broker: str, model: str) -> Service:
    """A client in a Flask app."""
    return _flask(FLASK, "cluster", {"BROKER": broker, "MODEL": model})


def flask_gevent(broker: str, model: str) -> Service:
    """The same under gunicorn's own gevent worker."""
    variables = {"BROKER": broker, "MODEL": model}
    return _flask(FLASK_GEVENT, "cluster", variables, GUNICORN_GEVENT)


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
    return [make(broker, model) for make in (flask_gevent, granian, app)]


def empty() -> list[Service]:
    """The servers by themselves."""
    commands: list[tuple[str, Sequence[str]]] = [
        (EMPTY_GRANIAN, (*PYTHON, *WITH_GRANIAN, "tests.bench.web_empty:asgi")),
        (EMPTY_UVICORN, (*PYTHON, *UVICORN, "tests.bench.web_empty:asgi")),
        (EMPTY_BARE, (*PYTHON, *OUR_GUNICORN, "tests.bench.web_empty:wsgi")),
        (EMPTY_FLASK, (*PYTHON, *OUR_GUNICORN, "tests.bench.web_empty:flask")),
        (EMPTY_FLASK_GEVENT, (*PYTHON, *GUNICORN_GEVENT, "tests.bench.web_empty:flask")),
    ]
    return [Service(name, command, "/stream", field, empty=True) for name, command in commands]


def empty_flask() -> list[Service]:
    """What Flask and gunicorn leave to whoever is called there."""
    return [each for each in empty() if each.name in (EMPTY_FLASK, EMPTY_FLASK_GEVENT)]


def _flask(
    name: str, way: str, variables: dict[str, str], gunicorn: Sequence[str] = OUR_GUNICORN
) -> Service:
    command = (*PYTHON, *gunicorn, "tests.bench.web_flask:make_app()")
    return Service(name, command, "/stream", field, variables={"WAY": way, **variables})


def _path(model: str) -> str:
    return f"/v1/models/{model}:predict"
