"""Which HTTP status an error has and how it is written: the one place that decides it.

Errors leave as problem documents of RFC 9457. Each also has an ``error`` member with the words,
since clients of TensorFlow Serving, KServe and Triton look for them there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from zstreamer import errors
from zstreamer.errors import ZStreamerError
from zstreamer.web.api import rate_limit
from zstreamer.web.api.json import dumps
from zstreamer.web.api.steps import Header, Response

CONTENT_TYPE = "application/problem+json"

URN = "urn:zstreamer:problem:"
"""What each problem's ``type`` begins with; what follows does not change between releases."""


class Refused(Exception):
    """What is wrong with a request as HTTP sees it, before any model is concerned.

    Args:
        status: 400 …
        detail: what is wrong, and how to fix it.
        headers: to go with the response, such as Allow.
    """

    def __init__(self, status: int, detail: str = "", headers: Sequence[Header] = ()) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail or _refusal(status).title
        self.headers = headers


class Problem(NamedTuple):
    """What all errors of one class have in common."""

    status: int
    name: str
    title: str


KINDS: dict[type[Exception], Problem] = {
    errors.BadRequest: Problem(400, "bad-request", "The request cannot be understood"),
    errors.ModelNotFound: Problem(404, "model-not-found", "No such model"),
    errors.TooLarge: Problem(413, "too-large", "An item or an answer is too large"),
    errors.Overloaded: Problem(429, "overloaded", "Too much work is queued to answer in time"),
    errors.Cancelled: Problem(499, "cancelled", "The call was cancelled"),
    errors.PredictError: Problem(500, "predict-failed", "The model failed on an item"),
    errors.WorkerLost: Problem(502, "worker-lost", "The worker died with an item"),
    # The operator of this server must fix both; its callers cannot.
    errors.Unauthorized: Problem(502, "unauthorized", "The broker refuses this gateway"),
    errors.VersionMismatch: Problem(502, "version-mismatch", "Gateway and broker do not match"),
    errors.NoWorker: Problem(503, "no-worker", "No worker is ready for the model"),
    errors.BrokerUnreachable: Problem(503, "broker-unreachable", "No broker can be reached"),
    errors.DeadlineExceeded: Problem(504, "deadline-exceeded", "The answer did not come in time"),
}

UNEXPECTED = Problem(500, "internal", "Internal error")

REFUSALS = {
    each.status: each
    for each in (
        KINDS[errors.BadRequest],
        Problem(401, "unauthenticated", "A valid key is needed"),
        Problem(403, "forbidden", "The key does not allow this"),
        Problem(404, "not-found", "No such page"),
        Problem(405, "method-not-allowed", "Method not allowed"),
        Problem(406, "not-acceptable", "The requested format of answers is not supported"),
        Problem(408, "request-timeout", "The request did not come in time"),
        Problem(411, "length-required", "The request does not say how long its body is"),
        Problem(413, "too-large", "The request is too large"),
        Problem(415, "unsupported-media-type", "This type of body is not supported"),
        Problem(431, "headers-too-large", "The request's headers are too large"),
        Problem(499, "cancelled", "The caller disconnected"),
        UNEXPECTED,
        Problem(501, "not-implemented", "Not supported"),
        Problem(503, "unavailable", "Temporarily unavailable"),
        Problem(505, "http-version-not-supported", "HTTP version not supported"),
    )
}
"""What a `Refused` of each status is called."""


def document(error: Exception) -> dict[str, object]:
    """Return the problem document of an error, as plain values. Tracebacks stay out of it.

    Args:
        error: a `ZStreamerError` or a `Refused`; of any other only that there was one is told,
            since its words were not meant for strangers.
    """
    kind = _kind(error)
    detail = _writable(_detail(error))
    found: dict[str, object] = {
        "type": URN + kind.name,
        "title": kind.title,
        "status": kind.status,
        "detail": detail,
        "error": detail,
        "retryable": getattr(error, "retryable", False) is True,
    }
    if isinstance(error, ZStreamerError):
        found.update(_members(error))
    return found


def response(error: Exception) -> Response:
    """Return the response to a request that failed with this error; see `document`."""
    headers = [("content-type", CONTENT_TYPE)]
    if isinstance(error, Refused):
        headers += error.headers
    if (seconds := _retry_after(error)) is not None:
        headers.append(("retry-after", str(seconds)))
        if isinstance(error, errors.Overloaded) and error.rate is not None:
            headers += rate_limit.headers(error.rate, seconds)
    return Response(_kind(error).status, dumps(document(error)), headers)


def _kind(error: Exception) -> Problem:
    if isinstance(error, Refused):
        return _refusal(error.status)
    # The user's own classes are of the kind of what they are derived from.
    return next((KINDS[cls] for cls in type(error).__mro__ if cls in KINDS), UNEXPECTED)


def _refusal(status: int) -> Problem:
    return REFUSALS.get(status, Problem(status, "refused", f"Refused with status {status}"))


def _detail(error: Exception) -> str:
    if isinstance(error, Refused):
        return error.detail
    if isinstance(error, errors.PredictError):
        return f"{error.type}: {error.message}"
    if isinstance(error, ZStreamerError):
        return without_traceback(error.message) or type(error).__name__
    return "internal error; see the server's log"


def _writable(text: str) -> str:
    """A text without lone surrogates: what came in a request may be in an error's words."""
    return text if text.isascii() else text.encode(errors="replace").decode()


def _members(error: ZStreamerError) -> dict[str, object]:
    found: dict[str, object] = {} if error.index is None else {"index": error.index}
    if isinstance(error, errors.ModelNotFound):
        found["models"] = [_writable(each) for each in error.models]
    elif isinstance(error, errors.Overloaded):
        found["retry_after"] = error.retry_after
    elif isinstance(error, errors.PredictError):
        found["exception"] = _writable(error.type)
    elif isinstance(error, errors.NoWorker):
        found["retryable"] = not error.final
    return found


def _retry_after(error: Exception) -> int | None:
    """Whole seconds, as the header wants them; a second is the least that it can say."""
    if isinstance(error, errors.Overloaded):
        seconds = error.retry_after
        if not math.isfinite(seconds):
            return 3600
        # What is predicted is not true for hours; when a rate lets in again is known.
        return min(3600 if error.rate is None else 2**31, max(1, math.ceil(seconds)))
    if isinstance(error, errors.NoWorker) and error.final:
        return 30  # a person has to do something first
    return 1 if _kind(error).status == 503 else None


_TRACEBACK = "Traceback (most recent call last):"


def without_traceback(text: str) -> str:
    """Return the words without the tracebacks in them, of which the last line alone is kept."""
    before, found, rest = text.partition(_TRACEBACK)
    if not found:
        return text
    # What is indented, or is between two of them, is frames; the last exception says the most.
    frames = rest.rpartition(_TRACEBACK)[2].splitlines()
    said = next((line for line in frames if line and not line[0].isspace()), "")
    return before + said
