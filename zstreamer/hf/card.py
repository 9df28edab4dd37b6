"""What the JSON files in a model's folder say: its architecture, and how its outputs are used."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from zstreamer.setting import ConfigError

Json: TypeAlias = "Mapping[str, object]"

SENTENCE_CONFIGS = (
    "sentence_bert_config.json",
    *(
        f"sentence_{name}_config.json"
        for name in ("roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
    ),
)


@dataclass(frozen=True, slots=True)
class Module:
    """One entry of modules.json, the steps of a sentence-transformers model.

    Args:
        kind: the last part of its type, such as "Pooling".
        path: its folder in the model's, empty for the model's own.
        config: of that folder's config.json; empty where there is none.
    """

    kind: str
    path: str
    config: Json


@dataclass(frozen=True, slots=True)
class Card:
    """What is known of a model before its weights are read.

    Args:
        folder: of its files.
        config: config.json, of the encoder where `modules` name one in a folder of its own.
        modules: the steps of a sentence-transformers model; empty for any other.
        sentences: config_sentence_transformers.json: prompts, and which kind of model it is.
        encoder: how the encoder reads texts (``max_seq_length``, ``do_lower_case``).
    """

    folder: Path
    config: Json
    modules: Sequence[Module]
    sentences: Json
    encoder: Json

    @property
    def weights(self) -> Path:
        """The folder of the encoder's config, weights and tokenizer."""
        return self.folder / self.modules[0].path if self.modules else self.folder

    @property
    def architecture(self) -> str:
        """The class of transformers that wrote the weights, such as "BertModel"."""
        named = self.config.get("architectures")
        return str(named[0]) if isinstance(named, list) and named else ""


def read(folder: Path) -> Card:
    """Return what the files of a folder say.

    Raises:
        ConfigError: there is no config.json, or one of the files cannot be understood.
    """
    modules = _modules(folder)
    weights = folder / modules[0].path if modules else folder
    if not (weights / "config.json").is_file():
        raise ConfigError(
            f"{folder} holds no model: it has no config.json. Give the folder that "
            "save_pretrained wrote, with config, weights and tokenizer"
        )
    readers = (_json(weights / name) for name in SENTENCE_CONFIGS)
    return Card(
        folder,
        _json(weights / "config.json"),
        modules,
        _json(folder / "config_sentence_transformers.json"),
        next(filter(None, readers), {}),
    )


def _modules(folder: Path) -> list[Module]:
    file = folder / "modules.json"
    listed = _parsed(file) if file.is_file() else []
    found: list[Module] = []
    for each in listed if isinstance(listed, list) else [None]:
        kind, path = (
            (each.get(key) for key in ("type", "path")) if isinstance(each, dict) else (0, 0)
        )
        if not (isinstance(kind, str) and isinstance(path, str)) or ".." in Path(path).parts:
            raise ConfigError(f"{file} is not as sentence-transformers writes it")
        found.append(Module(kind.rpartition(".")[2], path, _json(folder / path / "config.json")))
    return found


def _json(file: Path) -> Json:
    """The object in a file; an empty one where there is no file."""
    if not file.is_file():
        return {}
    found = _parsed(file)
    if not isinstance(found, dict):
        raise ConfigError(f"{file} holds no JSON object")
    return found


def _parsed(file: Path) -> object:
    try:
        found: object = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file} cannot be read: {error}") from None
    return found
