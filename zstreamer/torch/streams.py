"""The streams of a CUDA device: copies to and from it go on while a model computes.

    in        inputs of batch n + 1, from pinned memory
    compute   the model on batch n                       torch's current stream
    out       outputs of batch n - 1, in one copy, into pinned memory, and an event behind it

Each waits for the one before it by events on the device; nothing here waits for the whole device.
Two batches are under way at most, so that torch's allocator of pinned memory, which gives a buffer
out again once the copies from it are done, settles at two sets of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch
from torch import Tensor

from zstreamer.torch.tensors import Outputs, checked, pack, send, unpack


class Event(Protocol):
    """A point in a stream."""

    def synchronize(self) -> None:
        """Return when the device has come to it."""


class Stream(Protocol):
    """Work of a device that is done in order."""

    def wait_stream(self, stream: Any, /) -> None:
        """Do what comes next after all that the other stream has to do now."""

    def record_event(self, event: Any, /) -> Event:
        """Put an event behind all that it has to do now, and return it."""


class Streams:
    """Three streams of one device.

    Args:
        device: the device.
        make: makes a stream.
        current: returns the stream in which models compute.
        within: a block whose work goes to a stream.
        event: makes an event.
        pin: whether outputs are fetched into pinned memory.
    """

    def __init__(
        self,
        device: torch.device,
        make: Callable[[], Stream],
        current: Callable[[], Stream],
        within: Callable[[Any], AbstractContextManager[Any]],
        event: Callable[[], Event],
        pin: bool = True,
    ) -> None:
        self._device = device
        self._in, self._out = make(), make()
        self._current, self._within, self._event, self._pin = current, within, event, pin

    @classmethod
    def of_cuda(cls, device: torch.device) -> Streams:
        """Return those of a CUDA device."""
        return cls(
            device,
            lambda: torch.cuda.Stream(device),  # type: ignore[no-untyped-call]
            lambda: torch.cuda.current_stream(device),
            torch.cuda.stream,
            # Who waits sleeps; by default it would keep a core busy.
            lambda: torch.cuda.Event(blocking=True),  # type: ignore[no-untyped-call]
        )

    def upload(self, tensors: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
        """Return CPU tensors on the device, there by the time that the model computes with them."""
        current = self._current()
        with self._within(self._in):
            sent = {name: send(each, self._device, dtype) for name, each in tensors.items()}
        current.wait_stream(self._in)
        for tensor in sent.values():
            _used_in(tensor, current)
        return sent

    def download(self, outputs: object) -> Fetched:
        """Have outputs fetched when the model has computed them."""
        packed, layout = pack(checked(outputs))
        self._out.wait_stream(self._current())
        with self._within(self._out):
            fetched = [self._fetch(each) for each in packed]
            event = self._out.record_event(self._event())
        for tensor in packed:
            _used_in(tensor, self._out)
        return Fetched(fetched, layout, event)

    def _fetch(self, tensor: Tensor) -> Tensor:
        if tensor.layout is not torch.strided:
            return tensor.to("cpu")
        here = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=self._pin)
        return here.copy_(tensor, non_blocking=True)


class Fetched:
    """Outputs on their way to the CPU."""

    def __init__(self, tensors: list[Tensor], layout: Any, event: Event | None) -> None:
        self._tensors, self._layout, self._event = tensors, layout, event

    @classmethod
    def here(cls, outputs: Outputs) -> Fetched:
        """Return outputs that are on the CPU already."""
        if isinstance(outputs, Tensor):
            return cls([outputs], (None, []), None)
        return cls(list(outputs.values()), (list(outputs), []), None)

    def wait(self) -> None:
        """Return when they are here."""
        if self._event is not None:
            self._event.synchronize()

    def outputs(self) -> Outputs:
        """Return them."""
        return unpack(self._tensors, self._layout)


def _used_in(tensor: Tensor, stream: Any) -> None:
    """Keep memory that another stream has given out until this one is done with it."""
    if tensor.is_cuda:
        tensor.record_stream(stream)
