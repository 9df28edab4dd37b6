"""service-streamer with one of the models, in a Flask app for gunicorn's gevent workers.

MODEL=sleeping | trivial, MODE=threaded | streamer | redis, WAIT_MS=…; for redis also
REDIS=HOST:PORT, and beside the app
python with_service_streamer.py              # its worker
"""

import os

import models
from flask import Flask, jsonify, request
from service_streamer import (
    ManagedModel,
    RedisStreamer,
    Streamer,
    ThreadedStreamer,
    run_redis_workers_forever,
)

WAIT = float(os.environ["WAIT_MS"]) / 1000


class Model(ManagedModel):
    def init_model(self):
        self.model = models.MODELS[os.environ["MODEL"]]

    def predict(self, batch):
        return self.model(batch)


def streamer():
    mode = os.environ["MODE"]
    if mode == "redis":
        return RedisStreamer(os.environ["REDIS"])
    if mode == "streamer":
        return Streamer(Model, models.BATCH, WAIT, worker_num=1)
    return ThreadedStreamer(models.MODELS[os.environ["MODEL"]], models.BATCH, WAIT)


def make_app():
    app = Flask(__name__)
    batches = streamer()

    @app.post("/stream")
    def stream():
        return jsonify(batches.predict([request.get_json()["s"]]))

    return app


if __name__ == "__main__":
    run_redis_workers_forever(Model, models.BATCH, WAIT, redis_broker=os.environ["REDIS"])
