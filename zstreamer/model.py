"""What a user writes: a class that loads a model and runs batches on it, or just a function."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Coroutine, Mapping, Sequence, Sized
from functools import partial
from itertools import islice
from typing import Any, ClassVar, Protocol, TypeAlias

from zstreamer.signature import Tensor, declared

PredictFunction: TypeAlias = Callable[[list[object]], Sequence[object]]
PrepareFunction: TypeAlias = Callable[[object], object]
PrepareBatchFunction: TypeAlias = Callable[[list[object]], Sequence[object]]


class Pending(Protocol):
    """A batch that has been started on a device of its own."""

    def wait(self) -> None:
        """Return when the device is done; called from another thread than the model's."""

    def outputs(self) -> Sequence[object]:
        """Return what predict would, or raise what it would raise; called once, after `wait`."""


BeginFunction: TypeAlias = Callable[[list[object]], Pending]


class ItemError(Exception):
    """Raise it in `predict` to say which item of the batch is to blame.

    The others are then run again in one go, in place of halves upon halves.

    Args:
        index: the item's place in the batch.
        message: what is wrong with it.

        >>> def predict(self, batch):
        ...     for i, text in enumerate(batch):
        ...         if "[MASK]" not in text:
        ...             raise ItemError(i, "no [MASK] in the sentence")
    """

    def __init__(self, index: int, message: str) -> None:
        super().__init__(message)
        self.index = index


class ManagedModel:
    """A model that a worker loads in a process of its own.

    Derive from it, load in `init_model`, run in `predict`:

        class Doubler(ManagedModel):
            def init_model(self):
                self.factor = 2

            def predict(self, batch):
                return [self.factor * x for x in batch]

    Attributes:
        model: None; `init_model` may keep what it loads there.
        gpu_id: the device that the worker was given, or None. CUDA_VISIBLE_DEVICES is set to
            it already, so that to this process it is device 0.
        example: inputs that are run once before the worker takes work, so that the first
            caller does not pay for warming up; None for none.
        inputs, outputs: names, datatypes and shapes for the HTTP servers, as lists of
            `zstreamer.Tensor`; None where items are plain.
    """

    model: Any = None
    gpu_id: str | int | None = None
    example: ClassVar[Sequence[object] | None] = None
    inputs: ClassVar[Sequence[Tensor] | None] = None
    outputs: ClassVar[Sequence[Tensor] | None] = None

    def __init__(self, gpu_id: str | int | None = None) -> None:
        self.model = None
        self.gpu_id = gpu_id
        self.set_gpu_id(gpu_id)

    @staticmethod
    def set_gpu_id(gpu_id: str | int | None = None) -> None:
        """Make this process see one CUDA device only; None changes nothing.

        A worker's process sees only its own already. Elsewhere call it before CUDA is first used.
        """
        if gpu_id is not None:
            os.environ["CUDA_VISIBLE_DEVICES"] = str(gpu_id)

    def init_model(self, *args: Any, **kwargs: Any) -> None:
        """Load the model. Called once, in the worker's process, before anything else."""

    def init_prepare(self, *args: Any, **kwargs: Any) -> None:
        """Load what `prepare` and `cost` need, and no more.

        Optional. With ``--prepare-workers`` it is called in each process that prepares, in place of
        `init_model` and with its arguments; in the worker itself `init_model` alone is called.
        """

    def predict(self, batch: list[object]) -> Sequence[object]:
        """Return one output for each input of ``batch`` (as `prepare` left it), in order.

        An exception may stand in an item's place: its caller gets a `PredictError`, the
        others their answers. An exception that is raised makes the batch run again in
        halves until the bad item stands alone, so returning one is cheaper; an `ItemError`
        names the item, and the others run again together.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define predict")

    # Any in these two: what an item is, and what is made of it, is for the model's author to say.

    def prepare(self, item: Any) -> Any:
        """Return what `cost` and `predict` are to see in place of ``item``: tokens, pixels …

        Optional. It is called once for each item, also where its batch runs again; in a worker
        on arrival and in another thread than `predict`, so that work which need not wait for
        the model is done while the batch before runs. What it raises is that item's error alone.
        """
        return item

    def prepare_batch(self, items: list[Any]) -> Sequence[Any]:
        """Return what `prepare` would for each of the items, in order, made in one go.

        Optional, for what is faster together, such as a tokenizer that takes a list of texts and
        has threads of its own. It gets what has just arrived. An exception may stand in an item's
        place. Where it raises, each item is prepared alone, by `prepare` if that is defined.
        """
        return [self.prepare(item) for item in items]

    def cost(self, item: Any) -> float:
        """Return what an item costs to run (tokens, pixels …), for batches of like sizes.

        Defining it is optional; leave it out where all items cost the same.

        Args:
            item: what `prepare` returned.
        """
        raise NotImplementedError


def predict_of(source: object) -> PredictFunction:
    """Return what runs batches: an object's ``predict``, or a function itself.

    Raises:
        TypeError: it has none.
    """
    predict: Any = getattr(source, "predict", source)
    if not callable(predict):
        raise TypeError(
            f"{source!r} is not a model: give a ManagedModel subclass, an object with a "
            "predict method, or a function that takes a list and returns a list"
        )
    found: PredictFunction = predict
    return found


class Loaded:
    """A model ready to run, whatever kind of object the user gave.

    Args:
        source: a `ManagedModel` subclass (or any class with ``predict``), an object with
            ``predict``, or a function from a list to a list.
        gpu_id: passed to the class.
        args, kwargs: passed to ``init_model``.
        prepare_only: for a process that prepares and does nothing else: `init_prepare` is called
            in place of ``init_model``.

    Raises:
        TypeError: ``source`` is none of these.
        ValueError: its ``inputs`` or ``outputs`` are no tensors. Whatever the user's code raises
            comes through.
    """

    def __init__(
        self,
        source: object,
        gpu_id: str | int | None = None,
        args: Sequence[object] = (),
        kwargs: dict[str, object] | None = None,
        prepare_only: bool = False,
    ) -> None:
        self.cost: Callable[[object], float] | None = None
        self.example: Sequence[object] | None = None
        self._prepared: list[object] | None = None
        model = self._make(source, gpu_id) if inspect.isclass(source) else source
        begin = "init_prepare" if prepare_only else "init_model"
        if inspect.isclass(source) and hasattr(model, begin):
            getattr(model, begin)(*args, **(kwargs or {}))
        self.predict = predict_of(model)
        self.begin: BeginFunction | None = None
        self.prepare: PrepareFunction = _as_it_is
        self.prepare_batch: PrepareBatchFunction | None = None
        # Any other object may mean something else by the names.
        if isinstance(model, ManagedModel):
            self._find_prepare(model)
            if getattr(model, "overlaps", False):  # as torch models on a GPU
                self.begin = getattr(model, "begin")  # noqa: B009  # no other model has one
        cost = getattr(model, "cost", None)
        if callable(cost) and getattr(type(model), "cost", None) is not ManagedModel.cost:
            self.cost = cost
        self.example = getattr(model, "example", None)
        # Other objects may mean something else by these names too.
        own = model if isinstance(model, ManagedModel) else ManagedModel
        self.inputs = declared(own.inputs)
        self.outputs = declared(own.outputs)

    @staticmethod
    def _make(source: type, gpu_id: str | int | None) -> object:
        return source(gpu_id) if issubclass(source, ManagedModel) else source()

    def _find_prepare(self, model: ManagedModel) -> None:
        kind = type(model)
        if kind.prepare is not ManagedModel.prepare:
            self.prepare = model.prepare
        # One that a base class defines knows nothing of a `prepare` that was defined after it.
        if _home(kind, "prepare_batch") > _home(kind, "prepare"):
            return
        if kind.prepare_batch is not ManagedModel.prepare_batch:
            self.prepare_batch = model.prepare_batch
            if kind.prepare is ManagedModel.prepare:
                self.prepare = partial(_alone, model.prepare_batch)

    @property
    def prepares(self) -> bool:
        """Whether the model makes something else of items before predict."""
        return self.prepare is not _as_it_is

    @property
    def looks_on_arrival(self) -> bool:
        """Whether the model's own code sees items as they arrive."""
        return self.cost is not None or self.prepares

    def warm_up(self) -> None:
        """Run the model's example once, if it has one.

        Raises:
            WrongNumberOfOutputs: as the name says.
            Exception: what the model raises, or returns in the place of each of its items.
        """
        if not self.example:
            return
        if self._prepared is None:
            self._prepared = [self.prepare(item) for item in self.example]
        outputs = listed(self.predict(list(self._prepared)), len(self._prepared))
        errors = [output for output in outputs if isinstance(output, BaseException)]
        if len(errors) == len(outputs):
            raise errors[0]


