"""A bare WSGI app that embeds a client, as it would stand in anyone's program; for gunicorn."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from typing import Any

from zstreamer import Client

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
