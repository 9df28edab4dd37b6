"""BERTs to measure with: the real small one, handled in three ways, and random ones of any size."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers import BertConfig, BertForMaskedLM

from examples.bert_model import ManagedBertModel
from zstreamer.torch import Features, TorchModel, buckets
from zstreamer.torch.device import fastest_dtype

WORDS = (
    *("he", "opened", "the", "door", "and", "walked", "into", "the", "room", "with", "a", "book"),
    *("she", "looked", "at", "the", "sky", "and", "said", "that", "it", "would", "be", "long"),
)
"""Each of them is one word piece."""

FRAME = 4
"""Word pieces of the shortest text: [CLS], [MASK], a full stop and [SEP]."""

MEDIAN, NINETY_FIFTH, LONGEST = 16, 128, 512
"""Word pieces of texts as people send them: most are short, and a few are very long."""

SIGMA = math.log(NINETY_FIFTH / MEDIAN) / 1.6449
"""Of the log-normal distribution with these; 1.6449 is the normal one's 95th percentile."""

SIZES = {
    "base": {},  # what transformers takes for BERT-base
    "tiny": {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "vocab_size": 1000,
    },
}


class Plain(ManagedBertModel):
    """Batches in the order in which items come."""

    cost = None


class Padded(Plain):
    """Every item padded to the longest that there may be."""

    def load(self, *args: Any, **kwargs: Any) -> BertForMaskedLM:
        module = super().load(*args, **kwargs)
        self.length_buckets = (self.max_pieces,)
        return module


class RandomBert(TorchModel):
    """A BERT whose weights are random, for its speed alone; items are lists of word pieces."""

    example: ClassVar[list[list[int]]] = [list(range(16))]
    padding: ClassVar[dict[str, float]] = {"input_ids": 0, "attention_mask": 0}

    def load(self, size: str = "base") -> BertForMaskedLM:
        config = BertConfig(**SIZES[size])
        self.length_buckets = buckets(16, config.max_position_embeddings)
        torch.manual_seed(1)
        return BertForMaskedLM(config)

    def prepare(self, pieces: Sequence[int]) -> Features:
        return {"input_ids": pieces, "attention_mask": [1] * len(pieces)}

    def cost(self, features: Mapping[str, Sequence[int]]) -> float:
        return len(features["input_ids"])

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return the likeliest word piece in the first place of each item: int64 [items]."""
        hidden = self.module.base_model(**inputs).last_hidden_state[:, 0]
        best: Tensor = self.module.cls(hidden).argmax(dim=-1)
        return best


def cpu_dtype() -> str:
    """What this CPU runs fastest; timed here, once, since several models might not agree."""
    return str(fastest_dtype(torch.device("cpu"))).removeprefix("torch.")


def text(pieces: int) -> str:
    """A text with one [MASK] that is so many word pieces long, at least `FRAME`."""
    words = itertools.islice(itertools.cycle(WORDS), pieces - FRAME)
    return " ".join(["[MASK]", *words]) + " ."


def lengths(count: int, seed: int = 1) -> list[int]:
    """So many lengths with a long tail, the same for the same seed."""
    draw = random.Random(seed).lognormvariate
    drawn = (round(draw(math.log(MEDIAN), SIGMA)) for _ in range(count))
    return [min(max(length, FRAME), LONGEST) for length in drawn]


def pieces(count: int, length: int, seed: int = 1) -> list[list[int]]:
    """So many items of random word pieces, for `RandomBert`."""
    draw = random.Random(seed).randrange
    return [[draw(1000) for _ in range(length)] for _ in range(count)]
