"""The future that `submit` returns."""

from __future__ import annotations

import concurrent.futures
import logging
import sys
from collections.abc import Callable
from typing import TypeAlias

from zstreamer.errors import ZStreamerError

log = logging.getLogger(__name__)

Callback: TypeAlias = "Callable[[concurrent.futures.Future[list[object]]], object]"


if sys.version_info >= (3, 11):
    ResultTimeout = TimeoutError
else:

    class ResultTimeout(concurrent.futures.TimeoutError, TimeoutError):
        """What Python has made one class since 3.11, so that `except TimeoutError` catches it."""


class Future(concurrent.futures.Future[list[object]]):
    """A `concurrent.futures.Future` of a call's outputs.

    ``cancel()`` works until the answer is there, and takes the call's items out of all
    queues. ``result(timeout)`` that times out cancels nothing. Done-callbacks run apart from
    the thread or hub that moves messages, so they may block and may make calls themselves.
    """

    def __init__(
        self,
        on_cancel: Callable[[], None],
        run_apart: Callable[[Callable[[], None]], None],
    ) -> None:
        super().__init__()
        self._on_cancel = on_cancel
        self._run_apart = run_apart

    def settle(self, results: Callable[[], list[object]]) -> None:
        """End it with what ``results`` returns or raises, unless it was cancelled."""
        if not self.set_running_or_notify_cancel():
            return
        try:
            self.set_result(results())
        except ZStreamerError as error:
            self.set_exception(error)

    def cancel(self) -> bool:
        """Give the call up. Returns whether that was in time."""
        cancelled = super().cancel()
        if cancelled:
            self._on_cancel()
        return cancelled

    if sys.version_info < (3, 11):

        def result(self, timeout: float | None = None) -> list[object]:
            """Return the outputs, or raise the call's error, or TimeoutError."""
            try:
                return super().result(timeout)
            except concurrent.futures.TimeoutError:
                raise ResultTimeout(_words(timeout)) from None

        def exception(self, timeout: float | None = None) -> BaseException | None:
            """Return the call's error, None where it has none; raises TimeoutError."""
            try:
                return super().exception(timeout)
            except concurrent.futures.TimeoutError:
                raise ResultTimeout(_words(timeout)) from None

    def add_done_callback(self, fn: Callback) -> None:
        """Call ``fn`` with this future once it is done; at once, here, where it is already."""
        if self.done():
            super().add_done_callback(fn)
        else:
            super().add_done_callback(lambda future: self._run_apart(lambda: _call(fn, future)))


def _words(timeout: float | None) -> str:
    return f"the call has not ended within {timeout:g} s"


def _call(fn: Callback, future: concurrent.futures.Future[list[object]]) -> None:
    try:
        fn(future)
    except Exception:
        log.exception("a done-callback of %r raised", future)
