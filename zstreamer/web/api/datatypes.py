"""The Open Inference Protocol's datatypes in numpy, which is imported only where it is needed."""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType

from zstreamer.web.api.problem import Refused

NUMPY: Mapping[str, str] = {
    "BOOL": "|b1",
    **{f"UINT{8 * size}": f"<u{size}" for size in (1, 2, 4, 8)},
    **{f"INT{8 * size}": f"<i{size}" for size in (1, 2, 4, 8)},
    **{f"FP{8 * size}": f"<f{size}" for size in (2, 4, 8)},
}
"""Datatypes of numbers, as numpy calls them."""


def numpy() -> ModuleType:
    """Return numpy; raises `Refused` where it is not installed."""
    try:
        import numpy as np
    except ImportError:
        words = "tensors of numbers need numpy where this server runs: pip install zstreamer[numpy]"
        raise Refused(501, words) from None
    return np
