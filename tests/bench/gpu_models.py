"""BERTs of random weights for `tests.bench.gpu`: one that is given word pieces, one texts."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import BertConfig, BertModel, BertTokenizerFast

from zstreamer.torch import Features, TorchModel, buckets

SIZES: dict[str, dict[str, int]] = {
    "base": {},  # what transformers takes for BERT-base
    "tiny": {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "vocab_size": 2000,
    },
}

BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
LENGTHS = buckets(16, 128)


class Classifier(nn.Module):
    """An encoder and two logits of its first place."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.encoder = BertModel(config, add_pooling_layer=False)
        self.head = nn.Linear(config.hidden_size, 2)

    def forward(self, **inputs: Tensor) -> Tensor:
        """Return the logits [items, 2]."""
        logits: Tensor = self.head(self.encoder(**inputs).last_hidden_state[:, 0])
        return logits


class Pieces(TorchModel):
    """Classifies lists of word pieces."""

    example: ClassVar[list[object]] = [list(range(5, 21))]
    padding: ClassVar[dict[str, float]] = {"input_ids": 0, "attention_mask": 0}
    length_buckets = LENGTHS

    def load(self, size: str = "base", batches: Sequence[int] = BATCHES) -> nn.Module:
        self.batch_buckets = tuple(batches)
        torch.manual_seed(1)
        self.config = BertConfig(**SIZES[size])
        return Classifier(self.config)

    def prepare(self, item: Any) -> Features:
        return {"input_ids": item, "attention_mask": [1] * len(item)}

    def cost(self, features: Mapping[str, Sequence[int]]) -> float:
        return len(features["input_ids"])

    def finish(self, output: Tensor, _: object) -> float:
        return float(output[0])


class Texts(Pieces):
    """Classifies texts; its words are its vocabulary's, each of them one piece."""

    example: ClassVar[list[object]] = ["a short text"]

    def load(self, size: str = "base", batches: Sequence[int] = BATCHES) -> nn.Module:
        module = super().load(size, batches)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "vocab.txt")
            path.write_text("\n".join(vocabulary(self.config.vocab_size)))
            self.tokenizer = BertTokenizerFast(str(path))
        return module

    def prepare_batch(self, items: list[Any]) -> list[Features]:
        found = self.tokenizer(
            items, truncation=True, max_length=LENGTHS[-1], return_token_type_ids=False
        )
        pairs = zip(found["input_ids"], found["attention_mask"], strict=True)
        return [{"input_ids": ids, "attention_mask": mask} for ids, mask in pairs]

    def prepare(self, item: Any) -> Features:
        return self.prepare_batch([item])[0]


def vocabulary(size: int) -> list[str]:
    """So many word pieces: those that a tokenizer must have, letters, and words."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    words = [f"{a}{b}{c}" for a in letters for b in letters for c in letters]
    pieces = [*special, *letters, *(f"##{each}" for each in letters), *words]
    return [*pieces, *(f"##{each}" for each in words)][:size]


def texts(count: int, pieces: int, seed: int = 1) -> list[str]:
    """So many texts of so many word pieces each, with [CLS] and [SEP]."""
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    draw = random.Random(seed).choice
    words = [f"a{b}{c}" for b in letters for c in letters]
    return [" ".join(draw(words) for _ in range(pieces - 2)) for _ in range(count)]
