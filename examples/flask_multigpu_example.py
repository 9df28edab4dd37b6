"""One machine, many GPUs: a gevent web server and 8 workers, evenly on the devices.

    python -m examples.flask_multigpu_example --workers 8 --cuda-devices 0,1,2,3
    python -m examples.flask_multigpu_example --workers 2       # without a GPU
    curl -d "s=Happy birthday to [MASK]." http://127.0.0.1:5005/stream      # ["you"]

The workers are processes of their own and go when this one goes, however it ends.
"""

from __future__ import annotations

from gevent import monkey

if __name__ == "__main__":
    monkey.patch_all()  # the workers import this file too, and run the model without gevent

import argparse
import os
import socket

from flask import Flask, Response, jsonify
from gevent.pywsgi import WSGIServer

from examples.bert_model import BATCH_SIZE, ManagedBertModel
from examples.problem import problem
from examples.sentence import sentences
from zstreamer import Streamer, errors


def make_app(streamer: Streamer) -> Flask:
    """Build the web app around a streamer."""
    app = Flask(__name__)
    app.register_error_handler(errors.ZStreamerError, problem)

    @app.route("/stream", methods=["GET", "POST"])
    def stream() -> Response:
        return jsonify(streamer.predict(sentences()))

    return app


def listen(port: int) -> socket.socket:
    """Open a listening socket whose connections send each answer at once.

    gevent's server leaves Nagle's algorithm on, which holds an answer on a kept connection back for
    up to 40 ms. Connections inherit the option from the socket that accepts them.
    """
    listener = socket.create_server(("127.0.0.1", port), backlog=1024)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def main() -> None:
    """Start the workers, then serve until Ctrl-C."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, default=int(os.environ.get("WORKER_NUM", "8")))
    parser.add_argument("--cuda-devices", default=os.environ.get("CUDA_DEVICES", ""))
    parser.add_argument("--port", type=int, default=int(os.environ.get("PORT", "5005")))
    options = parser.parse_args()
    devices = [int(number) for number in options.cuda_devices.split(",") if number]
    with Streamer(
        ManagedBertModel,
        batch_size=BATCH_SIZE,
        max_latency=0.1,
        worker_num=options.workers,
        cuda_devices=devices or None,
        wait_for_worker_ready=True,
    ) as streamer:
        print(f"http://127.0.0.1:{options.port}/stream", flush=True)
        WSGIServer(listen(options.port), make_app(streamer), log=None).serve_forever()


if __name__ == "__main__":
    main()
