"""The model that a worker actor has written to a file: what its worker's process imports.

`zstreamer.ray.shipped:model` is the class or function that the program gave to `run`. It came
through Ray's own channels, to which only those have access who may run code on the cluster.
"""

from __future__ import annotations

import os
from pathlib import Path

VARIABLE = "ZSTREAMER_RAY_MODEL"
"""The environment variable that names the file."""


def __getattr__(name: str) -> object:
    if name != "model":
        raise AttributeError(name)
    from ray import cloudpickle

    found: object = cloudpickle.loads(Path(os.environ[VARIABLE]).read_bytes())
    return found
