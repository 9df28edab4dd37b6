"""The outputs of a job as an asynchronous iterator."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable

from zstreamer.client.feed import Feed, ListFeed, TaskFeed, ThreadFeed
from zstreamer.client.outputs import Options, Steps
from zstreamer.client.port import Port


class AsyncOutputs(AsyncIterator[object]):
    """As `Outputs`, for ``async for``; the items may be an asynchronous iterable.

    Args:
        options: how the job is run.
        port: where its chunks go.
    """

    def __init__(self, options: Options, port: Port) -> None:
        self._bell = _Bell()
        self._steps = Steps(options, port, self._bell.ring, lambda ring: _feed(options, ring))
        self._outputs = _outputs(self._steps, self._bell)

    @property
    def index(self) -> int:
        """Index of the next output: all before it have been handed out; a job can start here."""
        return self._steps.index

    @property
    def failed(self) -> int:
        """How many of those that were handed out are errors."""
        return self._steps.failed

    async def close(self) -> None:
        """Give up what is under way, and read no more of the items."""
        await self._outputs.aclose()

    def __aiter__(self) -> AsyncIterator[object]:
        return self._outputs

    async def __anext__(self) -> object:
        return await anext(self._outputs)

    async def __aenter__(self) -> AsyncOutputs:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


class _Bell:
    """Wakes the coroutine that waits, from any thread."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._rung = asyncio.Event()

    def ring(self) -> None:
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self._rung.set)

    async def wait(self, seconds: float) -> None:
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._rung.wait(), seconds)

    def begin(self) -> None:
        """What rings from here on is for the step that follows, or the wait after it."""
        self._loop = asyncio.get_running_loop()
        self._rung.clear()


async def _outputs(steps: Steps, bell: _Bell) -> AsyncGenerator[object, None]:
    try:
        while not steps.done:
            bell.begin()
            chunk, seconds = steps.step()
            if chunk is None:
                if not steps.done:
                    await bell.wait(seconds)
                continue
            for output in steps.outputs(chunk):
                yield output
    finally:
        steps.close()


def _feed(options: Options, ring: Callable[[], object]) -> Feed:
    items = options.items
    if isinstance(items, list | tuple | range):
        return ListFeed(items, options.start)
    if isinstance(items, AsyncIterable):
        return TaskFeed(items, options.start, ring)
    return ThreadFeed(items, options.start, ring)
