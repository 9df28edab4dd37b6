"""Fill-mask: the words that fit the gap in a text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import AutoModelForMaskedLM

from zstreamer.errors import BadRequest
from zstreamer.hf.text import Text, TextModel, text_of
from zstreamer.setting import ConfigError
from zstreamer.torch import Features


class FillMask(TextModel):
    """Finds the likeliest tokens for the one mask in a text, the likeliest first.

    Each is ``{"score": 0.3, "token": 2017, "token_str": "you", "sequence": "the whole text"}``.
    The mask is written as the model's tokenizer has it, mostly ``[MASK]`` or ``<mask>``.
    """

    example: ClassVar[Sequence[object]] = []  # `load` knows how the mask is written

    def load(
        self,
        trust_remote_code: bool = False,
        max_length: int | None = None,
        top_k: int = 5,
    ) -> nn.Module:
        """Load the model.

        Args:
            trust_remote_code: run the Python code that the model brings along.
            max_length: read so many tokens of a text; None for as many as the model takes.
            top_k: tokens to answer with.
        """
        self.read_tokens(trust_remote_code, max_length, truncation=True)
        if self.tokenizer.mask_token is None:
            raise ConfigError(f"the tokenizer in {self.card.weights} has no mask")
        self.example = [f"Happy {self.tokenizer.mask_token} to you."]  # type: ignore[misc]
        module: nn.Module = self.weights(AutoModelForMaskedLM, trust_remote_code)
        self._top_k = max(1, min(top_k, len(self.tokenizer)))
        # Scores for all words of the vocabulary are wanted at the masks alone; at every place they
        # would take most of the time, and gigabytes.
        self._places: Tensor | None = None
        words: Any = module.get_output_embeddings()  # type: ignore[operator]  # transformers' own
        if words is None:
            raise ConfigError(f"{type(module).__name__} does not say which layer scores its words")
        words.register_forward_pre_hook(self._at_masks)
        return module

    def read(self, item: object) -> Text:
        """Return the text; raises BadRequest where it has no mask or more than one."""
        mask = self.tokenizer.mask_token
        text = text_of(item)
        if (count := text.count(mask)) != 1:
            raise BadRequest(f"a text needs exactly one {mask}, this one has {count}")
        return text

    def features(self, _: object, tokens: dict[str, Any]) -> Features:
        """Find the mask among the tokens; raises BadRequest where it was cut off."""
        ids = tokens["input_ids"]
        if self.tokenizer.mask_token_id not in ids:
            mask = self.tokenizer.mask_token
            raise BadRequest(f"the {mask} lies beyond the first {self.max_length} tokens")
        place = ids.index(self.tokenizer.mask_token_id)
        return {**tokens, "place": place, "_ids": ids}

    def forward(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:  # type: ignore[override]
        """Return the likeliest tokens for each mask, and their scores: [items, top_k]."""
        self._places = inputs["place"]
        given = {name: each for name, each in inputs.items() if name != "place"}
        logits = super().forward(given).reshape(len(self._places), -1)
        scores, tokens = torch.softmax(logits, -1).topk(self._top_k)
        return {"score": scores, "token": tokens}

    def finish(self, output: Mapping[str, Tensor], tokens: Features) -> list[dict[str, object]]:
        """Return the likeliest tokens, with the text that each makes."""
        ids: Sequence[int] = tokens["_ids"]  # type: ignore[assignment]  # as `prepare` made them
        place: int = tokens["place"]  # type: ignore[assignment]
        found: list[dict[str, object]] = []
        for score, token in zip(output["score"].tolist(), output["token"].tolist(), strict=True):
            whole = [*ids[:place], token, *ids[place + 1 :]]
            with self._tokenizing:
                word = self.tokenizer.decode([token])
                text = self.tokenizer.decode(whole, skip_special_tokens=True)
            found.append({"score": score, "token": token, "token_str": word, "sequence": text})
        return found

    def _at_masks(self, _: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        hidden = given[0]
        if self._places is None or hidden.ndim != 3:
            return None
        rows = torch.arange(len(hidden), device=hidden.device)
        return (hidden[rows, self._places], *given[1:])
