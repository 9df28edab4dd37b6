"""Image classification: the labels that fit an image best."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from transformers import AutoImageProcessor, AutoModelForImageClassification

from zstreamer.errors import BadRequest, TooLarge
from zstreamer.hf.base import Pretrained, best, probabilities
from zstreamer.setting import ConfigError
from zstreamer.torch import Features

try:
    import PIL.Image
    import PIL.ImageOps
except ImportError:
    raise ImportError("models of images need Pillow: pip install 'zstreamer[hf]'") from None


class ImageClassification(Pretrained):
    """Labels an image: ``[{"label": "tabby cat", "score": 0.9}, …]``, the likeliest first.

    An item is the bytes of a file that Pillow can read (PNG, JPEG, WebP …), or an array of pixels,
    uint8 [height, width, 3].
    """

    def load(self, trust_remote_code: bool = False, top_k: int = 5) -> nn.Module:
        """Load the classifier.

        Args:
            trust_remote_code: run the Python code that the model brings along.
            top_k: labels to answer with; 0 for all.
        """
        self.init_prepare(trust_remote_code=trust_remote_code)
        module: nn.Module = self.weights(AutoModelForImageClassification, trust_remote_code)
        self._config: Any = module.config
        self._top_k, self._names = top_k, self.names(self._config)
        if getattr(self._processor, "do_resize", True) is False:
            raise ConfigError(f"the images of {self.card.folder} keep their sizes: not supported")
        self.example = [_blank()]  # type: ignore[misc]
        return module

    def init_prepare(self, *_: object, **settings: object) -> None:
        """Load what makes pixels of an image, for a process that does nothing else."""
        given = {**self.settings, **settings}
        trust = bool(given.get("trust_remote_code", False))
        self._processor: Any = self.pretrained(AutoImageProcessor, trust)

    def prepare(self, item: object) -> Features:
        """Turn an image into pixels of the model's size.

        Raises:
            BadRequest: it is no image.
            TooLarge: it has more pixels than Pillow takes, 179 million.
        """
        pixels = self._processor(images=opened(item), return_tensors="np")["pixel_values"]
        return {"pixel_values": pixels[0]}

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return the scores of the labels: float32 [items, labels]."""
        return probabilities(super().forward(inputs), self._config)

    def finish(self, output: Tensor, _: Features) -> object:
        """Return the likeliest labels with their scores."""
        return best(output, self._names, self._top_k)


def opened(item: object) -> PIL.Image.Image:
    """Return an image in RGB, the right way up; raises as `ImageClassification.prepare`."""
    try:
        if isinstance(item, bytes):
            image = PIL.Image.open(io.BytesIO(item))
            return PIL.ImageOps.exif_transpose(image).convert("RGB")
        if getattr(item, "ndim", 0) == 3:
            return PIL.Image.fromarray(item).convert("RGB")  # type: ignore[arg-type]  # an array
    except PIL.Image.DecompressionBombError as error:
        raise TooLarge(f"the image is too large: {error}") from None
    except (OSError, ValueError, TypeError, SyntaxError) as error:
        raise BadRequest(f"this is no image that can be read: {error}") from None
    raise BadRequest(
        f"an item is the bytes of an image file or its pixels, not {type(item).__name__}; over "
        'HTTP send the file itself, or {"b64": …} in JSON'
    )


def _blank() -> bytes:
    file = io.BytesIO()
    PIL.Image.new("RGB", (64, 64), "gray").save(file, "PNG")
    return file.getvalue()
