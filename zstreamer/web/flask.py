"""Errors of zstreamer as responses of a Flask app.

app.register_error_handler(ZStreamerError, problem)
"""

from __future__ import annotations

from zstreamer.errors import ZStreamerError
from zstreamer.web.api import problem as problems
from zstreamer.web.api.steps import Header


def problem(error: ZStreamerError) -> tuple[bytes, int, list[Header]]:
    """Return body, status and headers of the problem document (RFC 9457) that tells of an error.

    Overload is a 429 with Retry-After, a missed deadline a 504, and so on.
    """
    response = problems.response(error)
    return response.body, response.status, response.headers
