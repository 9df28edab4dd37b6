"""Every error a caller can meet, and what to do about each.

    caller ── encode ──> broker ── queue ──> worker ── predict ──> answer
       BadRequest          Unauthorized        NoWorker  PredictError
       TooLarge            VersionMismatch     WorkerLost
       BrokerUnreachable   ModelNotFound
                           Overloaded
       DeadlineExceeded and Cancelled can come from any of them.

Each class has exactly one wire code (``code``), so an error crosses a process border without
losing its type, and says in ``retryable`` whether the same call may succeed when made again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from enum import IntEnum
from typing import ClassVar, NamedTuple


class Code(IntEnum):
    """Wire codes, one for each class below; chosen to read like HTTP statuses."""

    BAD_REQUEST = 400
    UNAUTHORIZED = 401
    MODEL_NOT_FOUND = 404
    TOO_LARGE = 413
    OVERLOADED = 429
    CANCELLED = 499
    PREDICT_FAILED = 500
    WORKER_LOST = 502
    NO_WORKER = 503
    DEADLINE_EXCEEDED = 504
    VERSION_MISMATCH = 505
    BROKER_UNREACHABLE = 521


class ZStreamerError(Exception):
    """Root of the tree. Catch it to catch everything that zstreamer raises on purpose.

    Attributes:
        index: position in the call's items of the item that failed, or None where the
            error concerns the whole call.
    """

    code: ClassVar[Code]
    retryable: ClassVar[bool] = False
    index: int | None = None

    def __init__(self, message: str = "") -> None:
        super().__init__(message)
        self.message = message

    @property
    def kind(self) -> str:
        """What metrics and logs call it, such as ``overloaded``."""
        code: Code | None = getattr(self, "code", None)  # none where a later broker has made it up
        return "error" if code is None else code.name.lower()

    def details(self) -> dict[str, object]:
        """What travels beside code and message; plain values only."""
        return {}


class FatalError(Exception):
    """Raise it in a model to say that its process is broken, for example by a lost device.

    A worker then ends that process and starts a new one, as after a crash: the batch's items run
    again there, those of a batch that fails so again in halves, and the one that ends the process
    twice alone gets `WorkerLost`. CUDA errors that break the device's context count as this one.
    No caller ever gets it.
    """


class BadRequest(ZStreamerError, ValueError):
    """The input cannot be sent, or the model refuses it. Change it; trying again cannot help.

    Raise it in a model's `prepare` or `predict`, or return it in an item's place, to refuse an
    input: its caller gets it, and over HTTP the status 400.
    """

    code = Code.BAD_REQUEST


class Unauthorized(ZStreamerError):
    """The broker does not know this key. Check ``keys``; trying again cannot help.

    Also where the broker is not the one that the key's file expects, or one of the two has no keys.
    """

    code = Code.UNAUTHORIZED


class ModelNotFound(ZStreamerError):
    """No worker serves a model of this name. Check the name, or start a worker for it.

    Attributes:
        models: the names that are served.
    """

    code = Code.MODEL_NOT_FOUND

    def __init__(self, message: str = "", models: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.models = tuple(models)

    def details(self) -> dict[str, object]:
        """As in the base class."""
        return {"models": list(self.models)}


class TooLarge(ZStreamerError, ValueError):
    """An item or an answer exceeds the size limit. Send less, or raise ``max_payload``.

    A model may raise or return it as it may `BadRequest`; over HTTP the status is 413.
    """

    code = Code.TOO_LARGE


class Rate(NamedTuple):
    """What a tenant may send on average.

    Attributes:
        per_second: how many.
        unit: of what: ``items``, or ``bytes`` of payload.
    """

    per_second: float
    unit: str


class Overloaded(ZStreamerError):
    """Too much work is queued to answer in time. Try again after ``retry_after`` seconds.

    Attributes:
        retry_after: seconds until trying again makes sense.
        rate: the tenant's rate that was used up; None where it was something else.
    """

    code = Code.OVERLOADED
    retryable = True

    def __init__(
        self, message: str = "", retry_after: float = 1.0, rate: Rate | None = None
    ) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.rate = rate

    def details(self) -> dict[str, object]:
        """As in the base class."""
        found: dict[str, object] = {"retry_after": self.retry_after}
        if self.rate is not None:
            found["rate"], found["unit"] = self.rate
        return found


class Cancelled(ZStreamerError):
    """The call was cancelled, by its caller or by a client that was closed."""

    code = Code.CANCELLED


class PredictError(ZStreamerError):
    """The model failed on this item. Its batch mates are not affected.

    Attributes:
        type: name of the exception class that the model raised.
        traceback: the remote traceback as text, empty where the model returned the
            exception in the item's place.
    """

    code = Code.PREDICT_FAILED

    def __init__(self, message: str = "", type: str = "Exception", traceback: str = "") -> None:
        super().__init__(message)
        self.type = type
        self.traceback = traceback

    def __str__(self) -> str:
        text = f"{self.type}: {self.message}"
        return f"{text}\n\nremote {self.traceback}" if self.traceback else text

    def details(self) -> dict[str, object]:
        """As in the base class."""
        return {"type": self.type, "traceback": self.traceback}


class WorkerLost(ZStreamerError):
    """The worker died with this item and it may not run again. Try again if twice is harmless."""

    code = Code.WORKER_LOST


class NoWorker(ZStreamerError):
    """No worker for the model was ready within the budget. Look at the workers' logs; retry.

    Attributes:
        final: none will be, until a person starts one: all failed to start and gave up.
    """

    code = Code.NO_WORKER
    retryable = True

    def __init__(self, message: str = "", final: bool = False) -> None:
        super().__init__(message)
        self.final = final

    def details(self) -> dict[str, object]:
        """As in the base class."""
        return {"final": self.final}


class DeadlineExceeded(ZStreamerError, TimeoutError):
    """The budget ended before the answer came. Give more time, or add workers."""

    code = Code.DEADLINE_EXCEEDED
    retryable = True


class VersionMismatch(ZStreamerError):
    """The two ends speak different protocol versions. Install the same release on both."""

    code = Code.VERSION_MISMATCH


class BrokerUnreachable(ZStreamerError, ConnectionError):
    """No broker answered at the address. Check the address, and that the broker runs."""

    code = Code.BROKER_UNREACHABLE
    retryable = True


CLASSES: Mapping[int, type[ZStreamerError]] = {
    cls.code: cls
    for cls in (
        BadRequest,
        Unauthorized,
        ModelNotFound,
        TooLarge,
        Overloaded,
        Cancelled,
        PredictError,
        WorkerLost,
        NoWorker,
        DeadlineExceeded,
        VersionMismatch,
        BrokerUnreachable,
    )
}


MAX_TEXT = 18 * 1024
MAX_DETAIL = 36 * 1024
"""Characters of an error's text, and of one of its details such as a traceback; what a model
raises is cut to a little less."""

MAX_DETAILS = 16
MAX_LISTED = 1000
"""Details of one error, and elements of one that is an array."""

_MAX_WORD = 255
"""Characters of a detail's name, and of each text in an array."""


