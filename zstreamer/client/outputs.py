"""The outputs of a job as an iterator, and what it shares with the asynchronous one.

    iterable ── feed ──> Steps ── job ──> port ──> the client's driver
    for output in … <──  Steps <─ job <── inbox <── calls that have ended, from any thread

All but the feed runs where the outputs are taken: who takes them slowly is served slowly.
"""

from __future__ import annotations

import logging
import operator
import time
from collections import deque
from collections.abc import AsyncIterable, Callable, Generator, Iterable, Iterator, Mapping, Sized
from collections.abc import Set as AbstractSet
from functools import partial

from zstreamer.client.feed import FOREVER, Feed, ListFeed, ThreadFeed
from zstreamer.client.items import VIEWS
from zstreamer.client.job import Chunk, Encoded, Job, Submit
from zstreamer.client.port import Ended, Port
from zstreamer.client.progress import Progress
from zstreamer.client.settings import positive_seconds
from zstreamer.errors import ZStreamerError
from zstreamer.system.waiter import Bell

log = logging.getLogger(__name__)


class Options:
    """How a job is run; the arguments of `Client.map`, checked.

    Raises:
        TypeError: ``items`` is one item, or has no order.
        ValueError: another argument makes no sense.
        ModuleNotFoundError: a progress bar is asked for, and tqdm is not installed.
    """

    def __init__(
        self,
        items: object,
        start: int,
        chunk: int | None,
        patience: float,
        progress: bool,
        return_exceptions: bool,
    ) -> None:
        self.start = _whole("start", start, 0)
        self.chunk = None if chunk is None else _whole("chunk", chunk, 1)
        self.patience = positive_seconds("patience", patience)
        self.keep_errors = return_exceptions
        name = type(items).__name__
        if isinstance(items, str | bytes | bytearray | memoryview | Mapping):
            raise TypeError(f"items must be an iterable of items, not {name}; wrap it: [item]")
        if isinstance(items, AbstractSet) and not isinstance(items, VIEWS):
            raise TypeError(f"items must have an order, which {name} has not; sort it first")
        if not isinstance(items, Iterable | AsyncIterable):
            raise TypeError(f"items must be an iterable of items, not {name}; wrap it: [item]")
        self.items: Iterable[object] | AsyncIterable[object] = items
        total = len(items) if isinstance(items, Sized) else None
        self.progress = Progress(total, self.start) if progress else None


def _whole(name: str, value: int, least: int) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be a whole number, not {value!r}") from None
    if number < least:
        raise ValueError(f"{name} must be a whole number of at least {least}, not {value!r}")
    return number


