"""Runs one batch on a model so that a bad item harms only itself.

predict raises ──> run each half again ──> … until the bad item stands alone
an ItemError   ──> run the others again, together
out of memory  ──> run each half again, and remember the smaller size for a while
an exception in an item's place ──> that item's error; nothing runs again
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from zstreamer import codec, errors, failure
from zstreamer.errors import PredictError
from zstreamer.model import ItemError, PredictFunction
from zstreamer.worker.pipe import Outcome

PROBE_AFTER = 50
"""Batches at the smaller size before one item more is tried after running out of memory."""


class Runner:
    """A model's predict with the rules above.

    Attributes:
        limit: items that fitted into memory the last time; None while memory never ran out.
    """

    def __init__(self, predict: PredictFunction) -> None:
        self._predict = predict
        self.limit: int | None = None
        self._batches_at_limit = 0
        self.clean = True

    def run(self, items: Sequence[object], once: Sequence[bool]) -> list[object]:
        """Return an output for each item, or a `PredictError` in its place.

        Args:
            items: the inputs, decoded.
            once: for each, whether it may run only once; where its batch fails it gets
                that failure as its own, since it may not be run again.

        After it returns, `clean` says whether predict ran exactly once and succeeded.
        """
        self.clean = bool(items)
        if not items:  # all were given up between the plan and the claim
            return []
        size = self.limit or len(items)
        if size >= len(items):
            outputs = self._attempt(list(items), list(once))
        else:
            self.clean = False
            outputs = []
            for start in range(0, len(items), size):
                end = start + size
                outputs += self._attempt(list(items[start:end]), list(once[start:end]))
        self._probe_upward()
        return outputs

    def _attempt(self, items: list[object], once: list[bool]) -> list[object]:
        try:
            outputs = self._predict(list(items))
            return _check(outputs, len(items))
        except KeyboardInterrupt:
            raise
        except _WrongCount as error:
            self.clean = False
            return [error.as_predict_error()] * len(items)
        except BaseException as error:  # noqa: BLE001  # also SystemExit: a model must not end its worker
            self.clean = False
            raised = error
        # Outside the handler, or each half's error would carry its whole's as its context.
        return self._split(raised, items, once)

    def _split(self, error: BaseException, items: list[object], once: list[bool]) -> list[object]:
        failed = failure.raised(error)
        if len(items) == 1:
            return [failed]
        if _out_of_memory(error):
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

    def _probe_upward(self) -> None:
        if self.limit is None:
            return
        self._batches_at_limit += 1
        if self._batches_at_limit >= PROBE_AFTER:
            self.limit += 1
            self._batches_at_limit = 0


def _parts(again: list[int], error: BaseException, count: int) -> list[list[int]]:
    """Return which items to run together after an error in a batch of ``count``."""
    if isinstance(error, ItemError) and error.index in range(count):
        parts = [[i for i in again if i != error.index]]
    elif len(again) < count:
        parts = [again]  # those that may run only once are out, and may be to blame
    else:
        parts = [again[: count // 2], again[count // 2 :]]
    return [part for part in parts if part]


def encode(outputs: Sequence[object]) -> list[Outcome]:
    """Return the outcome of each output: its payload, or its error."""
    plain = [o for o in outputs if not isinstance(o, BaseException)]
    try:
        payloads = iter(codec.encode_all(plain))
    except Exception:  # noqa: BLE001  # an output may be of the user's classes, which may raise anything
        return [_encode_one(output) for output in outputs]
    return [_error(o) if isinstance(o, BaseException) else next(payloads) for o in outputs]


def _encode_one(output: object) -> Outcome:
    if isinstance(output, BaseException):
        return _error(output)
    try:
        return codec.encode(output)
    except Exception as error:  # noqa: BLE001  # as above
        reason = failure.message(error).replace("items[0]", "it")
        words = f"the model's output cannot be sent: {reason}"
        return errors.to_wire(PredictError(words, "BadOutput"))


def _error(error: BaseException) -> list[object]:
    return errors.to_wire(failure.returned(error))


class _WrongCount(Exception):
    def as_predict_error(self) -> PredictError:
        return PredictError(str(self), "WrongNumberOfOutputs")


def _check(outputs: object, count: int) -> list[object]:
    try:
        if isinstance(outputs, str | bytes | dict):
            raise TypeError
        listed: list[object] = list(outputs)  # type: ignore[call-overload]  # it may well fail
    except TypeError:
        raise _WrongCount(
            f"predict returned {type(outputs).__name__}, not a list with one output for each input"
        ) from None
    if len(listed) != count:
        raise _WrongCount(
            f"predict returned {len(listed)} outputs for {count} inputs; "
            "it must return one for each, in order"
        )
    return listed


def _out_of_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError):
        return True
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(error, torch.cuda.OutOfMemoryError)