def shortened(text: str, most: int = MAX_TEXT) -> str:
    """Return a text of at most ``most`` characters: its begin and its end, which say the most."""
    if len(text) <= most:
        return text
    half = max(0, most - 3) // 2
    return f"{text[:half]}…{text[len(text) - half :]}"


def to_wire(error: ZStreamerError) -> list[object]:
    """Return ``[code, message, details]``, the form of an error in a message."""
    return bounded([int(error.code), error.message, error.details()])


def bounded(wire: list[object]) -> list[object]:
    """Return an error's form with short texts and flat details, whatever it held before.

    Others keep it, pass it on and pack it, without having to ask how large or how deep it is.
    """
    code, text, details = wire
    message = shortened(text) if isinstance(text, str) else ""
    known = details if isinstance(details, dict) else {}
    return [code, message, _flat(known) if known else {}]


def _flat(details: Mapping[object, object]) -> dict[str, object]:
    flat: dict[str, object] = {}
    for name, value in details.items():
        if len(flat) == MAX_DETAILS:
            break
        if not isinstance(name, str) or len(name) > _MAX_WORD:
            continue
        if isinstance(value, str):
            flat[name] = shortened(value, MAX_DETAIL)
        elif isinstance(value, list | tuple):
            flat[name] = [_word(each) for each in value[:MAX_LISTED] if _is_plain(each)]
        elif _is_plain(value):
            flat[name] = value
    return flat


def _word(value: object) -> object:
    return shortened(value, _MAX_WORD) if isinstance(value, str) else value


def _is_plain(value: object) -> bool:
    """Whether msgpack and JSON can both hold it as it is."""
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, int):
        return -(2**63) <= value < 2**64
    return value is None or isinstance(value, str)


def refusal(error: ZStreamerError) -> list[object]:
    """Return the form of an error which says that a broker did not take the item: it has not run,
    and another broker may take it.
    """
    code, message, details = to_wire(error)
    return [code, message, {**details, _ADMITTED: False}]  # type: ignore[dict-item]  # a dict


def is_refusal(wire: Sequence[object]) -> bool:
    """Whether `refusal` wrote this."""
    details = wire[2] if len(wire) == 3 else None
    return isinstance(details, dict) and details.get(_ADMITTED) is False


_ADMITTED = "admitted"


def _rate(details: Mapping[object, object]) -> Rate | None:
    rate, unit = details.get("rate"), details.get("unit")
    if unit not in ("items", "bytes") or not isinstance(rate, int | float) or not 0 < rate < 1e15:
        return None
    return Rate(float(rate), str(unit))


def from_wire(wire: Sequence[object]) -> ZStreamerError:
    """Rebuild the error that `to_wire` wrote.

    Unknown codes (a newer peer) become a plain `ZStreamerError` with the number in its text;
    unknown or ill-typed details are left out, so that no peer can crash its reader.
    """
    code, message, details = (*wire, *(None, "", {})[len(wire) :])[:3]
    text = message if isinstance(message, str) else repr(message)
    cls = CLASSES.get(code) if isinstance(code, int) else None
    if cls is None:
        return ZStreamerError(f"unknown error {code!r}: {text}")
    known = details if isinstance(details, dict) else {}
    if cls is Overloaded:
        retry_after = known.get("retry_after", 1.0)
        seconds = float(retry_after) if isinstance(retry_after, int | float) else 1.0
        return Overloaded(text, seconds, _rate(known))
    if cls is NoWorker:
        return NoWorker(text, known.get("final") is True)
    if cls is PredictError:
        return PredictError(
            text, str(known.get("type", "Exception")), str(known.get("traceback", ""))
        )
    if cls is ModelNotFound:
        models = known.get("models", ())
        return ModelNotFound(text, [str(m) for m in models] if isinstance(models, list) else ())
    return cls(text)
