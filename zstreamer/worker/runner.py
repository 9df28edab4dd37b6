"""Runs one batch on a model so that a bad item harms only itself.

predict raises ──> run each half again ──> … until the bad item stands alone
a wrong number of outputs ──> the same
an ItemError   ──> run the others again, together
out of memory  ──> run each half again, and remember the smaller size for a while
an exception in an item's place ──> that item's error; nothing runs again
a broken device, or a FatalError ──> `ModelBroken`: this process can run nothing any more
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from zstreamer import errors, failure
from zstreamer.codec import PLAIN, Codec
from zstreamer.errors import PredictError, ZStreamerError
from zstreamer.model import (
    BeginFunction,
    ItemError,
    Pending,
    PredictFunction,
    WrongNumberOfOutputs,
    listed,
)
from zstreamer.worker.pipe import Outcome

PROBE_AFTER = 50
"""Batches at the smaller size before one item more is tried after running out of memory."""

DOUBT_AFTER = 3
"""Batches in a row without one answer after which the model has to show that it still works; then
after twice as many, since callers may well send what no model can answer."""


class ModelBroken(Exception):
    """The model can run no batch in this process any more; the cause is its ``__cause__``."""


class Begun:
    """A batch that may compute while the next is begun.

    Args:
        items, once: as for `Runner.run`.
    """

    def __init__(self, items: Sequence[object], once: Sequence[bool]) -> None:
        self.items, self.once = items, once
        self._pending: Pending | None = None
        self._error: BaseException | None = None

    def begin(self, begin: BeginFunction) -> None:
        """Start it; what that raises is raised when it is ended."""
        try:
            self._pending = begin(list(self.items))
        except BaseException as error:  # noqa: BLE001  # the user's code may raise anything
            self._error = error

    def wait(self) -> None:
        """Return when the device is done with it; may be called from any thread."""
        try:
            if self._pending is not None:
                self._pending.wait()
        except BaseException as error:  # noqa: BLE001  # the device's errors come to light here
            self._error = error

    @property
    def first(self) -> PredictFunction | None:
        """What its first run is to be; None where it was not started."""
        if self._pending is None and self._error is None:
            return None
        return self._first

    def _first(self, _: list[object]) -> Sequence[object]:
        pending, error = self._pending, self._error
        self._pending = self._error = None  # what failed must not keep its tensors
        if pending is None or error is not None:
            raise error or RuntimeError("nothing was begun")
        return pending.outputs()


class Runner:
    """A model's predict with the rules above.

    Args:
        predict: the model's.
        check: raises where the model cannot run its own example; None where it has none.
        begin: starts a batch on the model's device; None where predict alone runs batches.

    Attributes:
        limit: items that fitted into memory the last time; None while memory never ran out.
        clean: whether in the last `run` predict ran exactly once and succeeded.
    """

    def __init__(
        self,
        predict: PredictFunction,
        check: Callable[[], object] | None = None,
        begin: BeginFunction | None = None,
    ) -> None:
        self._predict = predict
        self._begin = begin
        self._check = check
        self.limit: int | None = None
        self.clean = True
        self._batches_at_limit = 0
        self._one_too_large = False
        self._failures = 0
        self._doubt_at = DOUBT_AFTER

    def begin(self, items: Sequence[object], once: Sequence[bool]) -> Begun:
        """Start a batch where the model can, and return it for `end`."""
        begun = Begun(items, once)
        if self._begin is not None and items and len(items) <= (self.limit or len(items)):
            begun.begin(self._begin)
        return begun

    def end(self, begun: Begun) -> list[object]:
        """Return the outputs of a batch that was begun; as `run`, which runs what was not."""
        return self.run(begun.items, begun.once, begun.first)

    def run(
        self,
        items: Sequence[object],
        once: Sequence[bool],
        first: PredictFunction | None = None,
    ) -> list[object]:
        """Return an output for each item, or an error in its place.

        Args:
            items: the inputs, decoded.
            once: for each, whether it may run only once; where its batch fails it gets
                that failure as its own, since it may not be run again.
            first: runs the whole batch in the place of predict, the first time.

        Raises:
            ModelBroken: this process can run no batch any more, and the items are not done.
        """
        self.clean = bool(items)
        if not items:  # all were given up between the plan and the claim
            return []
        limit = self.limit
        self._one_too_large = False
        size = limit or len(items)
        if first is not None or size >= len(items):
            outputs = self._attempt(list(items), list(once), first)
        else:
            self.clean = False
            outputs = []
            for start in range(0, len(items), size):
                end = start + size
                outputs += self._attempt(list(items[start:end]), list(once[start:end]))
        if self._one_too_large:
            self.limit = limit  # it was that item, and says nothing of how many others fit
        self._probe_upward()
        self._doubt(outputs)
        return outputs

    def _attempt(
        self, items: list[object], once: list[bool], first: PredictFunction | None = None
    ) -> list[object]:
        try:
            outputs = listed((first or self._predict)(list(items)), len(items))
            for output in outputs:
                if isinstance(output, BaseException) and failure.fatal(output):
                    raise output
            return outputs
        # Also SystemExit and KeyboardInterrupt: a model must not end its worker, and no signal
        # raises in this thread, or in a process that ignores them.
        except BaseException as error:
            self.clean = False
            if failure.fatal(error):
                raise ModelBroken(failure.message(error)) from error
            raised = error
        # Outside the handler, or each half's error would carry its whole's as its context.
        return self._split(raised, items, once)

    def _split(self, error: BaseException, items: list[object], once: list[bool]) -> list[object]:
        if len(items) == 1:
            self._one_too_large |= failure.out_of_memory(error)
            return [_told(error, failure.raised)]
        failed = _told(error, failure.failed)
        if failure.out_of_memory(error):
            self.limit = max(1, len(items) // 2)
            self._batches_at_limit = 0
        failure.let_go(error)
        outputs: list[object] = [failed] * len(items)
        again = [i for i, single in enumerate(once) if not single]
        for part in _parts(again, error, len(items)):
            results = self._attempt([items[i] for i in part], [False] * len(part))
            for i, output in zip(part, results, strict=True):
                outputs[i] = output
        return outputs

    def _doubt(self, outputs: list[object]) -> None:
        """Have a model that has answered nothing for some batches run its example.

        A broken one need not say so: what it raises may be any exception, for any input.
        """
        errs = [each for each in outputs if isinstance(each, BaseException)]
        if len(errs) < len(outputs):
            self._failures, self._doubt_at = 0, DOUBT_AFTER
            return
        if self._check is None or any(isinstance(each, failure.REFUSALS) for each in errs):
            return  # to refuse an input is an answer
        self._failures += 1
        if self._failures < self._doubt_at:
            return
        self._doubt_at *= 2
        try:
            self._check()
        except BaseException as error:
            words = f"the model fails on its own example: {failure.message(error)}"
            raise ModelBroken(words) from error

    def _probe_upward(self) -> None:
        if self.limit is None:
            return
        self._batches_at_limit += 1
        if self._batches_at_limit >= PROBE_AFTER:
            self.limit += 1
            self._batches_at_limit = 0


def _told(error: BaseException, tell: Callable[[BaseException], ZStreamerError]) -> ZStreamerError:
    """Return the error for those whose batch raised this one."""
    if isinstance(error, WrongNumberOfOutputs):  # raised here, so its traceback says nothing
        return PredictError(str(error), "WrongNumberOfOutputs")
    return tell(error)


def _parts(again: list[int], error: BaseException, count: int) -> list[list[int]]:
    """Return which items to run together after an error in a batch of ``count``."""
    if isinstance(error, ItemError) and error.index in range(count):
        parts = [[i for i in again if i != error.index]]
    elif len(again) < count:
        parts = [again]  # those that may run only once are out, and may be to blame
    else:
        parts = [again[: count // 2], again[count // 2 :]]
    return [part for part in parts if part]


def encode(outputs: Sequence[object], codec: Codec = PLAIN) -> list[Outcome]:
    """Return the outcome of each output: its payload, or its error."""
    plain = [o for o in outputs if not isinstance(o, BaseException)]
    try:
        payloads = iter(codec.encode_all(plain, "outputs[{}]"))
    except Exception:  # noqa: BLE001  # an output may be of the user's classes, which may raise anything
        return [_encode_one(output, codec) for output in outputs]
    return [_error(o) if isinstance(o, BaseException) else next(payloads) for o in outputs]


def _encode_one(output: object, codec: Codec) -> Outcome:
    if isinstance(output, BaseException):
        return _error(output)
    try:
        return codec.encode_all((output,), "output")[0]
    except Exception as error:  # noqa: BLE001  # as above
        words = f"the model's output cannot be sent: {failure.message(error)}"
        return errors.to_wire(PredictError(words, "BadOutput"))


def _error(error: BaseException) -> list[object]:
    return errors.to_wire(failure.returned(error))
