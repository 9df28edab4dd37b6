"""The base class of torch models.

arrival    item ─ prepare ─> features                  while the batch before runs
batch      features ─ collate ─> padded tensors ─> device ─ forward ─> outputs ─> CPU
answer     one item's part of the outputs ─ finish ─> what its caller gets
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal

import torch
from torch import Tensor, nn

from zstreamer import failure
from zstreamer.model import Loaded, ManagedModel, Pending
from zstreamer.torch.batch import Batch, Features, Parts, free, naming
from zstreamer.torch.device import choose_device, choose_dtype, compiled, set_threads
from zstreamer.torch.graphs import Capture, CudaCapture, Graphs
from zstreamer.torch.padding import (
    INPUT,
    by_name,
    check_buckets,
    fitting,
    length_of,
    lengthen,
    pad,
    stack,
)
from zstreamer.torch.sizes import Sizes
from zstreamer.torch.streams import Fetched, Streams
from zstreamer.torch.tensors import Outputs, fetch, plain, send
from zstreamer.worker.preparation import Raised, prepared

log = logging.getLogger(__name__)


class TorchModel(ManagedModel):
    """A torch model that a worker loads: derive from it, define `load`, and what else differs.

    Attributes:
        example: items for the warm-up; one of them no longer than the smallest length bucket.
        padding: for each feature whose first dimension may be of any length, what stands behind
            the end of the shorter ones. `load` may set it.
        length_buckets: the lengths to pad to, ascending, such as `buckets(16, 512)`; without any
            a batch has the length of its longest item. A longer item is an error.
        batch_buckets: the batch sizes to run, ascending: a batch is filled up to the next with
            copies of its last item, and one beyond the last runs in parts. Without any a batch
            runs as it comes.
        device, dtype: what was chosen. Floating-point parameters and inputs have this dtype.
        module: what `load` returned, on its device, in evaluation mode.
    """

    padding: Mapping[str, float] = MappingProxyType({})
    length_buckets: Sequence[int] = ()
    batch_buckets: Sequence[int] = ()
    device: torch.device
    dtype: torch.dtype
    module: nn.Module

    def init_model(
        self,
        *args: Any,
        device: str | torch.device = "auto",
        dtype: str | torch.dtype = "auto",
        threads: int | None = None,
        compile: bool = False,  # noqa: A002  # torch's own word
        graphs: Literal["auto"] | bool = "auto",
        **kwargs: Any,
    ) -> None:
        """Choose device and dtype, load the module and warm it up.

        Args:
            device: "auto" for CUDA where there is one, else the CPU; or a device's name.
            dtype: "auto" for the fastest that this machine runs well, or "float32", "bfloat16"
                or "float16".
            threads: CPU threads for torch in this process. By default what the environment
                variable OMP_NUM_THREADS says, which a worker gets as its share of the cores.
            compile: run `forward` as torch.compile makes it, for each size before the first
                request.
            graphs: run `forward` as CUDA graphs, one for each size: "auto" where it can be
                captured, and not together with ``compile``; True: an error where it cannot.
            args: for `load`.
            kwargs: for `load`.

        Raises:
            ValueError: an argument or the buckets cannot be used; the message says what can.
            TypeError: `load` returned no module.
            RuntimeError: ``compile`` is set and `forward` fails when compiled, or ``graphs`` and
                it cannot be captured.
        """
        if threads is not None:
            set_threads(threads)
        self.device = choose_device(device, self.gpu_id)
        self.dtype = choose_dtype(dtype, self.device)
        log.info(
            "device=%s (asked for %s) dtype=%s (asked for %s)",
            self.device,
            device,
            self.dtype,
            dtype,
        )
        self.module = self._placed(self.load(*args, **kwargs))
        check_buckets("length_buckets", self.length_buckets)
        check_buckets("batch_buckets", self.batch_buckets)
        self._compiled = compile
        self._forward = self._compile() if compile else self.forward
        self._choose_graphs(graphs)
        self._streams = Streams.of_cuda(self.device) if self.device.type == "cuda" else None
        self.warm_up()

    # What a model defines

    def load(self, *args: Any, **kwargs: Any) -> nn.Module:
        """Return the module; it is moved to `device` and `dtype`, which are chosen already."""
        raise NotImplementedError(f"{type(self).__name__} does not define load")

    def prepare(self, item: Any) -> Any:
        """Return the features of an item, such as its tokens; by default the item itself.

        It runs on arrival, in another thread than the rest. What it raises is that item's error.
        Features whose names begin with an underscore are for `finish` alone.
        """
        return item

    def collate(self, batch: Sequence[Features]) -> Mapping[str, Tensor]:
        """Return the features of a batch as CPU tensors [items, …], padded to the buckets."""
        items = by_name(batch)
        names = [name for name in items[0] if not name.startswith("_")]
        return {name: self._gather(name, [item[name] for item in items]) for name in names}

    def forward(self, inputs: Mapping[str, Tensor]) -> Outputs:
        """Run the module on a batch; by default the features are its keyword arguments.

        Where items are lone arrays, the one feature is called "input", and is its one argument.

        Returns:
            A tensor [items, …], or a mapping of such, as the models of transformers return.
        """
        lone = inputs.keys() == {INPUT}
        outputs: Outputs = self.module(inputs[INPUT]) if lone else self.module(**inputs)
        return outputs

    def finish(self, output: Any, item: Any) -> object:  # noqa: ARG002  # for who defines it anew
        """Return the answer for an item; what it raises is that item's error.

        Args:
            output: its row of what `forward` returned, on the CPU: a tensor, or a dict of them.
            item: what `prepare` returned.

        By default it is a numpy array (or a dict of them), a number where the row is one.
        """
        if isinstance(output, Tensor):
            return plain(output)
        return {name: plain(tensor) for name, tensor in output.items()}

    # What is made of it

    @property
    def overlaps(self) -> bool:
        """Whether a batch can be begun while the one before computes."""
        return self._streams is not None and type(self).predict is TorchModel.predict

    def predict(self, batch: list[Any]) -> list[object]:
        """Return an answer, or an exception, for each of the prepared items."""
        answers: list[object] = []
        for start, part in self._parts(batch):
            with naming(start):
                answers += self._begun(part).outputs()
        return answers

    def begin(self, batch: list[Any]) -> Pending:
        """Start a batch on the device; returns what its answers can be had of.

        Only where `overlaps` is true: workers then begin the next batch while this one computes.
        """
        parts: list[tuple[int, Batch]] = []
        for start, part in self._parts(batch):
            with naming(start):
                parts.append((start, self._begun(part)))
        return Parts(parts)

    def __call__(self, items: Iterable[Any]) -> list[object]:
        """Return an answer, or an exception, for each item: here and now, without a worker."""
        outcomes = self._prepared(list(items))
        sound = [each for each in outcomes if not isinstance(each, Exception)]
        answers = iter(self.predict(sound))
        return [each if isinstance(each, Exception) else next(answers) for each in outcomes]

    def warm_up(self) -> None:
        """Run `forward` once in each size that the buckets allow, the largest first.

        So the largest gets its memory in one piece, in which the others find room. Without an
        `example` nothing is run.
        """
        if not self.example:
            return
        begun = time.perf_counter()
        items = by_name([self.prepare(item) for item in self.example])
        item = min(items, key=lambda each: length_of(each, self.padding))
        with self._graphs.warming_up() if self._graphs else contextlib.nullcontext():
            for count, length in self._sizes(length_of(item, self.padding)):
                self._try([lengthen(item, self.padding, length)] * count, length)
        seconds = time.perf_counter() - begun
        log.info("device=%s dtype=%s warmed up in %.1f s", self.device, self.dtype, seconds)

    def _placed(self, module: object) -> nn.Module:
        if not isinstance(module, nn.Module):
            raise TypeError(
                f"load returned {type(module).__name__}: it must return the torch.nn.Module"
            )
        return module.to(self.device, self.dtype).eval().requires_grad_(False)

    def _prepared(self, items: list[object]) -> list[object]:
        """Return the features of each item, or the exception in its place."""
        found = prepared(Loaded(self), items)
        for each in found:
            if isinstance(each, Raised) and not isinstance(each.error, Exception):
                raise each.error  # it wants to end the program
        return [each.error if isinstance(each, Raised) else each for each in found]

    def _finished(self, output: object, item: object) -> object:
        try:
            return self.finish(output, item)
        except Exception as error:
            if failure.fatal(error):
                raise
            return failure.raised(error)

    def _gather(self, name: str, values: Sequence[object]) -> Tensor:
        pin = self.device.type == "cuda"
        if name in self.padding:
            return pad(name, values, self.padding[name], self.length_buckets, pin)
        return stack(name, values, pin)

    def _parts(self, batch: list[Any]) -> Iterator[tuple[int, list[Any]]]:
        """Yield what runs at once, with the place where it begins."""
        most = self.batch_buckets[-1] if self.batch_buckets else max(1, len(batch))
        return ((at, batch[at : at + most]) for at in range(0, len(batch), most))

    def _begun(self, batch: list[Features]) -> Batch:
        missing = self._fit(len(batch)) - len(batch)
        fetched = self._run([*batch, *batch[-1:] * missing])
        return Batch(fetched, batch, len(batch) + missing, self._finished)

    def _fit(self, count: int) -> int:
        """Return to how many items a batch is filled up."""
        if self._learned is not None and self._graphs and self._graphs.active:
            fit = self._learned.fit(count)
            self._graphs.waiting = not self._learned.buckets
            return fit
        return fitting(count, self.batch_buckets)

    @torch.inference_mode()
    def _run(self, batch: Sequence[Features]) -> Fetched:
        tensors = self.collate(batch)
        if self._streams is not None:
            outputs = self._forward(self._streams.upload(tensors, self.dtype))
            return self._streams.download(outputs)
        inputs = {name: send(t, self.device, self.dtype) for name, t in tensors.items()}
        return Fetched.here(fetch(self._forward(inputs)))

    def _choose_graphs(self, wanted: Literal["auto"] | bool) -> None:
        if wanted not in ("auto", True, False):
            raise ValueError(f'graphs must be "auto", True or False, not {wanted!r}')
        on_cuda = self.device.type == "cuda"
        if wanted is True and not on_cuda:
            raise ValueError(
                f"graphs=True needs a CUDA device, and the model runs on {self.device}"
            )
        self._graphs: Graphs | None = None
        self._learned: Sizes | None = None
        if on_cuda and (wanted is True or (wanted == "auto" and not self._compiled)):
            self._use_graphs(CudaCapture(self.device), wanted is True)

    def _use_graphs(self, capture: Capture, required: bool) -> None:
        self._graphs = Graphs(self._forward, capture, required)
        self._forward = self._graphs
        # Without any, each batch size that comes would need a graph of its own.
        self._learned = None if self.batch_buckets else Sizes()

    def _sizes(self, length: int) -> list[tuple[int, int]]:
        """Return the batch sizes and lengths that an example of this length can stand for."""
        lengths = [bucket for bucket in self.length_buckets if bucket >= length]
        if len(lengths) < len(self.length_buckets):
            log.warning("no warm-up below length %d: there is no shorter example", length)
        sizes = itertools.product(self.batch_buckets or (1,), lengths or (length,))
        return sorted(sizes, key=lambda size: size[0] * max(1, size[1]), reverse=True)

    def _try(self, batch: list[Features], length: int) -> None:
        try:
            self._run(batch).wait()
        except torch.cuda.OutOfMemoryError as error:
            free(error)
            log.warning("no memory for %d items of length %d", len(batch), length)
        except Exception as error:
            if not self._compiled:
                raise
            raise RuntimeError(
                f"forward, compiled for {len(batch)} items of length {length}, failed: fix what "
                "the error above this one names, or do without compile=True"
            ) from error

    def _compile(self) -> Callable[[Mapping[str, Tensor]], Outputs]:
        has_lengths = bool(self.length_buckets or not self.padding)
        if not (self.example and self.batch_buckets and has_lengths):
            raise ValueError(
                "compile=True builds a program for each size before the first request, so the "
                "class must name them: an example, batch_buckets, and length_buckets if it pads"
            )
        return compiled(self.forward, len(self.batch_buckets) * max(1, len(self.length_buckets)))
