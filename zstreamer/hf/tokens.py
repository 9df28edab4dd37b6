"""Token classification: the names, places … in a text, and where they stand."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from transformers import AutoModelForTokenClassification

from zstreamer.hf.text import TextModel
from zstreamer.setting import ConfigError
from zstreamer.torch import Features


class Token(NamedTuple):
    """A token of a text with its label.

    Args:
        label: such as "B-PER", "I-PER" or "O".
        score: how likely it is.
        start, end: where it stands, in characters.
    """

    label: str
    score: float
    start: int
    end: int


class TokenClassification(TextModel):
    """Finds the entities in a text, in their order.

    Each is ``{"entity_group": "PER", "score": 0.99, "word": "Ada", "start": 0, "end": 3}``:
    neighbouring tokens of one kind are joined, its score is their mean, and ``start`` and ``end``
    count characters.
    """

    tokenizing: ClassVar[Mapping[str, object]] = {
        "return_offsets_mapping": True,
        "return_special_tokens_mask": True,
    }

    def load(
        self,
        trust_remote_code: bool = False,
        max_length: int | None = None,
        truncation: bool = True,
        ignore_labels: Sequence[str] = ("O",),
    ) -> nn.Module:
        """Load the classifier.

        Args:
            trust_remote_code: run the Python code that the model brings along.
            max_length: read so many tokens of a text; None for as many as the model takes.
            truncation: whether to cut longer ones; else they are refused.
            ignore_labels: kinds that are no entities.
        """
        self.read_tokens(trust_remote_code, max_length, truncation)
        if not self.tokenizer.is_fast:
            raise ConfigError(f"the tokenizer in {self.card.weights} cannot say where tokens stand")
        self._ignored = frozenset(ignore_labels)
        module: nn.Module = self.weights(AutoModelForTokenClassification, trust_remote_code)
        self._names = self.names(module.config)
        return module

    def features(self, item: object, tokens: dict[str, Any]) -> Features:
        """Keep where the tokens stand."""
        places, special = tokens.pop("offset_mapping"), tokens.pop("special_tokens_mask")
        return {**tokens, "_text": item, "_places": places, "_special": special}

    def forward(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:  # type: ignore[override]
        """Return the likeliest label of each token, and its score: [items, tokens]."""
        scores, labels = torch.softmax(super().forward(inputs), -1).max(-1)
        return {"label": labels, "score": scores}

    def finish(self, output: Mapping[str, Tensor], tokens: Features) -> list[dict[str, object]]:
        """Return the entities."""
        rows: Any = zip(
            tokens["_places"],  # type: ignore[call-overload]  # as `prepare` made them
            tokens["_special"],
            output["label"].tolist(),
            output["score"].tolist(),
            strict=False,  # behind the tokens is padding
        )
        known = [
            Token(self._names[label], score, *place)
            for place, special, label, score in rows
            if not special
        ]
        text = str(tokens["_text"])
        return [
            {
                "entity_group": kind,
                "score": score,
                "word": text[start:end],
                "start": start,
                "end": end,
            }
            for kind, score, start, end in entities(known)
            if kind not in self._ignored
        ]


def entities(tokens: Sequence[Token]) -> Iterator[tuple[str, float, int, int]]:
    """Yield each run of tokens of one kind: kind, mean score, start and end.

    A token whose label begins with "B-" begins a new run.
    """
    run: list[Token] = []
    for token in tokens:
        if run and (token.label.startswith("B-") or _kind(token) != _kind(run[-1])):
            yield _joined(run)
            run = []
        run.append(token)
    if run:
        yield _joined(run)


def _kind(token: Token) -> str:
    return token.label[2:] if token.label.startswith(("B-", "I-")) else token.label


def _joined(run: Sequence[Token]) -> tuple[str, float, int, int]:
    mean = sum(each.score for each in run) / len(run)
    return _kind(run[0]), mean, run[0].start, run[-1].end
