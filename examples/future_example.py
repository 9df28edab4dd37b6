"""Futures: hand in work and collect it later, against asking one by one.

    python -m examples.future_example
    python -m examples.future_example 200      # that many sentences

Each `submit` returns a future at once, so that many sentences wait together and share batches.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from examples.bert_model import BATCH_SIZE, ManagedBertModel
from zstreamer import Streamer

COUNT = 100


def timed(title: str, work: Callable[[], list[object]]) -> list[object]:
    """Do some work, print how long it took and return its answers."""
    start = time.perf_counter()
    answers = work()
    seconds = time.perf_counter() - start
    print(f"{title:12s} {len(answers)} sentences in {seconds:.2f} s")
    return answers


def main() -> None:
    """Ask the same sentences in both ways."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else COUNT
    sentences = [f"I have {number} [MASK] in my garden." for number in range(count)]
    with Streamer(ManagedBertModel, batch_size=BATCH_SIZE, wait_for_worker_ready=True) as streamer:

        def one_by_one() -> list[object]:
            return [streamer.predict([sentence])[0] for sentence in sentences]

        def with_futures() -> list[object]:
            futures = [streamer.submit([sentence]) for sentence in sentences]
            return [future.result(timeout=60)[0] for future in futures]

        timed("one by one", one_by_one)
        answers = timed("futures", with_futures)
    print(f"{sentences[0]}  ->  {answers[0]}")


if __name__ == "__main__":  # the worker process imports this file again
    main()
