"""Payloads between a program and its own children: what msgpack cannot carry goes by pickle.

Everything arrives as it was: tuples as tuples, dataclasses as themselves. Only for private
sockets, since whoever can send such bytes can run code; every other reader refuses them as an
extension type that it does not know.
"""

from __future__ import annotations

import io
import pickle
import sys
from collections.abc import Callable, Sequence
from typing import Any

import msgpack

from zstreamer import codec, extensions
from zstreamer.codec import Codec
from zstreamer.errors import BadRequest

PICKLE = 112
"""The extension type of a whole payload that is a pickle."""

MAIN = ("__main__", "__mp_main__")
"""What the program's main module is called, and what `multiprocessing` calls it in a child."""


def encode_all(items: Sequence[object], name: str = "items[{}]") -> list[bytes]:
    """Return the payload of each of ``items``; as `codec.encode_all`, but for what it refuses.

    Raises:
        BadRequest: one of them cannot be pickled either.
    """
    # Strict: a subclass of what msgpack knows, or a tuple, would arrive as something else.
    pack = msgpack.Packer(default=_encode_numbers, strict_types=True).pack
    payloads: list[bytes] = []
    for index, item in enumerate(items):
        try:
            payload = pack(item)
            codec.check(item)
        except (TypeError, ValueError, OverflowError, RecursionError):
            payload = _pickled(item, name, index)
        payloads.append(payload)
    return payloads


def private(import_main: Callable[[], object] | None = None) -> Codec:
    """Return the codec of one end of a private socket.

    Args:
        import_main: called before a class is looked for in the program's main module.
    """

    def extension(kind: int, data: bytes) -> object:
        if kind != PICKLE:
            return extensions.decode(kind, data)
        return _Unpickler(io.BytesIO(data), import_main).load()

    def decode(payload: bytes | memoryview) -> object:
        try:
            return msgpack.unpackb(payload, ext_hook=extension, strict_map_key=False, timestamp=3)
        except BadRequest:
            raise
        except Exception as cause:  # unpickling runs the user's code, which may raise anything
            raise BadRequest(
                f"what was sent cannot be opened ({cause!r}): its class must be at the top of a "
                "module that can be imported at both ends"
            ) from cause

    return Codec(encode_all, decode)


class _Pickler(pickle.Pickler):
    def reducer_override(self, value: Any) -> Any:
        """Called for all that is not plain: a row of a large tensor goes without the others."""
        if type(value) is getattr(sys.modules.get("torch"), "Tensor", None):
            strided = str(value.layout) == "torch.strided"
            if strided and value.untyped_storage().nbytes() > value.nbytes:
                return value.clone().__reduce_ex__(pickle.HIGHEST_PROTOCOL)
        return NotImplemented


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, import_main: Callable[[], object] | None) -> None:
        super().__init__(file)
        self._import_main = import_main

    def find_class(self, module_name: str, global_name: str) -> Any:
        """Return the class or function of a name."""
        if module_name in MAIN and self._import_main is not None:
            self._import_main()
        return super().find_class(module_name, global_name)


def _encode_numbers(value: object) -> msgpack.ExtType:
    """Return an array or a tensor as an extension, where it arrives as what it is."""
    found = extensions.encode_numbers(value) if _arrives_as_it_is(value) else None
    if found is None:
        raise TypeError("left to pickle")
    return found


def _arrives_as_it_is(value: Any) -> bool:
    np, tensor = sys.modules.get("numpy"), getattr(sys.modules.get("torch"), "Tensor", None)
    if type(value) is tensor:
        return not value.requires_grad
    return np is not None and (type(value) is np.ndarray or isinstance(value, np.generic))


def _pickled(item: object, name: str, index: int) -> bytes:
    file = io.BytesIO()
    try:
        _Pickler(file, pickle.HIGHEST_PROTOCOL).dump(item)
    except Exception as cause:  # pickling runs the user's __reduce__, which may raise anything
        kind = type(item).__qualname__
        error = BadRequest(
            f"{name.format(index)} is {kind}, which cannot be pickled for the model's process "
            f"({cause}); send what it is made of"
        )
        error.index = index
        raise error from cause
    packed: bytes = msgpack.packb(msgpack.ExtType(PICKLE, file.getvalue()))
    return packed
