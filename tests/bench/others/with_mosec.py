"""mosec with one of the models: python with_mosec.py --port PORT; see `web_others`.

MODEL=sleeping | slow | trivial, WAIT_MS=…
"""

import os

import models
from mosec import Server, Worker


class Model(Worker):
    """Reads and writes JSON, as it does where nothing else is said."""

    def __init__(self):
        super().__init__()
        self.model = models.MODELS[os.environ["MODEL"]]

    def forward(self, data):
        return self.model(data)


if __name__ == "__main__":
    server = Server()
    server.append_worker(
        Model, num=1, max_batch_size=models.BATCH, max_wait_time=int(os.environ["WAIT_MS"])
    )
    server.run()
