"""`forward` as CUDA graphs: a batch is one launch in place of hundreds, one graph for each size.

    inputs ─ copy ─> those of the graph ─ replay ─> its outputs ─ copy ─> outputs

Launching a model's kernels one by one takes longer than computing a small batch. A graph has fixed
addresses, so its inputs are copied into it and its outputs out of it, in the stream of the model.
All graphs share one pool of memory, since no two run at once.
"""

from __future__ import annotations

import contextlib
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Protocol, TypeAlias

import torch
from torch import Tensor

from zstreamer import failure
from zstreamer.torch.tensors import Outputs, checked

log = logging.getLogger(__name__)

Inputs: TypeAlias = Mapping[str, Tensor]
Forward: TypeAlias = Callable[[Inputs], Outputs]
Key: TypeAlias = tuple[tuple[str, torch.dtype, torch.Size], ...]

MOST = 128
"""Graphs of one model: each keeps some megabytes for its kernels' arguments."""

OFTEN = 8
"""Batches of one size after which it gets a graph, where the warm-up did not know of it: to capture
takes as long as some ten batches."""

MEMORY = 0.25
"""Share of the device's memory that graphs may take."""

SPARE = 0.1
"""Share of the device's memory that must be free for another one."""

TRIALS = 3
"""Runs before the capture, in which libraries choose their kernels and get their memory."""


class Capture(Protocol):
    """What makes graphs on a device."""

    def __call__(self, forward: Forward, inputs: Inputs) -> Forward:
        """Return what runs `forward` on inputs of the same sizes; the outputs are the caller's."""

    def room(self) -> bool:
        """Whether there is memory for another graph."""


class Graphs:
    """Runs `forward`, as a graph where there is one for the inputs' sizes.

    Args:
        forward: the model's.
        capture: makes graphs.
        required: whether a `forward` that cannot be captured is an error, in the warm-up.

    Attributes:
        count: how many graphs there are.
        waiting: whether sizes are not to be captured yet, since better ones are to be chosen.
    """

    def __init__(self, forward: Forward, capture: Capture, required: bool = False) -> None:
        self._forward = forward
        self._capture = capture
        self._required = required
        self._graphs: dict[Key, Forward] = {}
        self._seen: Counter[Key] = Counter()
        self._warming = False
        self._off = False
        self.waiting = False

    @property
    def active(self) -> bool:
        """Whether there are graphs, or can be."""
        return bool(self._graphs) or not self._off

    @property
    def count(self) -> int:
        """See above."""
        return len(self._graphs)

    @contextlib.contextmanager
    def warming_up(self) -> Iterator[None]:
        """Capture each size at once in this block, rather than when it has come often."""
        self._warming = True
        try:
            yield
        finally:
            self._warming = False

    def __call__(self, inputs: Inputs) -> Outputs:
        """Return what `forward` returns."""
        if not self.active:
            return self._forward(inputs)
        key = _key(inputs)
        graph = self._graphs.get(key)
        if graph is not None:
            return graph(inputs)
        if self._off or not self._wanted(key):
            return self._forward(inputs)
        return self._add(key, inputs)

    def _wanted(self, key: Key) -> bool:
        if self._warming:
            return True
        if self.waiting:
            return False
        if len(self._seen) > 4 * MOST:  # sizes that seldom come, one after the other
            self._seen.clear()
        self._seen[key] += 1
        return self._seen[key] >= OFTEN

    def _add(self, key: Key, inputs: Inputs) -> Outputs:
        if len(self._graphs) >= MOST or not self._capture.room():
            self._off = True
            log.info("no room for more than %d CUDA graphs: other sizes run without", self.count)
            return self._forward(inputs)
        try:
            graph = self._capture(self._forward, inputs)
        except torch.cuda.OutOfMemoryError:
            if self._warming:
                raise
            self._off = True
            log.info("no memory for more than %d CUDA graphs: other sizes run without", self.count)
            torch.cuda.empty_cache()
            return self._forward(inputs)
        except Exception as error:  # noqa: BLE001  # what cannot be captured says so in many ways
            # What fails without a graph too is the fault of these inputs, or of the device.
            outputs = self._forward(inputs)
            self._fall_back(error)
            return outputs
        self._graphs[key] = graph
        self._seen.pop(key, None)
        return graph(inputs)

    def _fall_back(self, error: Exception) -> None:
        self._off = True
        reason = failure.message(error).partition("\n")[0]
        if self._required and self._warming:
            raise RuntimeError(
                f"forward cannot be captured as a CUDA graph ({reason}): it must not wait for the "
                'device (.item(), .cpu(), if tensor: …). Change it, or leave graphs at "auto"'
            ) from error
        log.warning("forward cannot be captured as a CUDA graph, so it runs without: %s", reason)


def _key(inputs: Inputs) -> Key:
    return tuple((name, tensor.dtype, tensor.shape) for name, tensor in inputs.items())


class CudaCapture:
    """Captures graphs on a CUDA device, all in one pool of memory.

    Args:
        device: the device.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pool = torch.cuda.graph_pool_handle()
        self._taken = 0

    def room(self) -> bool:
        """Whether there is memory for another graph."""
        free, total = torch.cuda.mem_get_info(self._device)
        return self._taken < MEMORY * total and free > SPARE * total

    def __call__(self, forward: Forward, inputs: Inputs) -> Forward:
        """Return a graph; waits for the device, which may do nothing else meanwhile."""
        own = {name: tensor.clone() for name, tensor in inputs.items()}
        aside = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        current = torch.cuda.current_stream(self._device)
        aside.wait_stream(current)
        with torch.cuda.stream(aside):
            for _ in range(TRIALS):
                forward(own)
        current.wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        # What other threads do meanwhile, such as to wait for the batch before, is not captured.
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            # After torch has given back what is free, so that only the graph's own is counted.
            before = torch.cuda.memory_reserved(self._device)
            outputs = checked(forward(own))
        self._taken += max(0, torch.cuda.memory_reserved(self._device) - before)
        return _Replay(graph, own, outputs)


class _Replay:
    """A graph with its inputs and outputs."""

    def __init__(self, graph: torch.cuda.CUDAGraph, inputs: Inputs, outputs: Outputs) -> None:
        self._graph, self._inputs, self._outputs = graph, inputs, outputs

    def __call__(self, inputs: Inputs) -> Outputs:
        for name, tensor in inputs.items():
            self._inputs[name].copy_(tensor)
        self._graph.replay()
        # The next replay, of whichever graph, writes into the same memory.
        if isinstance(self._outputs, Tensor):
            return self._outputs.clone()
        return {name: tensor.clone() for name, tensor in self._outputs.items()}
