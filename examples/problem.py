"""How a web server passes on an error of zstreamer: as a problem document (RFC 9457)."""

from __future__ import annotations

from zstreamer import errors
from zstreamer.web.api import problem as problems


def problem(error: errors.ZStreamerError) -> tuple[dict[str, object], int, dict[str, str]]:
    """Return body, status and headers for an error; Flask takes them as they are.

    The status is the library's, but for one: a sentence that the model refuses is the sender's to
    fix, and so a 400.
    """
    body, response = problems.document(error), problems.response(error)
    status = response.status
    if isinstance(error, errors.PredictError) and error.type in ("ValueError", "TypeError"):
        status = body["status"] = 400
    return body, status, dict(response.headers)
