"""A Flask app for gunicorn's gevent workers, with a model in one of four ways.

WAY=naive       each request runs the model by itself
WAY=threaded    a ThreadedStreamer
WAY=streamer    a Streamer of WORKERS processes
WAY=cluster     a Client of the broker at BROKER
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from flask import Flask, Response, jsonify, request
from gevent.monkey import get_original

from tests.bench.others import models
from tests.bench.web_models import model_class
from zstreamer import Client, ManagedModel, Streamer, ThreadedStreamer
from zstreamer.model import Loaded

BATCH = int(os.environ.get("BATCH", models.BATCH))

Predict = Callable[[list[str]], Sequence[object]]


def _loaded() -> ManagedModel:
    # The model's time must not pass while others run, as gevent's sleep would have it.
    models.sleep = get_original("time", "sleep")
    model = model_class()()
    model.init_model(**model_settings())
    return model


def model_settings() -> dict[str, object]:
    """What the model is set up with: a real one gets a single thread."""
    if os.environ["MODEL"] != "bert":
        return {}
    return {"device": "cpu", "dtype": os.environ["BERT_DTYPE"], "threads": 1}


def _naive() -> Predict:
    model = _loaded()
    loaded = Loaded(model)

    def predict(items: list[str]) -> Sequence[object]:
        return loaded.predict([loaded.prepare(item) for item in items])

    return predict


def _threaded() -> Predict:
    return ThreadedStreamer(_loaded(), BATCH).predict


def _streamer() -> Predict:
    workers = int(os.environ["WORKERS"])
    settings = model_settings()
    return Streamer(model_class(), BATCH, worker_num=workers, model_init_kwargs=settings).predict


def _cluster() -> Predict:
    return Client(os.environ["BROKER"], model=os.environ["MODEL"]).predict


WAYS = {"naive": _naive, "threaded": _threaded, "streamer": _streamer, "cluster": _cluster}


def make_app() -> Flask:
    """Make the app; in each worker, after gunicorn has patched and forked."""
    app = Flask(__name__)
    predict = WAYS[os.environ["WAY"]]()

    @app.post("/stream")
    def stream() -> Response:
        return jsonify(predict([request.get_json()["s"]]))

    return app
