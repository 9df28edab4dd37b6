"""A constant load of checked answers, for as long as a block lasts."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor


class Load:
    """Callers in threads, each with one call of two items at a time; wrong answers are errors.

    client: calls a model that doubles numbers.
    callers: how many.
    """

    def __init__(self, client, callers=8, timeout=60.0):
        self._client = client
        self._callers = callers
        self._timeout = timeout
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self.answered = 0
        self.errors = []
        self.worst = 0.0

    def _call(self, number):
        while not self._stop.is_set():
            start = time.monotonic()
            try:
                outputs = self._client.predict([number, number + 1], timeout=self._timeout)
                assert outputs == [2 * number, 2 * number + 2], f"wrong answer {outputs}"
            except Exception as error:
                with self._lock:
                    self.errors.append(repr(error))
            with self._lock:
                self.answered += 1
                self.worst = max(self.worst, time.monotonic() - start)

    def go_on(self, calls, seconds=90.0):
        """Wait until so many more calls have been answered.

        Returns how many were in all, and the longest since the last time, in seconds.
        """
        goal = self.answered + calls
        end = time.monotonic() + seconds
        while self.answered < goal:
            assert time.monotonic() < end, f"{goal - self.answered} calls still open; {self}"
            time.sleep(0.02)
        with self._lock:
            worst, self.worst = self.worst, 0.0
        return self.answered, worst

    def __enter__(self):
        self._pool = ThreadPoolExecutor(self._callers)
        for number in range(self._callers):
            self._pool.submit(self._call, number)
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._pool.shutdown()

    def __str__(self):
        return f"{self.answered} answered, {len(self.errors)} errors {self.errors[:3]}"
