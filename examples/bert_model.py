"""Fills the [MASK] in a sentence with BERT: the model that every other example serves.

    python -m examples.bert_model "Happy birthday to [MASK]." "Paris is the capital of [MASK]."

needs: pip install zstreamer[torch,examples]

Which weights, the first of these that is given or found:

- the argument ``name``, or else the environment variable ``BERT_MODEL``: a folder or a hub name of
  any BERT with a masked-language-model head, or ``small-bert``;
- ``bert-base-uncased``, where an earlier download left it in the local hub cache;
- the small BERT of ``examples/small_bert``, which needs no hub. It is weaker than BERT-base.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, cast

import torch
from huggingface_hub import try_to_load_from_cache
from transformers import AutoTokenizer, BertForMaskedLM, PreTrainedTokenizerBase

from examples.small_bert import load_small_bert
from zstreamer.torch import Features, TorchModel, buckets

SMALL_BERT = "small-bert"
BERT_BASE = ("bert-base-uncased", "google-bert/bert-base-uncased")
BATCH_SIZE = 64
MAX_PIECES = 512


class ManagedBertModel(TorchModel):
    """Finds the word for the one [MASK] in each sentence.

    An item is a text with exactly one [MASK]; beyond 512 word pieces (or what the weights allow)
    its end is cut off. The answer is the likeliest word piece, lower case where the weights are
    uncased.
    """

    example: ClassVar[list[str]] = ["Happy birthday to [MASK]."]

    def init_model(self, *args: Any, dtype: str | torch.dtype | None = None, **kwargs: Any) -> None:
        """Set torch up and load the weights.

        Args:
            args: for `load`.
            dtype: by default the environment variable ``BERT_DTYPE``, else what is fastest here.
            kwargs: as for `TorchModel.init_model`, such as ``device="cpu"``.
        """
        super().init_model(*args, dtype=dtype or os.environ.get("BERT_DTYPE") or "auto", **kwargs)

    def load(self, name: str | os.PathLike[str] | None = None) -> BertForMaskedLM:
        """Load tokenizer and weights; see `load` below for what is raised.

        Args:
            name: which weights; see the module's docstring.
        """
        self.name = os.fspath(name or os.environ.get("BERT_MODEL") or default_name())
        self.tokenizer, self.bert = load(self.name)
        self.max_pieces = min(MAX_PIECES, self.bert.config.max_position_embeddings)
        self.length_buckets = buckets(16, self.max_pieces)
        self.padding = {"input_ids": self.tokenizer.pad_token_id, "attention_mask": 0}
        return self.bert

    def prepare(self, sentence: object) -> Features:
        """Turn a sentence into word pieces, and find the mask among them.

        Raises:
            TypeError: it is no str.
            ValueError: it has no [MASK], more than one, or only one that was cut off.
        """
        if not isinstance(sentence, str):
            raise TypeError(f"a sentence must be a str, not {type(sentence).__name__}")
        mask = self.tokenizer.mask_token
        if (count := sentence.count(mask)) != 1:
            raise ValueError(f"a sentence needs exactly one {mask}, this one has {count}")
        tokens = self.tokenizer(sentence, truncation=True, max_length=self.max_pieces)
        pieces = tokens["input_ids"]
        if self.tokenizer.mask_token_id not in pieces:
            raise ValueError(f"the {mask} lies beyond the first {self.max_pieces} word pieces")
        place = pieces.index(self.tokenizer.mask_token_id)
        return {"input_ids": pieces, "attention_mask": tokens["attention_mask"], "place": place}

    def cost(self, tokens: Mapping[str, Sequence[int]]) -> float:
        """Count the word pieces, so that sentences of like lengths share a batch."""
        return len(tokens["input_ids"])

    def forward(self, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return the number of the likeliest word piece for each mask: int64 [items]."""
        ids, places = inputs["input_ids"], inputs["place"]
        outputs = self.bert.base_model(input_ids=ids, attention_mask=inputs["attention_mask"])
        # Scores for 30,522 words are wanted at the masks alone; at every place they would take
        # half of the time (small BERT, bfloat16, batches of 64: 148 a second against 305).
        rows = torch.arange(len(places), device=places.device)
        hidden = outputs.last_hidden_state[rows, places]
        best: torch.Tensor = self.bert.cls(hidden).argmax(dim=-1)
        return best

    def finish(self, best: torch.Tensor, _: Features) -> str:
        """Turn the number into the word piece."""
        return str(self.tokenizer.convert_ids_to_tokens(int(best)))


class TextInfillingModel:
    """The same model for a program that has it to itself.

    Args:
        name: which weights; see the module's docstring.
        settings: as for `TorchModel.init_model`, such as ``device="cpu"``.

    Raises:
        OSError, ValueError: as for `load`; also where a setting makes no sense.
    """

    def __init__(self, name: str | os.PathLike[str] | None = None, **settings: Any) -> None:
        self.model = ManagedBertModel()
        self.model.init_model(name, **settings)

    def predict(self, sentences: Sequence[object]) -> list[object]:
        """Return the word for each sentence, or in its place what is wrong with it."""
        return self.model(sentences)


def default_name() -> str:
    """Name the BERT-base of the local hub cache, or ``small-bert``; asks no network."""
    for name in BERT_BASE:
        if isinstance(try_to_load_from_cache(name, "model.safetensors"), str):
            return name
    return SMALL_BERT


def load(name: str) -> tuple[PreTrainedTokenizerBase, BertForMaskedLM]:
    """Load tokenizer and model, from the local cache if it has them, else from the hub.

    Args:
        name: a folder, a hub name or ``small-bert``.

    Raises:
        OSError: no such folder, or the hub neither has nor can be asked for this name.
        ValueError: the weights have no masked-language-model head.
    """
    if name == SMALL_BERT:
        return load_small_bert()
    try:
        return _from_pretrained(name, local_files_only=True)
    except OSError:
        if Path(name).is_dir():
            raise
        return _from_pretrained(name, local_files_only=False)


def _from_pretrained(
    name: str, *, local_files_only: bool
) -> tuple[PreTrainedTokenizerBase, BertForMaskedLM]:
    loaded: object = BertForMaskedLM.from_pretrained(
        name, local_files_only=local_files_only, output_loading_info=True
    )
    model, report = cast(tuple[BertForMaskedLM, Mapping[str, Sequence[str]]], loaded)
    # transformers fills a missing head with random numbers, and the answers with random words.
    if "cls.predictions.transform.dense.weight" in report["missing_keys"]:
        raise ValueError(f"{name} has no masked-language-model head")
    tokenizer = AutoTokenizer.from_pretrained(name, local_files_only=local_files_only)
    return tokenizer, model


def main() -> None:
    """Fill in the sentences of the command line."""
    sentences = sys.argv[1:] or ManagedBertModel.example
    model = ManagedBertModel()
    model.init_model()
    print(f"{model.name}, {model.device.type}, {model.dtype}", file=sys.stderr)
    for sentence, outcome in zip(sentences, model(sentences), strict=True):
        print(f"{sentence}  ->  {outcome if isinstance(outcome, str) else repr(outcome)}")


if __name__ == "__main__":
    main()
