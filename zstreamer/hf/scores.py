"""Scores of pairs of texts, as the cross-encoders of sentence-transformers give them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification

from zstreamer.hf.card import Card
from zstreamer.hf.pooling import activation
from zstreamer.hf.text import Text, TextModel, pair_of
from zstreamer.setting import ConfigError


class Scores(TextModel):
    """Says how well two texts fit, such as a query and a document: a number.

    An item is two texts: a list of both, ``{"query": …, "document": …}`` or
    ``{"text": …, "text_pair": …}``. A model with several labels answers with an array of them.
    """

    example: ClassVar[Sequence[object]] = [["A query", "A short document."]]

    def load(
        self,
        trust_remote_code: bool = False,
        max_length: int | None = None,
        truncation: bool = True,
    ) -> nn.Module:
        """Load the cross-encoder.

        Args:
            trust_remote_code: run the Python code that the model brings along.
            max_length: cut a pair to so many tokens, the longer text first; None for as many as
                the model takes.
            truncation: whether to cut it; else longer ones are refused.
        """
        for step in self.card.modules[1:]:
            raise ConfigError(
                f"the step {step.kind} in modules.json is not supported for scores: choose "
                "another --task (in Python task=…)"
            )
        self.read_tokens(trust_remote_code, max_length, truncation)
        module: nn.Module = self.weights(AutoModelForSequenceClassification, trust_remote_code)
        self._activation = activation(_named(self.card), _default(module))
        return module

    def read(self, item: object) -> Text:
        """Return both texts."""
        return pair_of(item)

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return the scores: float32 [items], or [items, labels] where there are several."""
        scores: Tensor = self._activation(super().forward(inputs))
        return scores.squeeze(-1)


def _default(module: Any) -> str:
    one = module.config.num_labels == 1
    return f"torch.nn.modules.{'activation.Sigmoid' if one else 'linear.Identity'}"


def _named(card: Card) -> object:
    """The activation that a model's files name; it has stood in three places over the years."""
    newer = card.config.get("sentence_transformers")
    nested = newer.get("activation_fn") if isinstance(newer, dict) else None
    oldest = card.config.get("sbert_ce_default_activation_function")
    return card.sentences.get("activation_fn") or nested or oldest
