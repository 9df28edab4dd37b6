"""Callers in threads who ask again as soon as they are answered, and the batches that they get."""

import contextlib
import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor

from tests.helpers.waiting import until


@contextlib.contextmanager
def calling(predict, callers):
    """Let so many callers call a model that answers with the size of its batch.

    Yields a function that returns the mean batch of the last answers, twenty for each caller; 0
    while there are fewer.
    """
    sizes = deque(maxlen=20 * callers)
    end = threading.Event()

    def call():
        while not end.is_set():
            sizes.extend(predict([None]))

    def mean_batch():
        last = list(sizes)
        # A batch of n is answered n times.
        return len(last) / sum(1 / size for size in last) if len(last) == sizes.maxlen else 0.0

    with ThreadPoolExecutor(callers) as pool:
        calls = [pool.submit(call) for _ in range(callers)]
        try:
            yield mean_batch
        finally:
            end.set()
        for each in calls:
            each.result(30)


def settled(predict, callers, low, high, seconds=40.0):
    """Whether the mean batch of so many callers comes to lie between two bounds."""
    with calling(predict, callers) as mean_batch:
        return until(lambda: low <= mean_batch() <= high, seconds)
