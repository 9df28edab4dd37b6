"""Deliberate bugs, a check removed each, that fuzzing must find within minutes.

scripts/fuzz --flaws --minutes 5
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import msgpack
import numpy as np

from zstreamer import extensions
from zstreamer.web.api import binary, tensors
from zstreamer.web.http.receiver import Receiver
from zstreamer.wire import decoder

Flaw = Callable[[], contextlib.AbstractContextManager[object]]


def columns_may_differ() -> contextlib.AbstractContextManager[object]:
    """A bundle's columns need not be of one length."""
    return mock.patch.object(decoder, "_columns")


@contextlib.contextmanager
def extensions_are_not_checked() -> Iterator[None]:
    """An extension type that nobody knows is passed on."""
    before = extensions.decode

    def decode(code: int, data: bytes) -> object:
        try:
            return before(code, data)
        except Exception:  # the flaw
            return msgpack.ExtType(code, data)

    with mock.patch.object(extensions, "decode", decode):
        yield


@contextlib.contextmanager
def bodies_are_measured_by_their_last_part() -> Iterator[None]:
    """A body that comes in pieces may be larger than one that comes at once."""

    def on_body(self: Any, part: bytes) -> None:
        if not self.deaf:
            self._body.append(part)
            self.size = len(part)
            if self.size > self._max_body:
                self.refuse(413)
            else:
                self._sink.grew(len(part))

    with mock.patch.object(Receiver, "on_body", on_body):
        yield


@contextlib.contextmanager
def binary_data_may_be_too_short() -> Iterator[None]:
    """The size of binary data is not compared with the tensor's shape."""

    def numbers(data: memoryview, name: str, datatype: str, shape: tuple[int, ...]) -> np.ndarray:
        dtype = np.dtype(binary.NUMPY[datatype])
        return np.frombuffer(data, dtype).reshape(shape)

    with mock.patch.object(tensors.binary, "numbers", numbers):
        yield


FLAWS: dict[str, tuple[str, Flaw]] = {
    "columns may differ": ("wire", columns_may_differ),
    "extensions are not checked": ("codec", extensions_are_not_checked),
    "bodies are measured by their last part": ("http", bodies_are_measured_by_their_last_part),
    "binary data may be too short": ("tensors", binary_data_may_be_too_short),
}
"""By name: the target that must find it, and what puts it in."""
