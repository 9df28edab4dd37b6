"""What a model is for: as its own files say, unless its user says otherwise."""

from __future__ import annotations

from types import MappingProxyType

from zstreamer.hf.card import Card
from zstreamer.setting import ConfigError

EMBEDDINGS, SCORES = "embeddings", "scores"

TASKS = MappingProxyType(
    {
        EMBEDDINGS: "zstreamer.hf.embeddings:Embeddings",
        "text-classification": "zstreamer.hf.classification:TextClassification",
        "token-classification": "zstreamer.hf.tokens:TokenClassification",
        "fill-mask": "zstreamer.hf.fill_mask:FillMask",
        SCORES: "zstreamer.hf.scores:Scores",
        "image-classification": "zstreamer.hf.images:ImageClassification",
    }
)
"""The class that does each task."""

ALIASES = MappingProxyType(
    {
        "feature-extraction": EMBEDDINGS,
        "sentence-similarity": EMBEDDINGS,
        "text-ranking": SCORES,
        "cross-encoder": SCORES,
        "sentiment-analysis": "text-classification",
        "ner": "token-classification",
    }
)
"""Other names that the hub, or transformers, has for them."""

_HEADS = (
    ("ForTokenClassification", "token-classification"),
    ("ForMaskedLM", "fill-mask"),
    ("ForImageClassification", "image-classification"),
    ("Model", EMBEDDINGS),
)


def task_of(card: Card, wanted: str | None = None) -> str:
    """Return the task of a model, a key of `TASKS`.

    Args:
        card: what its files say.
        wanted: the task that its user names, also by one of `ALIASES`; None: as the files say.

    Raises:
        ConfigError: there is no such task, or the files name none; the message has all.
    """
    if wanted is not None:
        name = ALIASES.get(wanted, wanted)
        if name not in TASKS:
            raise ConfigError(f"there is no task {wanted!r}; the tasks are {', '.join(TASKS)}")
        return name
    if card.sentences.get("model_type") == "CrossEncoder":
        return SCORES
    if card.modules:
        return EMBEDDINGS
    if card.architecture.endswith("ForSequenceClassification"):
        # One label is a score; sentence-transformers tells its cross-encoders apart in this way.
        return SCORES if labels(card) == 1 else "text-classification"
    for ending, name in _HEADS:
        if card.architecture.endswith(ending):
            return name
    said = card.architecture or "no architecture"
    raise ConfigError(
        f"the config of {card.folder} names {said}, which none of the tasks can use; the tasks "
        f"are {', '.join(TASKS)}. Name one with --task (in Python task=…) if it fits, or write a "
        "TorchModel (docs/torch.md)"
    )


def labels(card: Card) -> int:
    """Return how many labels a classifier has, by the rules of transformers."""
    named = card.config.get("id2label")
    if isinstance(named, dict):
        return len(named)
    count = card.config.get("num_labels")
    return count if isinstance(count, int) else 2