class WrongNumberOfOutputs(Exception):
    """What predict returned is not a list with one output for each input."""


NO_LIST = (str, bytes, bytearray, memoryview, set, frozenset, Mapping)
"""What can be iterated over, but not output by output in the order of the inputs."""


def listed(outputs: object, count: int) -> list[object]:
    """Return what predict returned as a list.

    Args:
        outputs: of a batch, in any form that has an order.
        count: items of the batch.

    Raises:
        WrongNumberOfOutputs: they are not one for each item.
        Exception: whatever a generator of the user's raises, or an exception that predict has
            returned in place of a list.
    """
    if isinstance(outputs, BaseException):
        raise outputs
    if isinstance(outputs, Coroutine):
        outputs.close()
        raise WrongNumberOfOutputs("predict is an async function: write it as a plain one")
    # A data frame lists the names of its columns.
    ordered = not isinstance(outputs, NO_LIST) and not hasattr(type(outputs), "columns")
    try:
        each = iter(outputs) if ordered else None  # type: ignore[call-overload]  # it may well fail
    except TypeError:  # also an array or a tensor without dimensions
        each = None
    if each is None:
        raise WrongNumberOfOutputs(
            f"predict returned {type(outputs).__name__}, not a list with one output for each input"
        )
    found = list(islice(each, count + 1))  # there may be no end of them
    if len(found) != count:
        some = f"{len(found)}" if len(found) < count else _length(outputs, count)
        inputs = "1 input" if count == 1 else f"{count} inputs"
        raise WrongNumberOfOutputs(
            f"predict returned {some} outputs for {inputs}; it must return one for each, in order"
        )
    return found


def _length(outputs: object, count: int) -> str:
    """Say how many outputs there are where they are more than ``count``."""
    return str(len(outputs)) if isinstance(outputs, Sized) else f"more than {count}"


def _as_it_is(item: object) -> object:
    return item


def _alone(prepare_batch: PrepareBatchFunction, item: object) -> object:
    [value] = prepare_batch([item])
    if isinstance(value, BaseException):
        raise value
    return value


def _home(kind: type, name: str) -> int:
    """Return how far up from a class the name is defined; 0: in itself."""
    return next(n for n, base in enumerate(kind.__mro__) if name in vars(base))
