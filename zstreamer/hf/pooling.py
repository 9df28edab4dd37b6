"""How the vectors of a text's tokens become one: the steps behind the encoder, in two halves.

`steps` reads them from a model's files and `Steps` runs them, with the results of
sentence-transformers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import torch
from torch import Tensor, nn

from zstreamer.hf.card import Card, Json, Module
from zstreamer.setting import ConfigError

OLDER_MODES = MappingProxyType(
    {
        "pooling_mode_cls_token": "cls",
        "pooling_mode_max_tokens": "max",
        "pooling_mode_mean_tokens": "mean",
        "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
        "pooling_mode_weightedmean_tokens": "weightedmean",
        "pooling_mode_lasttoken": "lasttoken",
    }
)
"""Switches of older pooling configs, in the order in which several are joined."""

ACTIVATIONS: Mapping[str, Callable[[], nn.Module]] = MappingProxyType(
    {
        "torch.nn.modules.linear.Identity": nn.Identity,
        "torch.nn.modules.activation.Tanh": nn.Tanh,
        "torch.nn.modules.activation.Sigmoid": nn.Sigmoid,
        "torch.nn.modules.activation.ReLU": nn.ReLU,
        "torch.nn.modules.activation.GELU": nn.GELU,
    }
)
"""What a model's files may name; nothing else that they name is imported."""


def activation(name: object, default: str = "torch.nn.modules.linear.Identity") -> nn.Module:
    """Return the function of a name in a model's files; raises ConfigError for another one."""
    made = ACTIVATIONS.get(str(name or default))
    if made is None:
        raise ConfigError(
            f"the activation function {name!r} is not supported; those that are: "
            + ", ".join(each.rpartition(".")[2] for each in ACTIVATIONS)
        )
    return made()


def modes(config: Json) -> Sequence[str]:
    """Return how a pooling config joins tokens; several ways stand behind each other.

    Raises:
        ConfigError: it names a way that is not known.
    """
    named = config.get("pooling_mode")
    found = [named] if isinstance(named, str) else named
    if not isinstance(found, list):
        found = [mode for key, mode in OLDER_MODES.items() if config.get(key)] or ["mean"]
    for mode in found:
        if mode not in POOLINGS:
            raise ConfigError(f"pooling {mode!r} is not supported; those that are: {[*POOLINGS]}")
    if config.get("include_prompt") is False:
        raise ConfigError("pooling that leaves out the prompt's tokens is not supported")
    return found


class Steps(nn.Module):
    """Makes one vector of each text: pooling, then dense layers and normalisation in their order.

    Args:
        card: what the model's files say. Without modules.json it is the mean, as it is.

    Raises:
        ConfigError: a step is not supported.
    """

    def __init__(self, card: Card) -> None:
        super().__init__()
        self.modes: Sequence[str] = ["mean"]
        self.after = nn.ModuleList()
        for step in card.modules[1:]:
            if step.kind == "Pooling":
                self.modes = modes(step.config)
            elif step.kind == "Dense":
                self.after.append(_dense(step, card.folder / step.path))
            elif step.kind == "Normalize":
                self.after.append(Normalize())
            elif step.kind != "Dropout":
                raise ConfigError(f"the step {step.kind} in modules.json is not supported")
        if card.modules and card.modules[0].kind != "Transformer":
            raise ConfigError(
                f"the encoder {card.modules[0].kind} in modules.json is not supported"
            )

    def size(self, hidden: int) -> int:
        """Return how long the vectors are; ``hidden``: how long the encoder's are."""
        dense = [each for each in self.after.modules() if isinstance(each, _Float32)]
        return dense[-1].out_features if dense else hidden * len(self.modes)

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """Return the vectors of texts, float32 [items, size].

        Args:
            hidden: of the encoder [items, tokens, size].
            mask: 1 for a token and 0 for padding [items, tokens]; padding is on the right.
        """
        pooled = [POOLINGS[mode](hidden.float(), mask.unsqueeze(-1)) for mode in self.modes]
        vectors = torch.cat(pooled, -1)
        for step in self.after:
            vectors = step(vectors)
        return vectors


class Normalize(nn.Module):
    """Gives vectors the length 1."""

    def forward(self, vectors: Tensor) -> Tensor:  # noqa: D102  # as the class says
        return nn.functional.normalize(vectors, p=2, dim=-1)


class _Float32(nn.Linear):
    """A layer behind pooling: small, and in float32 whatever the encoder is in."""

    def forward(self, vectors: Tensor) -> Tensor:
        bias: Tensor | None = self.bias
        added = None if bias is None else bias.float()
        return nn.functional.linear(vectors, self.weight.float(), added)


def _dense(step: Module, folder: Path) -> nn.Module:
    config = step.config
    if config.get("use_residual") or config.get("module_input_name") not in (None, _SENTENCE):
        raise ConfigError(f"the kind of Dense step in {folder} is not supported")
    into, out = (int(str(config[key])) for key in ("in_features", "out_features"))
    layer = _Float32(into, out, bias=config.get("bias") is not False)
    weights = _weights(folder)
    layer.load_state_dict({key.removeprefix("linear."): each for key, each in weights.items()})
    named = config.get("activation_function")
    return nn.Sequential(layer, activation(named, "torch.nn.modules.activation.Tanh"))


_SENTENCE = "sentence_embedding"


def _weights(folder: Path) -> Mapping[str, Tensor]:
    from safetensors.torch import load_file

    if (safe := folder / "model.safetensors").is_file():
        return load_file(safe)
    found: Mapping[str, Tensor] = torch.load(
        folder / "pytorch_model.bin", map_location="cpu", weights_only=True
    )
    return found


def _first(hidden: Tensor, _: Tensor) -> Tensor:
    return hidden[:, 0]


def _last(hidden: Tensor, mask: Tensor) -> Tensor:
    places = mask.squeeze(-1).sum(1) - 1
    return hidden[torch.arange(len(hidden), device=hidden.device), places]


def _max(hidden: Tensor, mask: Tensor) -> Tensor:
    return hidden.masked_fill(mask == 0, -torch.inf).amax(1)


def _mean(hidden: Tensor, mask: Tensor) -> Tensor:
    return (hidden * mask).sum(1) / mask.sum(1)


def _mean_sqrt(hidden: Tensor, mask: Tensor) -> Tensor:
    return (hidden * mask).sum(1) / mask.sum(1).sqrt()


def _weighted(hidden: Tensor, mask: Tensor) -> Tensor:
    weights = mask * torch.arange(1, hidden.shape[1] + 1, device=hidden.device).view(1, -1, 1)
    return (hidden * weights).sum(1) / weights.sum(1)


POOLINGS: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = MappingProxyType(
    {
        "cls": _first,
        "max": _max,
        "mean": _mean,
        "mean_sqrt_len_tokens": _mean_sqrt,
        "weightedmean": _weighted,
        "lasttoken": _last,
    }
)
"""Each takes tokens [items, tokens, size] and their mask [items, tokens, 1]."""
