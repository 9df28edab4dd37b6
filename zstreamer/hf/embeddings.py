"""Embeddings: a vector for each text, as sentence-transformers makes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModel

from zstreamer.errors import BadRequest
from zstreamer.hf.pooling import Steps
from zstreamer.hf.text import Text, TextModel, text_of
from zstreamer.setting import ConfigError
from zstreamer.signature import Tensor as Declared
from zstreamer.torch import Features

INPUT, USAGE, EMBEDDING, TOKENS = "input", "usage", "embedding", "tokens"


class Embeddings(TextModel):
    """Turns a text into its vector, a float32 array [size].

    An item is a text, or a list of the model's own token ids. As ``{"input": …, "usage": True}``
    it is answered with ``{"embedding": …, "tokens": …}``, the second of which is how many tokens
    the model read.
    """

    def load(
        self,
        trust_remote_code: bool = False,
        max_length: int | None = None,
        truncation: bool = True,
        prompt: str | None = None,
    ) -> nn.Module:
        """Load the encoder and the steps behind it.

        Args:
            trust_remote_code: run the Python code that the model brings along.
            max_length: cut texts to so many tokens; None for as many as the model takes.
            truncation: whether to cut them; else longer ones are refused.
            prompt: the name of one of the model's prompts, which is put before each text, or ""
                for none; None: as the model's own config says.
        """
        self.read_tokens(trust_remote_code, max_length, truncation)
        self._prompt = _prompt(self.card.sentences, prompt)
        self._lower = self.card.encoder.get("do_lower_case") is True
        self._before, self._after = self._around()
        encoder: Any = self.weights(AutoModel, trust_remote_code, spare="pooler.")
        steps = Steps(self.card)
        words = encoder.get_input_embeddings()
        self._known = int(words.num_embeddings)
        size = steps.size(int(encoder.config.hidden_size))
        self.inputs = [Declared(INPUT, "BYTES")]  # type: ignore[misc]
        self.outputs = [Declared(EMBEDDING, "FP32", [size])]  # type: ignore[misc]
        return Encoder(encoder, steps)

    def read(self, item: object) -> Text:
        """Return the text, as the model wants it, or the tokens of token ids."""
        given, _ = _asked(item)
        if isinstance(given, list | tuple):
            return self._ids(given)
        text = self._prompt + text_of(given)
        return text.lower() if self._lower else text

    def features(self, item: object, tokens: dict[str, Any]) -> Features:
        """Keep whether the count of tokens was asked for."""
        return {**tokens, "_usage": _asked(item)[1]}

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return the vectors: float32 [items, size]."""
        vectors: Tensor = self.module(inputs)
        return vectors

    def finish(self, output: Tensor, tokens: Features) -> object:
        """Return the vector, and how many tokens it was made of if that was asked."""
        vector = output.numpy()
        return {EMBEDDING: vector, TOKENS: int(self.cost(tokens))} if tokens["_usage"] else vector

    def _ids(self, ids: Sequence[object]) -> dict[str, Any]:
        """The tokens of an item that is token ids already; those around a text are added."""
        if not ids or not all(type(each) is int and 0 <= each < self._known for each in ids):
            raise BadRequest(
                f"token ids are the model's own, whole numbers from 0 to {self._known - 1}, and "
                "there is at least one; send text where they are another model's"
            )
        room = self.max_length - len(self._before) - len(self._after)
        if len(ids) > room and not self._truncation:
            raise BadRequest(f"the input has {len(ids)} tokens, and the model takes {room}")
        whole = [*self._before, *ids[:room], *self._after]
        made = {"input_ids": whole, "attention_mask": [1] * len(whole)}
        if "token_type_ids" in self._plain:
            made["token_type_ids"] = [0] * len(whole)
        return made

    def _around(self) -> tuple[list[int], list[int]]:
        """The tokens that the tokenizer puts before and behind a text."""
        self._plain = self.tokenizer("a")
        whole = list(self._plain["input_ids"])
        bare = list(self.tokenizer("a", add_special_tokens=False)["input_ids"])
        places = range(len(whole) - len(bare) + 1)
        place = next((at for at in places if whole[at : at + len(bare)] == bare), len(whole))
        return whole[:place], whole[place + len(bare) :]


class Encoder(nn.Module):
    """An encoder and the steps behind it, as one module."""

    def __init__(self, encoder: nn.Module, steps: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.steps = steps

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return the vectors of texts, float32 [items, size]."""
        hidden = self.encoder(**inputs).last_hidden_state
        vectors: Tensor = self.steps(hidden, inputs["attention_mask"])
        return vectors.to(torch.float32)


def _asked(item: object) -> tuple[object, bool]:
    """Return the text or token ids of an item, and whether the count of tokens was asked for."""
    if isinstance(item, dict) and INPUT in item and item.keys() <= {INPUT, USAGE}:
        return item[INPUT], bool(item.get(USAGE))
    return item, False


def _prompt(sentences: Mapping[str, object], name: str | None) -> str:
    """Return the prompt of a name; None for the model's default."""
    prompts = sentences.get("prompts")
    known = prompts if isinstance(prompts, dict) else {}
    if name is None:
        return str(known.get(sentences.get("default_prompt_name"), ""))
    if name and name not in known:
        raise ConfigError(f"the model has no prompt {name!r}; it has {sorted(known)}")
    return str(known.get(name, ""))
