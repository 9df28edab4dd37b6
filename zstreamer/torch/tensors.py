"""Tensors on their way to a model's device and back.

To CUDA they go from pinned memory in the background, so that the first kernels are launched while
the last inputs are copied; from it they come into pinned memory, all at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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


def fetch(outputs: object, device: torch.device) -> Outputs:
    """Return what a model returned, on the CPU and complete.

    Raises:
        TypeError: it is neither a tensor nor a mapping of tensors.
    """
    on_cuda = device.type == "cuda"
    if isinstance(outputs, Tensor):
        fetched: Outputs = outputs.to("cpu", non_blocking=on_cuda)
    elif isinstance(outputs, Mapping) and all(isinstance(t, Tensor) for t in outputs.values()):
        fetched = {name: t.to("cpu", non_blocking=on_cuda) for name, t in outputs.items()}
    else:
        raise TypeError(
            f"forward returned {type(outputs).__name__}: it must return a tensor with a row for "
            "each item, or a mapping of names to such tensors"
        )
    if on_cuda:
        torch.cuda.current_stream(device).synchronize()
    return fetched


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
