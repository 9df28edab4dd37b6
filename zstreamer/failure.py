"""What a model's code has raised or returned, as an error that can be sent.

An exception is the user's code too: its ``__str__`` may raise, its text may be no valid Unicode
or show a whole batch. None of that may end the model's process or block its connection.
"""

from __future__ import annotations

import contextlib
import traceback

import msgpack

from zstreamer import errors
from zstreamer.errors import PredictError, ZStreamerError

MESSAGE = 16 * 1024
TRACEBACK = 32 * 1024
"""Characters that are kept of each: thousands of errors may share one message on the wire."""

WHOLE = 256 * 1024
"""Bytes of one error: four for each of those characters, and something for the rest."""


def raised(error: BaseException) -> PredictError:
    """Return what the caller gets of an exception that `predict` raised."""
    return PredictError(message(error), _name(error), trace(error))


def returned(error: BaseException) -> ZStreamerError:
    """Return what the caller gets of an exception that stands in its item's place."""
    if isinstance(error, ZStreamerError) and _can_be_sent(error):
        return error
    return PredictError(message(error), _name(error))


def message(error: BaseException) -> str:
    """Return an exception's text, or words that say why there is none."""
    try:
        text = str(error)
    except BaseException as another:  # noqa: BLE001  # it is the user's code that runs here
        text = f"(no text: its __str__ raised {_name(another)})"
    return _sendable(text, MESSAGE)


def trace(error: BaseException) -> str:
    """Return an exception's traceback as text; its frames alone where the rest cannot be shown."""
    try:
        lines = traceback.format_exception(type(error), error, error.__traceback__)
    except BaseException:  # noqa: BLE001  # as above
        frames = traceback.format_tb(error.__traceback__)
        head = "Traceback (most recent call last):\n"
        lines = [head, *frames, f"{_name(error)}: {message(error)}\n"]
    return _sendable("".join(lines), TRACEBACK)


def let_go(error: BaseException) -> None:
    """Drop the frames of an exception and of what led to it: they keep a batch's tensors alive."""
    chain: list[BaseException | None] = [error]
    seen: set[int] = set()
    with contextlib.suppress(Exception):  # a class may have attributes of its own by these names
        while chain:
            each = chain.pop()
            if each is not None and id(each) not in seen:
                seen.add(id(each))
                each.__traceback__ = None
                chain += (each.__cause__, each.__context__)


def _name(error: BaseException) -> str:
    return _sendable(type(error).__qualname__, 200)


def _sendable(text: str, limit: int) -> str:
    """Return valid Unicode of at most about ``limit`` characters, without the middle if longer."""
    if len(text) > limit:
        left_out = f"… ({len(text) - limit:,} characters left out) …"
        text = text[: limit // 2] + left_out + text[-limit // 2 :]
    return text.encode("utf-8", "backslashreplace").decode()


def _can_be_sent(error: ZStreamerError) -> bool:
    """Whether the model has filled an error of ours with what belongs there."""
    try:
        wire = errors.to_wire(error)
        whole = [int(error.code), error.message, error.details()]
        size = len(msgpack.packb(wire))
    except BaseException:  # noqa: BLE001  # details() may be the user's; without a code it raises
        return False
    return wire == whole and size <= WHOLE
