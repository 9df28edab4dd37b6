"""The models behind every system that is compared: plain Python, for environments of any kind."""

import time

BATCH = 64
BETA, ALPHA = 0.004, 0.00002
"""Seconds of a batch, and of each of its items besides."""

SLOW_BETA = 0.050
"""The same of the slow model."""

sleep = time.sleep
"""Takes the model's time; a program whose `time.sleep` is gevent's may put the real one here."""


def answer(text):
    """The length of a text and its first word, which is another one in each question."""
    return f"{len(text)} {text.partition(' ')[0]}"


def trivial(batch):
    """Takes no time."""
    return [answer(text) for text in batch]


def sleeping(batch):
    """Takes 4 ms and 20 µs an item, and no CPU, as an accelerator looks to its host."""
    sleep(BETA + ALPHA * len(batch))
    return [answer(text) for text in batch]


def slow(batch):
    """Takes 50 ms and 20 µs an item, and no CPU."""
    sleep(SLOW_BETA + ALPHA * len(batch))
    return [answer(text) for text in batch]


MODELS = {"trivial": trivial, "sleeping": sleeping, "slow": slow}
