"""One process: the same Flask app without batching and with it.

    python -m examples.flask_example
    curl -d "s=Happy birthday to [MASK]." http://127.0.0.1:5005/naive       # ["you"]
    curl -d "s=Happy birthday to [MASK]." http://127.0.0.1:5005/stream      # ["you"]
    curl --json '{"s": "Happy birthday to [MASK]."}' http://127.0.0.1:5005/stream

A request to /naive runs the model by itself. Requests to /stream that are open at the same time
share batches; `wrk` or `ab` with some 100 connections shows the difference.
"""

from __future__ import annotations

import os

from flask import Flask, Response, jsonify
from flask.typing import ResponseReturnValue

from examples.bert_model import BATCH_SIZE, ManagedBertModel
from examples.problem import problem
from examples.sentence import sentences
from zstreamer import ThreadedStreamer, errors

app = Flask(__name__)
app.register_error_handler(errors.ZStreamerError, problem)
model = ManagedBertModel()
model.init_model()
streamer = ThreadedStreamer(model, batch_size=BATCH_SIZE, max_latency=0.1)


@app.route("/naive", methods=["GET", "POST"])
def naive() -> ResponseReturnValue:
    """Answer with the model itself."""
    outcomes = model(sentences())
    for outcome in outcomes:
        if isinstance(outcome, Exception):
            return {"error": type(outcome).__name__, "message": str(outcome)}, 400
    return jsonify(outcomes)


@app.route("/stream", methods=["GET", "POST"])
def stream() -> Response:
    """Answer in a batch with the other callers."""
    return jsonify(streamer.predict(sentences()))


if __name__ == "__main__":
    app.run(port=int(os.environ.get("PORT", "5005")), threaded=True)
