"""Makes the class of a model from its name: the one of its task, with what it is to load."""

from __future__ import annotations

import copyreg
from importlib import import_module
from typing import TYPE_CHECKING, cast

from zstreamer.hf.card import read
from zstreamer.hf.source import folder_of
from zstreamer.hf.tasks import TASKS, task_of

if TYPE_CHECKING:
    from zstreamer.hf.base import Pretrained


class Named(type):
    """The type of the classes that `model` makes: pickle carries them as the call that did."""

    arguments: dict[str, object]


def model(
    name: str,
    *,
    task: str | None = None,
    revision: str | None = None,
    trust_remote_code: bool = False,
    **settings: object,
) -> type[Pretrained]:
    """Return a class that loads a model of the hub, for a `Streamer`, a worker or to be called.

    Its files are looked for at once, and downloaded if this machine has not got them. The class
    loads them when a worker makes its model of it.

    Args:
        name: a folder, or a name on the hub, such as "sentence-transformers/all-MiniLM-L6-v2".
        task: "embeddings", "text-classification", "token-classification", "fill-mask", "scores"
            or "image-classification"; None: as the model's own config says.
        revision: a branch, tag or commit on the hub.
        trust_remote_code: run the Python code that the model brings along.
        settings: of the task (``max_length``, ``top_k`` …) and of `TorchModel.init_model`
            (``device``, ``dtype`` …).

    Raises:
        ConfigError: there is no such model, or it is for none of the tasks.
    """
    folder = folder_of(name, revision, trust_remote_code)
    card = read(folder)
    module, _, cls = TASKS[task_of(card, task)].partition(":")
    base = getattr(import_module(module), cls)
    given = {"task": task, "trust_remote_code": trust_remote_code, **settings}
    body = {
        "__module__": __name__,
        "__doc__": f"{cls} of {name}.",
        "arguments": {"name": str(folder), **given},
        "card": card,
        "settings": {"trust_remote_code": trust_remote_code, **settings},
    }
    return cast("type[Pretrained]", Named(cls, (base,), body))


def _again(arguments: dict[str, object]) -> type[Pretrained]:
    return model(**arguments)  # type: ignore[arg-type]  # what `model` was given


def _reduced(cls: Named) -> tuple[object, ...]:
    return _again, (cls.arguments,)


copyreg.pickle(Named, _reduced)  # type: ignore[arg-type]  # what is called returns a type too
