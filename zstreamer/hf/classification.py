"""Text classification: a label for a text or a pair of texts, and how sure the model is of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification

from zstreamer.hf.base import best, probabilities
from zstreamer.hf.text import Text, TextModel, pair_of, text_of
from zstreamer.torch import Features


class TextClassification(TextModel):
    """Labels a text: ``{"label": "POSITIVE", "score": 0.98}``.

    An item is a text, or two as a list or ``{"text": …, "text_pair": …}``. With ``top_k``, or
    where several labels may hold, it is answered with a list, the likeliest first.
    """

    def load(
        self,
        trust_remote_code: bool = False,
        max_length: int | None = None,
        truncation: bool = True,
        top_k: int | None = None,
    ) -> nn.Module:
        """Load the classifier.

        Args:
            trust_remote_code: run the Python code that the model brings along.
            max_length: cut texts to so many tokens; None for as many as the model takes.
            truncation: whether to cut them; else longer ones are refused.
            top_k: labels to answer with; 0 for all; None for the likeliest, or for all where the
                config's ``problem_type`` is "multi_label_classification".
        """
        self.read_tokens(trust_remote_code, max_length, truncation)
        module: Any = self.weights(AutoModelForSequenceClassification, trust_remote_code)
        self._config = module.config
        several = self._config.problem_type == "multi_label_classification"
        self._top_k = 0 if top_k is None and several else top_k
        self._names = self.names(self._config)
        loaded: nn.Module = module
        return loaded

    def read(self, item: object) -> Text:
        """Return the text, or both."""
        return pair_of(item) if _is_pair(item) else text_of(item)

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return the scores of the labels: float32 [items, labels]."""
        return probabilities(super().forward(inputs), self._config)

    def finish(self, output: Tensor, _: Features) -> object:
        """Return the likeliest label, or a list of them, with their scores."""
        return best(output, self._names, self._top_k)


def _is_pair(item: object) -> bool:
    return isinstance(item, list | tuple | Mapping)
