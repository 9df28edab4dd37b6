"""What a user waits for: a call of many items, or a watch for a model to be ready."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy

from zstreamer import codec, errors
from zstreamer.errors import ZStreamerError
from zstreamer.tracing.context import CallTrace
from zstreamer.wire.protocol import Slot
from zstreamer.wire.transfer import Parts


class Watch:
    """Waits until a warm worker serves ``model``, or until ``deadline`` (monotonic seconds)."""

    def __init__(self, model: str, deadline: float, submitted: float) -> None:
        self.model = model
        self.deadline = deadline
        self.submitted = submitted
        self.error: ZStreamerError | None = None
        self.done = False
        self.token: object = None


class Call:
    """Items that were passed together and are answered together.

    Attributes:
        payloads: one for each item; emptied as answers come in.
        first: id of the first item; the others follow without a gap.
        sent: how many items have been sent at least once.
        sent_at: monotonic seconds at which the last of them was, where it had to wait for room.
        left: how many items have no outcome yet.
        decode: what makes a value of an output's payload.
        error: why the call as a whole failed; with `done` it is final.
        token: the driver's own, untouched here.
        trace: None where the call is not traced.
    """

    __slots__ = (
        "deadline",
        "decode",
        "done",
        "error",
        "first",
        "keep_errors",
        "lane",
        "left",
        "model",
        "once",
        "outcomes",
        "payloads",
        "priority",
        "sent",
        "sent_at",
        "submitted",
        "token",
        "trace",
    )

    def __init__(
        self,
        payloads: list[bytes],
        model: str,
        deadline: float,
        submitted: float,
        priority: int = 0,
        once: bool = False,
        keep_errors: bool = False,
        decode: Callable[[bytes | memoryview], object] = codec.decode,
    ) -> None:
        self.payloads = payloads
        self.model = model
        self.deadline = deadline
        self.submitted = submitted
        self.priority = priority
        self.once = once
        self.keep_errors = keep_errors
        self.decode = decode
        self.first = 0
        self.lane = 0
        self.sent = 0
        self.sent_at = 0.0
        self.left = len(payloads)
        self.outcomes: list[Slot | Parts] = [None] * len(payloads)
        self.error: ZStreamerError | None = None
        self.done = False
        self.token: object = None
        self.trace: CallTrace | None = None

    def put(self, index: int, outcome: Slot | Parts) -> None:
        """Keep the outcome of one item."""
        self.outcomes[index] = outcome
        self.payloads[index] = b""
        self.left -= 1

    def first_error(self) -> ZStreamerError | None:
        """Return the error of the lowest index that has one."""
        for index, outcome in enumerate(self.outcomes):
            if type(outcome) is list:
                return _error(outcome, index)
        return None

    def results(self) -> list[object]:
        """Return the decoded outputs, errors in their places where the caller wants them so.

        Raises:
            ZStreamerError: what the call failed with.
        """
        if self.error is not None:
            raise self.error
        return [self._result(index, outcome) for index, outcome in enumerate(self.outcomes)]

    def settled(self) -> list[object]:
        """Return an output or an error for each item, also where the call as a whole failed."""
        return [
            copy(self.error) if outcome is None else self._result(index, outcome)
            for index, outcome in enumerate(self.outcomes)
        ]

    def end_trace(self) -> None:
        """The call has ended: so has its span, if it has one."""
        if self.trace is not None:
            failed = sum(type(each) is list for each in self.outcomes)
            self.trace.end(self.error, failed)

    def size(self) -> int:
        """Return the bytes of the outputs."""
        outcomes = self.outcomes
        return sum(len(each) for each in outcomes if isinstance(each, bytes | memoryview | Parts))

    def _result(self, index: int, outcome: Slot | Parts) -> object:
        try:
            if type(outcome) is bytes:
                return self._decoded(outcome)
            if type(outcome) is list:
                raise _error(outcome, index)
            joined = outcome.join() if isinstance(outcome, Parts) else memoryview(outcome)  # type: ignore[arg-type]  # a frame
            return self._decoded(joined)
        except ZStreamerError as error:
            error.index = index
            if self.keep_errors:
                return error
            raise

    def _decoded(self, payload: bytes | memoryview) -> object:
        try:
            return self.decode(payload)
        except errors.BadRequest as error:  # it is not the request that is bad
            words = f"the model's output cannot be read: {error.message}"
            raise errors.PredictError(words, "BadOutput") from None


def _error(wire: list[object], index: int) -> ZStreamerError:
    error = errors.from_wire(wire)
    error.index = index
    return error
