"""LitServe with one of the models: python with_litserve.py PORT; see `web_others`.

MODEL=sleeping | trivial, WAIT_MS=…
"""

import os
import sys

import litserve
import models


class Api(litserve.LitAPI):
    def setup(self, device):
        self.model = models.MODELS[os.environ["MODEL"]]

    def decode_request(self, request):
        return request["s"]

    def batch(self, inputs):
        return inputs

    def predict(self, batch):
        return self.model(batch)

    def unbatch(self, output):
        return output

    def encode_response(self, output):
        return {"output": output}


if __name__ == "__main__":
    api = Api(max_batch_size=models.BATCH, batch_timeout=float(os.environ["WAIT_MS"]) / 1000)
    server = litserve.LitServer(
        api,
        accelerator="cpu",
        devices=1,
        workers_per_device=1,
        fast_queue=True,
    )
    server.run(
        host="127.0.0.1",
        port=int(sys.argv[1]),
        num_api_servers=2,
        generate_client_file=False,
        log_level="warning",
    )
