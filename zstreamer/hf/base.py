"""What the models of all tasks have in common: reading weights, with care."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
import transformers.utils.logging
from torch import Tensor

from zstreamer.hf.card import Card
from zstreamer.setting import ConfigError
from zstreamer.torch import TorchModel


class Pretrained(TorchModel):
    """A model of the hub; `zstreamer.hf.model` makes the classes that know which.

    Attributes:
        card: what its files say.
        settings: for `init_model`, where it is given none of that name.
    """

    card: ClassVar[Card]
    settings: ClassVar[Mapping[str, object]]

    def init_model(self, *args: Any, **settings: Any) -> None:
        """Load the model; as `TorchModel.init_model`, but in float32 unless told otherwise.

        So that its answers are the model's own, and do not depend on the batch.
        """
        super().init_model(*args, **{"dtype": "float32", **self.settings, **settings})

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return the logits in float32."""
        logits: Tensor = self.module(**inputs).logits
        return logits.float()

    def weights(self, auto: Any, trust_remote_code: bool, spare: str = "") -> Any:
        """Return the module with its weights.

        Args:
            auto: the class of transformers that makes it.
            trust_remote_code: run the Python code that the model brings along.
            spare: what the names of parameters begin with that may be missing.

        Raises:
            ConfigError: the weights lack a part of the module, which transformers would fill with
                random numbers.
        """
        module, report = self.pretrained(auto, trust_remote_code, output_loading_info=True)
        missing = sorted(
            each for each in report["missing_keys"] if not (spare and each.startswith(spare))
        )
        if missing:
            raise ConfigError(
                f"the weights in {self.card.weights} are of {self.card.architecture} and lack "
                f"{missing[0]} for {type(module).__name__}: choose another --task (in Python "
                "task=…) or another model"
            )
        return module

    def pretrained(self, auto: Any, trust_remote_code: bool, **options: object) -> Any:
        """Return what a class of transformers reads from the model's folder."""
        folder: Path = self.card.weights
        try:
            with _quiet():
                return auto.from_pretrained(
                    folder, local_files_only=True, trust_remote_code=trust_remote_code, **options
                )
        except ValueError as error:
            if "trust_remote_code" not in str(error):
                raise
            raise ConfigError(
                f"the model in {folder} needs Python code of its own, which is not run unless you "
                "say so: read its .py files, then add --trust-remote-code (in Python "
                "trust_remote_code=True)"
            ) from error

    @staticmethod
    def names(config: Any) -> list[str]:
        """Return the labels in the order of the logits."""
        return [str(config.id2label[index]) for index in range(config.num_labels)]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep transformers from drawing bars into logs; what matters of its reports is raised here."""
    logging: Any = transformers.utils.logging
    level, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bar:
            logging.enable_progress_bar()


def probabilities(logits: Tensor, config: Any) -> Tensor:
    """Return the scores of labels, as the kind of problem in a classifier's config asks.

    Several labels may hold (sigmoid), one of them does (softmax), or they are numbers (as they
    are). Where the config names no kind, one label is the first and more are the second.
    """
    kind = config.problem_type
    if kind == "regression":
        return logits
    if kind == "multi_label_classification" or (kind is None and logits.shape[-1] == 1):
        return logits.sigmoid()
    return torch.softmax(logits, -1)


def best(scores: Tensor, names: Sequence[str], top_k: int | None) -> object:
    """Return the likeliest label with its score, or so many of them as a list; 0 for all."""
    count = min(top_k or (1 if top_k is None else len(names)), len(names))
    values, places = scores.topk(count)
    found = [
        {"label": names[place], "score": value}
        for value, place in zip(values.tolist(), places.tolist(), strict=True)
    ]
    return found[0] if top_k is None else found
