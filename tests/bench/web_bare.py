"""A bare WSGI app that embeds a client, as it would stand in anyone's program, under our server.

PORT=8000 python -m tests.bench.web_bare empty     # a handler that does nothing
PORT=8000 BROKER=… MODEL=… python -m tests.bench.web_bare bare
PORT=8000 BROKER=… MODEL=… python -m tests.bench.web_bare app     # zstreamer's own app
"""

from gevent import monkey

monkey.patch_all()

import json  # noqa: E402
import os  # noqa: E402
import sys  # noqa: E402
from collections.abc import Callable, Iterable  # noqa: E402
from typing import Any  # noqa: E402

from tests.bench import web_empty  # noqa: E402
from zstreamer import Client  # noqa: E402
from zstreamer.web.http import pywsgi  # noqa: E402

Start = Callable[..., Callable[[bytes], object]]
App = Callable[[dict[str, Any], Start], Iterable[bytes]]


def bare() -> App:
    """JSON in, one call, JSON out."""
    client = Client(os.environ["BROKER"], model=os.environ["MODEL"])

    def app(environ: dict[str, Any], start_response: Start) -> Iterable[bytes]:
        item = json.loads(environ["wsgi.input"].read())["s"]
        body = json.dumps(client.predict([item])).encode()
        headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
        start_response("200 OK", headers)
        return [body]

    return app


def ready() -> App:
    """All that the gateway answers."""
    from zstreamer.web import wsgi

    return wsgi.App(os.environ["BROKER"])


APPS = {"bare": bare, "app": ready, "empty": lambda: web_empty.wsgi}

if __name__ == "__main__":
    pywsgi.serve(APPS[sys.argv[1]](), port=int(os.environ["PORT"]), backlog=4096)
