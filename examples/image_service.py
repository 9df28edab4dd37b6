"""PNG in, label out: a small convolutional network behind Flask, or behind zstreamer's gateway.

    python -m examples.image_service draw            # checked.png, horizontal.png, vertical.png
    python -m examples.image_service                 # Flask and the model in one program
    curl -F image=@checked.png http://127.0.0.1:5000/label

    zstreamer up examples.image_service:Stripes --http 8000
    curl -F image=@checked.png http://127.0.0.1:8000/v1/models/default:predict

needs: pip install zstreamer[torch,web] pillow

The network tells stripes from each other and from checks. It learns that in a second when it is
loaded, so that this example needs no files. See docs/images.md.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import PIL.Image
import torch
from flask import Flask, Response, jsonify, request
from torch import Tensor, nn

from zstreamer import ThreadedStreamer, errors
from zstreamer.torch import TorchModel
from zstreamer.web.flask import problem

Pixels: TypeAlias = "npt.NDArray[np.float32]"

LABELS = ("checked", "horizontal", "vertical")
SIZE = 16
MOST_PIXELS = 20_000_000


class Stripes(TorchModel):
    """Labels an image: an item is the bytes of a file, the answer its label and a score."""

    batch_buckets = (1, 8, 32)

    def load(self) -> nn.Module:
        """Return the network, once it has learned its labels."""
        self.example = [png("checked")]  # type: ignore[misc]  # each model has its own
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # steps this small only wait for each other's threads
        try:
            return trained()
        finally:
            torch.set_num_threads(threads)

    def prepare(self, item: object) -> Pixels:
        """Turn a file into pixels; this runs on arrival, while the batch before runs.

        Raises:
            zstreamer.errors.BadRequest: it is no image. Over HTTP its caller gets a 400.
            zstreamer.errors.TooLarge: it has too many pixels, and its caller gets a 413.
        """
        if not isinstance(item, bytes):
            raise errors.BadRequest("send the bytes of an image file")
        try:
            image = PIL.Image.open(io.BytesIO(item))
            if image.width * image.height > MOST_PIXELS:
                raise errors.TooLarge(f"the image has more than {MOST_PIXELS:,} pixels")
            return pixels(image)
        except (OSError, SyntaxError, ValueError) as error:
            raise errors.BadRequest(f"this is no image that can be read: {error}") from None

    def forward(self, inputs: Any) -> Tensor:
        """Return how likely each label is: [items, labels]."""
        return torch.softmax(self.module(inputs["input"]), -1)

    def finish(self, output: Tensor, _: object) -> dict[str, object]:
        """Return the likeliest label."""
        best = int(output.argmax())
        return {"label": LABELS[best], "score": round(float(output[best]), 3)}


class Network(nn.Module):
    """Two layers of 3 × 3 filters; what they find anywhere in the image decides."""

    def __init__(self) -> None:
        super().__init__()
        self.filters = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 16, 3, padding=1), nn.ReLU()
        )
        self.labels = nn.Linear(16, len(LABELS))

    def forward(self, images: Tensor) -> Tensor:
        """Return the scores of the labels for images [items, 1, height, width]."""
        found: Tensor = self.labels(self.filters(images).mean((2, 3)))
        return found


def trained(steps: int = 120) -> Network:
    """Return a network that has seen some thousand drawings."""
    random = np.random.default_rng(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Network()
    learner = torch.optim.Adam(network.parameters(), 0.02)
    for _ in range(steps):
        labels = random.integers(len(LABELS), size=32)
        images = np.stack([drawn(LABELS[label], random) for label in labels])
        loss = nn.functional.cross_entropy(
            network(torch.from_numpy(images)), torch.from_numpy(labels)
        )
        learner.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch's own
        learner.step()
    return network


def drawn(label: str, random: np.random.Generator) -> Pixels:
    """Return a drawing with some noise, [1, SIZE, SIZE] from 0 to 1."""
    down, across = np.indices((SIZE, SIZE)) + random.integers(8, size=2)[:, None, None]
    width = random.integers(2, 4)
    rows, columns = down // width % 2, across // width % 2
    shown = {"horizontal": rows, "vertical": columns, "checked": rows ^ columns}[label]
    noisy: Pixels = np.clip(shown + random.normal(0, 0.1, shown.shape), 0, 1).astype(np.float32)
    return noisy[np.newaxis]


def pixels(image: PIL.Image.Image) -> Pixels:
    """Return an image as the network takes it: grey, [1, SIZE, SIZE] from 0 to 1."""
    grey: Pixels = np.array(image.convert("L").resize((SIZE, SIZE)), np.float32)
    grey /= 255
    return grey[np.newaxis]


def png(label: str) -> bytes:
    """Return the bytes of a drawing's file."""
    shown = drawn(label, np.random.default_rng(1))[0]
    file = io.BytesIO()
    PIL.Image.fromarray((shown * 255).astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


app = Flask(__name__)
app.register_error_handler(errors.ZStreamerError, problem)
app.config["MAX_CONTENT_LENGTH"] = 16 * 2**20


@app.post("/label")
def label() -> Response:
    """Label all files of a form, in a batch with those of other callers."""
    files = [file.read() for file in request.files.values()]
    streamer: ThreadedStreamer = app.extensions["streamer"]
    return jsonify(streamer.predict(files))


def main() -> None:
    """Draw the files, or serve."""
    if sys.argv[1:] == ["draw"]:
        for name in LABELS:
            Path(f"{name}.png").write_bytes(png(name))
        return
    with ThreadedStreamer(Stripes, batch_size=32) as streamer:
        app.extensions["streamer"] = streamer
        app.run(port=5000, threaded=True)


if __name__ == "__main__":
    main()
