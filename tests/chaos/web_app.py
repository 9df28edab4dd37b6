"""A WSGI app that embeds a client; gunicorn's gevent workers serve it to `tests.chaos.web`.

    POST /predict   [items, timeout, idempotent] -> outputs
    GET  /ready     -> process id, once a worker is warm
    GET  /tables    -> [process id, entries in the client's tables]

Bodies are payloads, as `zstreamer.codec` writes them. An error of zstreamer travels as on the
wire, under its own code as the status; anything else is gunicorn's to answer, with a 500.
"""

import os

from tests.chaos.tables import table_sizes
from tests.chaos.web import PAYLOAD
from zstreamer import Client, codec, errors

client = Client(os.environ["BROKER"], model=os.environ["MODEL"], connect_timeout=20.0)


def predict(body):
    items, timeout, idempotent = codec.decode(body)
    return client.predict(items, timeout=timeout, idempotent=idempotent)


def ready(_):
    client.wait_ready(30)
    return os.getpid()


def tables(_):
    return [os.getpid(), table_sizes(client)]


ROUTES = {"/predict": predict, "/ready": ready, "/tables": tables}


def app(environ, start_response):
    """Answer one request."""
    try:
        value = ROUTES[environ["PATH_INFO"]](environ["wsgi.input"].read())
        status = "200 OK"
    except errors.ZStreamerError as error:
        value = errors.to_wire(error)
        status = f"{int(error.code)} {type(error).__name__}"
    body = codec.encode(value)
    start_response(status, [("Content-Type", PAYLOAD), ("Content-Length", str(len(body)))])
    return [body]
