"""Sentences as word pieces: made from the text of `sources`, kept in a file, dealt in batches."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from examples.small_bert.loader import tokenizer
from examples.small_bert.sources import SOURCES

SHORTEST, LONGEST = 5, 40  # word pieces, [CLS] and [SEP] among them
HELD_OUT = 12  # of 1,000 sentences
MASKED = 0.16  # of the pieces of a sentence
BATCH_PIECES = 2048
ENDS = re.compile(r"(?<=[.!?])[\"')\]]*\s+(?=[\"'(\[]?[A-Z0-9])")
ABBREVIATION = re.compile(
    r"\b(?:Mr|Mrs|Ms|Dr|St|Jr|Sr|Prof|Gen|Col|Capt|Gov|Sen|vs|etc|No|[A-Z])\.$"
)
STOP_WORDS = frozenset(
    re.findall(
        "[a-z]+",
        """
        a an the and or but if of to in on at by for with from as is are was were be been am it its
        i he she they we you that this these those which who what not no so do does did have has
        had will would can could should may might his her their our my your me him them us than
        then there
        """,
    )
)


def sentences(paragraph: str) -> Iterator[str]:
    """Split a paragraph where a sentence ends, which it does not after ``Mr.`` and the like."""
    start = 0
    for end in ENDS.finditer(paragraph):
        if not ABBREVIATION.search(paragraph, start, end.start()):
            yield paragraph[start : end.end()].strip()
            start = end.end()
    yield paragraph[start:].strip()


def is_prose(sentence: str) -> bool:
    """Tell sentences from tables, code and fragments, by length and share of letters."""
    letters = sum(char.isalpha() or char == " " for char in sentence)
    return 12 <= len(sentence) <= 260 and letters >= 0.85 * len(sentence)


def build(work: Path) -> None:
    """Write ``corpus.safetensors``: every distinct sentence of the fetched text, as word pieces.

    Args:
        work: the folder that `sources.fetch` unpacked into.

    Raises:
        FileNotFoundError: a source has not been fetched.
    """
    encode = tokenizer()
    seen: set[str] = set()
    pieces: list[int] = []
    lengths: list[int] = []
    held: list[bool] = []
    for source in SOURCES:
        fresh = []
        for paragraph in source.read(source.folder(work)):
            for sentence in filter(is_prose, sentences(paragraph)):
                key = " ".join(re.findall("[a-z]+", sentence.lower()))
                if key.count(" ") >= 2 and key not in seen:
                    seen.add(key)
                    fresh.append((sentence, zlib.crc32(key.encode()) % 1000 < HELD_OUT))
        before = len(lengths)
        ids = encode([sentence for sentence, _ in fresh])["input_ids"] if fresh else []
        for row, (_, is_held) in zip(ids, fresh, strict=True):
            if SHORTEST <= len(row) <= LONGEST:
                pieces += row
                lengths.append(len(row))
                held.append(is_held)
        print(f"{source.package:26s} {len(lengths) - before:8,d} sentences", flush=True)
    tensors = {
        "pieces": torch.tensor(pieces, dtype=torch.int32),
        "lengths": torch.tensor(lengths, dtype=torch.int32),
        "held": torch.tensor(held),
    }
    save_file(tensors, work / "corpus.safetensors")
    print(f"{len(lengths):,d} sentences, {len(pieces):,d} pieces, {sum(held):,d} held out")


@dataclass(frozen=True, slots=True)
class Batch:
    """Sentences of like length, some of their words to be guessed.

    Attributes:
        pieces: int64 [sentences, longest], 0 where a sentence has ended.
        masked: bool, the same shape; true for the words to guess.
    """

    pieces: torch.Tensor
    masked: torch.Tensor


class Corpus:
    """The sentences that `build` wrote.

    Args:
        work: the folder with ``corpus.safetensors``.
        seed: of every random choice made here.

    Raises:
        FileNotFoundError: `build` has not been run.
    """

    def __init__(self, work: Path, seed: int = 1) -> None:
        tensors = load_file(work / "corpus.safetensors")
        self.pieces = tensors["pieces"].long()
        self.lengths = tensors["lengths"].long()
        self.held = tensors["held"]
        self.starts = self.lengths.cumsum(0) - self.lengths
        self.random = torch.Generator().manual_seed(seed)
        words = tokenizer().get_vocab()
        self.vocabulary = sorted(words, key=words.__getitem__)
        self.continues = torch.tensor([word.startswith("##") for word in self.vocabulary])
        self.counts = self._counts()
        self.eagerness = torch.tensor([_eagerness(word) for word in self.vocabulary])
        self.eagerness[self.counts < 3] = 0  # too rare to learn

    def _counts(self) -> torch.Tensor:
        """Count each piece where it is a whole word of a sentence to train on."""
        following = torch.cat((self.pieces[1:], torch.zeros(1, dtype=torch.long)))
        training = torch.repeat_interleave(~self.held, self.lengths)
        whole = training & ~self.continues[self.pieces] & ~self.continues[following]
        return torch.bincount(self.pieces[whole], minlength=len(self.vocabulary))

    def batches(self) -> Iterator[Batch]:
        """Yield batches of some 2,048 pieces to train on, for ever, shuffled anew each time."""
        training = torch.where(~self.held)[0]
        while True:
            jitter = 2 * torch.rand(len(training), generator=self.random)
            order = training[(self.lengths[training] + jitter).argsort()]
            total = self.lengths[order].cumsum(0) // BATCH_PIECES
            groups = torch.split(order, torch.bincount(total).tolist())
            for index in torch.randperm(len(groups), generator=self.random).tolist():
                yield self.mask(groups[index], MASKED, self.eagerness)

    def held_out(self, limit: int) -> Iterator[Batch]:
        """Yield up to ``limit`` sentences that are never trained on, one word masked in each."""
        held = torch.where(self.held)[0]
        held = held[torch.randperm(len(held), generator=self.random)[:limit]]
        for group in torch.split(held[self.lengths[held].argsort()], 64):
            yield self.mask(group, 0.0, self.eagerness.ge(0.3).float())

    def mask(self, chosen: torch.Tensor, share: float, eagerness: torch.Tensor) -> Batch:
        """Lay out sentences and draw the words to guess, one or more of each sentence.

        Args:
            chosen: int64 [sentences], which.
            share: of the pieces of a sentence, from 0 to 1.
            eagerness: float32 [vocabulary], how likely each piece is drawn, against the others.
        """
        rows = [self.pieces[start : start + length] for start, length in self._spans(chosen)]
        pieces = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
        following = torch.nn.functional.pad(pieces[:, 1:], (0, 1))
        weight = eagerness[pieces] * ~self.continues[following]
        # The k largest of log weight + Gumbel noise are k draws by weight without replacement.
        noise = -torch.rand(weight.shape, generator=self.random).log().neg().log()
        rank = (weight.log() + noise).argsort(dim=1, descending=True).argsort(dim=1)
        wanted = (self.lengths[chosen] * share).long().clamp(min=1)
        return Batch(pieces, (rank < wanted.unsqueeze(1)) & (weight > 0))

    def _spans(self, chosen: torch.Tensor) -> Iterator[tuple[int, int]]:
        return zip(self.starts[chosen].tolist(), self.lengths[chosen].tolist(), strict=True)


def _eagerness(word: str) -> float:
    """Weigh how often a piece is masked: words before digits before the rest, stop words less."""
    if word.startswith(("##", "[")):
        return 0.0
    if word.isascii() and word.isalpha():
        return 0.35 if word in STOP_WORDS else 1.0
    return 0.25 if word.isdigit() else 0.04