class Steps:
    """A job with its feed and its port, one step at a time.

    Args:
        options: how the job is run.
        port: where its chunks go.
        ring: called from any thread when there may be something to do.
        feed: makes the feed, given `ring`.

    Attributes:
        index: of the next output.
        failed: how many of those before it are errors.
        done: all outputs have been handed out.
    """

    def __init__(
        self,
        options: Options,
        port: Port,
        ring: Callable[[], object],
        feed: Callable[[Callable[[], object]], Feed],
    ) -> None:
        self.index = options.start
        self.failed = 0
        self.done = False
        self.job = Job(options.start, options.chunk, options.patience)
        self._keep_errors = options.keep_errors
        self._progress = options.progress
        self._port = port
        self._ring = ring
        self._make_feed = feed
        self._feed: Feed | None = None
        self._inbox: deque[Callable[[], None]] = deque()
        self._open: dict[int, Callable[[], None]] = {}  # what cancels each call
        self._numbers = 0

    def step(self) -> tuple[Chunk | None, float]:
        """Do what can be done now.

        Returns:
            The next chunk whose outputs are there, or None and the seconds to wait at most.

        Raises:
            ZStreamerError: what ended the job.
            Exception: what the iterable raised, after all outputs of what it gave before.
        """
        while self._inbox:
            self._inbox.popleft()()
        if self._feed is None:
            self._feed = self._make_feed(self._ring)
        self._read(self._feed)
        now = time.monotonic()
        self._submit(now)
        job = self.job
        chunk = job.ready()
        if chunk is not None:
            if self._progress is not None:
                self._progress.show(job.index, job.failed)
        elif job.done:
            self.done = True
            if self._feed.error is not None:
                raise self._feed.error
        return chunk, min(FOREVER, job.wake_at() - now)

    def _read(self, feed: Feed) -> None:
        """Take items as long as there are any and the job wants them."""
        job, port = self.job, self._port
        job.window = port.window()
        while count := job.wanted():
            items = feed.take(count)
            if not items:
                job.exhausted = items is None
                return
            job.feed(_encoded(port, items, job.fed))

    def _submit(self, now: float) -> None:
        for action in self.job.poll(now):
            if isinstance(action, Submit):
                self._numbers += 1
                ended = partial(self._ended, self._numbers, action)
                self._open[self._numbers] = self._port.start(action.payloads, ended)
            else:
                self._port.probe(self._probed)
        if words := self.job.warning(now):
            log.warning("%s", words)

    def outputs(self, chunk: Chunk) -> Iterator[object]:
        """Yield the outputs of a chunk; raise its first error where errors are not kept."""
        for output in chunk.outputs:
            if chunk.failed and isinstance(output, ZStreamerError):
                if not self._keep_errors:
                    raise output
                self.failed += 1
            self.index += 1
            yield output

    def close(self) -> None:
        """End what is under way."""
        if self._feed is not None:
            self._feed.close()
        calls, self._open = list(self._open.values()), {}
        for cancel in calls:
            cancel()
        if self._progress is not None:
            self._progress.close()

    # In any thread

    def _ended(self, number: int, submitted: Submit, call: Ended) -> None:
        self._inbox.append(partial(self._take, number, submitted, call))
        self._ring()

    def _probed(self, error: ZStreamerError | None) -> None:
        self._inbox.append(lambda: self.job.probed(time.monotonic(), error))
        self._ring()

    # Where the outputs are taken

    def _take(self, number: int, submitted: Submit, call: Ended) -> None:
        if self._open.pop(number, None) is not None:
            self.job.ended(time.monotonic(), submitted, call.settled(), call.size())


class Outputs(Iterator[object]):
    """The outputs of a job, in order. What is under way is given up when nobody holds it any more.

    Args:
        options: how the job is run.
        port: where its chunks go.
    """

    def __init__(self, options: Options, port: Port) -> None:
        self._bell = Bell()
        self._steps = Steps(options, port, self._bell.ring, partial(_feed, options))
        self._outputs = _outputs(self._steps, self._bell)

    @property
    def index(self) -> int:
        """Index of the next output: all before it have been handed out; a job can start here."""
        return self._steps.index

    @property
    def failed(self) -> int:
        """How many of those that were handed out are errors."""
        return self._steps.failed

    def close(self) -> None:
        """Give up what is under way, and read no more of the items."""
        self._outputs.close()

    def __iter__(self) -> Iterator[object]:
        return self._outputs

    def __next__(self) -> object:
        return next(self._outputs)

    def __enter__(self) -> Outputs:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _outputs(steps: Steps, bell: Bell) -> Generator[object, None, None]:
    try:
        while not steps.done:
            chunk, seconds = steps.step()
            if chunk is None:
                if not steps.done:
                    bell.wait(seconds)
                continue
            yield from steps.outputs(chunk)
    finally:
        steps.close()


def _encoded(port: Port, items: list[object], first: int) -> list[Encoded]:
    """Return the items as they are submitted; errors among them stand for themselves."""
    if not any(issubclass(kind, ZStreamerError) for kind in set(map(type, items))):
        return port.encode(items, first)
    encoded: list[Encoded] = []
    for item in items:
        if isinstance(item, ZStreamerError):
            encoded.append(Encoded(None, 0, item))
        else:
            encoded += port.encode([item], first + len(encoded))
    return encoded


def _feed(options: Options, ring: Callable[[], object]) -> Feed:
    items = options.items
    if isinstance(items, list | tuple | range):
        return ListFeed(items, options.start)
    if not isinstance(items, Iterable):
        raise TypeError("an asynchronous iterable is for zstreamer.aio.Client")
    return ThreadFeed(items, options.start, ring)
