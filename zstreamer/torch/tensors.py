"""Tensors on their way to a model's device and back; on CUDA in streams of their own (streams.py).

To CUDA they go from pinned memory in the background; from it they come into pinned memory, all
outputs of a batch packed into one copy.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

Outputs: TypeAlias = Tensor | Mapping[str, Tensor]
"""What a model returns for a batch: tensors whose first dimension is the batch."""


def send(tensor: Tensor, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Return a tensor on the device, in the dtype if it is of floating-point numbers.

    It changes its dtype over there: a copy that did both would be neither pinned nor in the
    background.
    """
    if tensor.dtype is torch.float64:  # lists of Python's floats; MPS has no such numbers
        tensor = tensor.float()
    tensor = tensor.to(device, non_blocking=device.type == "cuda")
    return tensor.to(dtype) if tensor.is_floating_point() else tensor


def fetch(outputs: object) -> Outputs:
    """Return what a model returned, on the CPU; raises as `checked`."""
    sound = checked(outputs)
    if isinstance(sound, Tensor):
        return sound.to("cpu")
    return {name: tensor.to("cpu") for name, tensor in sound.items()}


def checked(outputs: object) -> Outputs:
    """Return what a model returned.

    Raises:
        TypeError: it is neither a tensor nor a mapping of tensors.
    """
    if isinstance(outputs, Tensor):
        return outputs
    if isinstance(outputs, Mapping) and all(isinstance(t, Tensor) for t in outputs.values()):
        return outputs
    raise TypeError(
        f"forward returned {type(outputs).__name__}: it must return a tensor with a row for "
        "each item, or a mapping of names to such tensors"
    )


Layout: TypeAlias = list[tuple[str, torch.dtype, torch.Size]]
"""Names, dtypes and shapes of tensors that are one after the other in one; empty: as they are."""


def pack(outputs: Outputs) -> tuple[list[Tensor], tuple[list[str] | None, Layout]]:
    """Return outputs as one tensor of bytes where that can be, and what `unpack` must know.

    A lone tensor stays as it is. Those whose bytes are not their numbers (sparse, conjugated) are
    returned one by one.
    """
    if isinstance(outputs, Tensor):
        return [outputs], (None, [])
    names = list(outputs)
    tensors = list(outputs.values())
    if len(tensors) < 2 or not all(map(_plain_bytes, tensors)):
        return tensors, (names, [])
    # The widest first: then each lies where a tensor of its dtype may begin.
    ordered = sorted(outputs.items(), key=lambda each: -each[1].element_size())
    layout = [(name, each.dtype, each.shape) for name, each in ordered]
    flat = [each.detach().reshape(-1).view(torch.uint8) for _, each in ordered]
    return [torch.cat(flat)], (names, layout)


def unpack(tensors: Sequence[Tensor], told: tuple[list[str] | None, Layout]) -> Outputs:
    """Return the outputs that `pack` has packed."""
    names, layout = told
    if names is None:
        return tensors[0]
    if not layout:
        return dict(zip(names, tensors, strict=True))
    found: dict[str, Tensor] = {}
    at = 0
    for name, dtype, shape in layout:
        size = shape.numel() * dtype.itemsize
        found[name] = tensors[0][at : at + size].view(dtype).view(shape)
        at += size
    return {name: found[name] for name in names}


def _plain_bytes(tensor: Tensor) -> bool:
    return (
        tensor.layout is torch.strided
        and not tensor.is_conj()
        and not tensor.is_neg()
        and not tensor.is_quantized
    )


def rows(outputs: Outputs, count: int) -> Iterator[Tensor | dict[str, Tensor]]:
    """Return each item's part of the outputs of a batch of ``count`` items.

    Raises:
        ValueError: an output has not a row for each of them.
    """
    named = {"": outputs} if isinstance(outputs, Tensor) else outputs
    if not named:
        raise ValueError("forward returned an empty mapping: it must name its outputs")
    for name, tensor in named.items():
        if not tensor.ndim or len(tensor) != count:
            raise ValueError(
                f"forward returned {repr(name) if name else 'a tensor'} of shape "
                f"{list(tensor.shape)} for a batch of {count}: the first dimension must be the "
                "batch; leave out what is no output of single items"
            )
    return _rows(outputs)


def _rows(outputs: Outputs) -> Iterator[Tensor | dict[str, Tensor]]:
    if isinstance(outputs, Tensor):
        yield from outputs
        return
    for row in zip(*outputs.values(), strict=True):
        yield dict(zip(outputs, row, strict=True))


def plain(tensor: Tensor) -> object:
    """Return a CPU tensor as what can be sent: a number, or a numpy array.

    What numpy has no dtype for, such as bfloat16, becomes float32.
    """
    if not tensor.ndim:
        return tensor.item()
    dense = tensor.detach() if tensor.layout is torch.strided else tensor.detach().to_dense()
    dense = dense.resolve_conj().resolve_neg()
    try:
        return dense.numpy()
    except TypeError:
        return dense.float().numpy()
