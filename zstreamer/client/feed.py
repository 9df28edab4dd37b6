"""The iterable of a job: read ahead a little, where its waits hold up nobody else.

Lists and ranges are read where the outputs are taken. Any other iterable may block, so a thread
of its own reads it (a greenlet where gevent serves the caller), and waits while it is far enough
ahead.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import AsyncIterable, Callable, Iterable, Iterator
from typing import Protocol

from zstreamer.system import native
from zstreamer.system.waiter import Bell

FOREVER = 3600.0
"""Seconds of one wait, after which it begins again."""


class Feed(Protocol):
    """Where a job's items come from.

    Attributes:
        error: what the iterable raised, once all that came before it is taken.
    """

    error: BaseException | None

    def take(self, count: int) -> list[object] | None:
        """Return up to so many items; none where it must be waited for, None at the end."""

    def close(self) -> None:
        """Read no more."""


class ListFeed:
    """Items that are there already.

    Args:
        items: a list, a tuple or a range.
        start: index of the first that is wanted.
    """

    error: BaseException | None = None

    def __init__(self, items: list[object] | tuple[object, ...] | range, start: int) -> None:
        self._items = items
        self._next = start

    def take(self, count: int) -> list[object] | None:
        """See `Feed`."""
        found = list(self._items[self._next : self._next + count])
        self._next += len(found)
        return found or None

    def close(self) -> None:
        """See `Feed`."""


class Ahead:
    """Items that another thread, greenlet or task has read.

    Args:
        ring: tells whoever takes them that there is something new.
        resume: tells whoever reads that more are wanted.
    """

    def __init__(self, ring: Callable[[], object], resume: Callable[[], object]) -> None:
        self.error: BaseException | None = None
        self.closed = False
        self._items: deque[object] = deque()
        self._limit = 1
        self._ended = False
        self._hungry = False
        self._ring = ring
        self._resume = resume

    def take(self, count: int) -> list[object] | None:
        """See `Feed`."""
        self._hungry = True  # before the look, so that what comes after it rings
        ended, items = self._ended, self._items
        found = [items.popleft() for _ in range(min(count, len(items)))]
        self._limit = count
        if found:
            self._hungry = False
        elif ended:
            return None
        self._resume()
        return found

    def close(self) -> None:
        """See `Feed`."""
        self.closed = True
        self._resume()

    # Where it is read

    @property
    def full(self) -> bool:
        """Whether to wait before the next item is read."""
        return len(self._items) >= self._limit and not self.closed

    def put(self, item: object) -> None:
        """An item was read."""
        self._items.append(item)
        if self._hungry:
            self._hungry = False
            self._ring()

    def end(self, error: BaseException | None) -> None:
        """There are no more, or the iterable raised."""
        self.error = error
        self._ended = True
        self._ring()


class ThreadFeed(Ahead):
    """An iterable that is read in a thread or greenlet of its own.

    Args:
        items: the iterable.
        start: how many of its items to pass over.
        ring: see `Ahead`.
    """

    def __init__(self, items: Iterable[object], start: int, ring: Callable[[], object]) -> None:
        self._more = Bell()
        super().__init__(ring, self._more.ring)
        self._iterator: Iterator[object] = itertools.islice(items, start, None)
        if native.hub() is None:
            native.start_thread(self._read)
        else:
            import gevent

            gevent.spawn(self._read)

    def _read(self) -> None:
        raised: BaseException | None = None
        try:
            for item in self._iterator:
                self.put(item)
                while self.full:
                    self._more.wait(FOREVER)
                if self.closed:
                    break
        except BaseException as error:  # noqa: BLE001  # it is raised where the outputs are taken
            raised = error
        self.end(raised)


class TaskFeed(Ahead):
    """An asynchronous iterable that is read in a task of its own.

    Args:
        items: the iterable.
        start: how many of its items to pass over.
        ring: see `Ahead`.
    """

    def __init__(
        self, items: AsyncIterable[object], start: int, ring: Callable[[], object]
    ) -> None:
        import asyncio

        self._more = asyncio.Event()
        super().__init__(ring, self._more.set)
        self._task = asyncio.ensure_future(self._read(items, start))

    def close(self) -> None:
        """See `Feed`."""
        super().close()
        self._task.cancel()

    async def _read(self, items: AsyncIterable[object], start: int) -> None:
        raised: BaseException | None = None
        passed = 0
        try:
            async for item in items:
                passed += 1
                if passed > start:
                    self.put(item)
                    while self.full:
                        self._more.clear()
                        await self._more.wait()
        except Exception as error:  # noqa: BLE001  # it is raised where the outputs are taken
            raised = error
        self.end(raised)
