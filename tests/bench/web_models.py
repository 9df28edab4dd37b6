"""The compared models for zstreamer's workers and web processes, and questions to ask them."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator

from tests.bench.others import models
from zstreamer import ManagedModel

BATCH = models.BATCH

NAMES = ("Anna", "Ben", "Clara", "David", "Emma", "Frank", "Grace", "Henry")
PLACES = ("garden", "station", "library", "office", "school", "harbour", "village", "museum")


class Sleeping(ManagedModel):
    """4 ms and 20 µs an item."""

    def predict(self, batch: list[str]) -> list[str]:
        return models.sleeping(batch)


class Slow(ManagedModel):
    """50 ms and 20 µs an item."""

    def predict(self, batch: list[str]) -> list[str]:
        return models.slow(batch)


class Trivial(ManagedModel):
    """No time at all."""

    def predict(self, batch: list[str]) -> list[str]:
        return models.trivial(batch)


TARGETS = {
    "sleeping": "tests.bench.web_models:Sleeping",
    "slow": "tests.bench.web_models:Slow",
    "trivial": "tests.bench.web_models:Trivial",
    "bert": "examples.bert_model:ManagedBertModel",
}


def model_class() -> type[ManagedModel]:
    """The one that the environment names, for a web process that has it to itself."""
    if os.environ["MODEL"] == "bert":
        from examples.bert_model import ManagedBertModel

        return ManagedBertModel
    return {"sleeping": Sleeping, "slow": Slow, "trivial": Trivial}[os.environ["MODEL"]]


def questions(count: int) -> list[tuple[str, str]]:
    """So many distinct sentences with their right answers, for the sleeping and trivial model."""
    texts = (f"q{number} {sentence}" for number, sentence in enumerate(_sentences()))
    return [(text, models.answer(text)) for text in itertools.islice(texts, count)]


def _sentences() -> Iterator[str]:
    pairs = itertools.product(NAMES, PLACES)
    for name, place in itertools.cycle(pairs):
        yield f"{name} went to the {place} and said happy birthday to everyone there"
