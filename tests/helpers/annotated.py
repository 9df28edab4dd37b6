"""Whether a message is what its class declares, field by field."""

from __future__ import annotations

import functools
import types
from collections.abc import Callable
from typing import Any, TypeAlias, Union, get_args, get_origin, get_type_hints

from zstreamer.wire import messages

Check: TypeAlias = Callable[[Any], bool]

BYTES = (bytes, bytearray, memoryview)


def wrong_fields(message: tuple[Any, ...]) -> list[str]:
    """Return the names of the message's fields that are not as its class declares."""
    fields = zip(_checks(type(message)).items(), message, strict=True)
    return [name for (name, good), value in fields if not good(value)]


@functools.cache
def _checks(cls: type) -> dict[str, Check]:
    return {name: _check(hint) for name, hint in get_type_hints(cls, vars(messages)).items()}


def _check(hint: Any) -> Check:
    inner = get_args(hint)
    if hint == messages.Buffer:
        return lambda value: isinstance(value, BYTES) or hasattr(value, "buffer")
    if hasattr(hint, "_fields"):
        return lambda value: type(value) is hint and not wrong_fields(value)
    if get_origin(hint) in (Union, types.UnionType):
        several = [_check(each) for each in inner]
        return lambda value: any(good(value) for good in several)
    if get_origin(hint) is list:
        item = _check(inner[0])
        return lambda value: type(value) is list and all(map(item, value))
    if get_origin(hint) is tuple:  # what stands for an empty list
        return lambda value: value == ()
    plain = get_origin(hint) or hint
    return lambda value: hint is object or type(value) is plain  # a bool is no int
