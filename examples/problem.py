"""Says with which HTTP status a web server passes on an error of zstreamer."""

from __future__ import annotations

from zstreamer import errors

STATUS: dict[type[errors.ZStreamerError], int] = {
    errors.BadRequest: 400,
    errors.TooLarge: 413,
    errors.Overloaded: 429,
    errors.DeadlineExceeded: 504,
}


def problem(error: errors.ZStreamerError) -> tuple[dict[str, str], int, dict[str, str]]:
    """Return body, status and headers for an error.

    What the sender can mend is a 4xx; a model that failed is a 500, and a cluster that cannot be
    reached or has no worker a 503. A sentence that the model refuses is the sender's to mend too.
    """
    status = STATUS.get(type(error), 503)
    if isinstance(error, errors.PredictError):
        status = 400 if error.type in ("ValueError", "TypeError") else 500
    headers = {}
    if isinstance(error, errors.Overloaded):
        headers["Retry-After"] = str(max(1, round(error.retry_after)))
    return {"error": type(error).__name__, "message": error.message}, status, headers
