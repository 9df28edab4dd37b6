"""Many web servers in front of a cluster: a Flask app that embeds `zstreamer.Client`.

    zstreamer broker
    zstreamer worker examples.bert_model:ManagedBertModel --num 2
    gunicorn -k zstreamer.web.gunicorn.Worker -w 4 examples.flask_cluster:app
    curl -d "s=Happy birthday to [MASK]." http://127.0.0.1:8000/stream      # ["you"]

``ZSTREAMER_BROKER`` says where the broker is (tcp://127.0.0.1:7787) and ``ZSTREAMER_MODEL`` which
of its models to ask (default). This file loads no torch.
"""

from __future__ import annotations

import os

from flask import Flask, Response, jsonify, request

from examples.problem import problem
from examples.sentence import sentences
from zstreamer import Client, errors

app = Flask(__name__)
app.register_error_handler(errors.ZStreamerError, problem)
# It connects at the first call of each process, so it may be made here, before any fork.
client = Client(
    os.environ.get("ZSTREAMER_BROKER", "tcp://127.0.0.1:7787"),
    model=os.environ.get("ZSTREAMER_MODEL", "default"),
)


@app.route("/stream", methods=["GET", "POST"])
def stream() -> Response:
    """Answer in a batch with the other callers, on any web server."""
    return jsonify(client.predict(sentences()))


@app.after_request
def name_request(response: Response) -> Response:
    """Give a caller's X-Request-ID back, so that answers can be told apart in a log."""
    if request_id := request.headers.get("X-Request-ID"):
        response.headers["X-Request-ID"] = request_id
    return response


@app.get("/healthz")
def healthz() -> dict[str, str]:
    """Say that this process answers; whether the cluster does is for the broker to say."""
    return {"status": "ok"}
