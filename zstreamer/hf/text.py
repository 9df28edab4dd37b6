"""What the models of all tasks on texts have in common: tokens, and how many of them there may be.

A text that has more tokens than the model takes is cut at its end. With ``truncation=False`` it is
refused instead.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, TypeAlias, TypeVar

from zstreamer.errors import BadRequest
from zstreamer.hf.base import Pretrained
from zstreamer.hf.card import Card
from zstreamer.setting import ConfigError
from zstreamer.torch import Features, buckets

FALLBACK = 512
"""Tokens, where nothing in a model's files says how many it takes."""

_FROM_PADDING = ("roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "mpnet", "longformer")
"""Models whose first position is the one behind that of the padding."""


Text: TypeAlias = str | tuple[str, str] | dict[str, Any]
"""What an item is to the tokenizer: a text, two texts, or tokens already."""


class TextModel(Pretrained):
    """Turns texts into tokens as they arrive; batches are of texts of similar lengths.

    Attributes:
        tokenizer: the model's own.
        max_length: most tokens of an item, with those that the model adds.
        tokenizing: further arguments for the tokenizer.
    """

    tokenizing: ClassVar[Mapping[str, object]] = {}
    example: ClassVar[Sequence[object]] = ["A short text."]

    def read_tokens(
        self, trust_remote_code: bool, max_length: int | None, truncation: bool
    ) -> None:
        """Load the tokenizer.

        Args:
            trust_remote_code: run the Python code that the model brings along.
            max_length: fewer tokens than the model takes; None for as many.
            truncation: cut longer texts; else refuse them.
        """
        from transformers import AutoTokenizer

        self.tokenizer = self.pretrained(AutoTokenizer, trust_remote_code)
        self.max_length = longest(self.card, self.tokenizer.model_max_length, max_length)
        self.length_buckets = buckets(min(16, self.max_length), self.max_length)
        self.padding = {
            "input_ids": self.tokenizer.pad_token_id or 0,
            "attention_mask": 0,
            "token_type_ids": self.tokenizer.pad_token_type_id,
        }
        self._truncation = truncation
        self._tokenizing = threading.Lock()  # `prepare` and `finish` run in two threads

    def read(self, item: Any) -> Text:
        """Return the text of an item, or two, or its tokens where it has them already.

        Raises:
            BadRequest: it is something else.
        """
        return text_of(item)

    def features(self, item: Any, tokens: dict[str, Any]) -> Features:  # noqa: ARG002  # for others
        """Return what the model is given of an item, by default its tokens."""
        return tokens

    def prepare(self, item: object) -> Features:
        """Turn an item into tokens."""
        [features] = self.prepare_batch([item])
        if isinstance(features, Exception):
            raise features
        return features

    def prepare_batch(self, items: Sequence[object]) -> list[Features | Exception]:
        """Turn items into tokens, all in one go; an error in the place of a bad one."""
        read = [_tried(self.read, item) for item in items]
        tokens = self._tokenized(read)
        return [
            each if isinstance(each, Exception) else _tried(self.features, item, each)
            for item, each in zip(items, tokens, strict=True)
        ]

    def _tokenized(self, read: Sequence[Text | Exception]) -> list[dict[str, Any] | Exception]:
        found = [each if isinstance(each, dict | Exception) else {} for each in read]
        for kind in (str, tuple):
            places = [place for place, each in enumerate(read) if isinstance(each, kind)]
            if not places:
                continue
            texts: Any = [read[place] for place in places]
            with self._tokenizing:
                columns = self.tokenizer(
                    *([texts] if kind is str else map(list, zip(*texts, strict=True))),
                    truncation=self._truncation,
                    max_length=self.max_length,
                    **self.tokenizing,
                )
            for row, place in enumerate(places):
                tokens = {name: column[row] for name, column in columns.items()}
                found[place] = self._fitting(tokens)
        return found

    def _fitting(self, tokens: dict[str, Any]) -> dict[str, Any] | Exception:
        if (count := len(tokens["input_ids"])) <= self.max_length:
            return tokens
        return BadRequest(
            f"the text has {count} tokens, and the model takes {self.max_length}: send a shorter "
            "one"
        )

    def cost(self, tokens: Features) -> float:
        """Count the tokens, so that texts of similar lengths share a batch."""
        ids: Sequence[int] = tokens["input_ids"]  # type: ignore[assignment]  # as `tokens` made it
        return len(ids)


Made = TypeVar("Made")


def _tried(function: Callable[..., Made], *given: object) -> Made | Exception:
    try:
        return function(*given)
    except Exception as error:  # noqa: BLE001  # it is that item's
        return error


def text_of(item: object) -> str:
    """Return an item that must be a text; raises BadRequest for another one."""
    if isinstance(item, str):
        return item
    raise BadRequest(f"an item is a text (str), not {type(item).__name__}")


PAIRS = (("text", "text_pair"), ("query", "document"))


def pair_of(item: object) -> tuple[str, str]:
    """Return the two texts of an item: a list of both, or an object that names them.

    Raises:
        BadRequest: it is something else.
    """
    found: Sequence[object] = ()
    if isinstance(item, list | tuple):
        found = item
    elif isinstance(item, Mapping):
        found = next(([item[a], item[b]] for a, b in PAIRS if item.keys() == {a, b}), ())
    if len(found) == 2 and isinstance(found[0], str) and isinstance(found[1], str):
        return found[0], found[1]
    raise BadRequest(
        'an item is two texts: ["one", "another"], {"text": …, "text_pair": …} or '
        '{"query": …, "document": …}'
    )


def longest(card: Card, tokenizer_length: int, asked: int | None) -> int:
    """Return how many tokens an item may have: the least of what anything says.

    Args:
        card: for ``max_seq_length`` of sentence-transformers and ``max_position_embeddings``.
        tokenizer_length: as the tokenizer says; a huge number where it does not.
        asked: by the user; None for the most.

    Raises:
        ConfigError: the user asks for more than the model has positions, or for none.
    """
    positions = card.config.get("max_position_embeddings")
    most = positions if isinstance(positions, int) and positions > 0 else None
    if most is not None and card.config.get("model_type") in _FROM_PADDING:
        padding = card.config.get("pad_token_id")
        most -= 1 + (padding if isinstance(padding, int) else 1)
    if asked is not None:
        if not 1 <= asked <= (most or asked):
            raise ConfigError(
                f"max_length is {asked}: it must be 1 or more, and at most {most} for this model"
            )
        return asked
    own = card.encoder.get("max_seq_length")
    said = [each for each in (most, own) if isinstance(each, int)]
    if tokenizer_length < 10**6:
        said.append(tokenizer_length)
    return min(said, default=FALLBACK)
