"""Reads the sentences of a Flask request, however they were sent."""

from __future__ import annotations

from collections.abc import Sequence

from flask import abort, request


def sentences() -> list[str]:
    """Return every ``s`` of the request, in order.

    They may come as form fields, as query parameters or as JSON: ``{"s": "one"}`` or
    ``{"s": ["one", "two"]}``.

    Raises:
        werkzeug.exceptions.BadRequest: there is none, or the JSON is not of that form.
    """
    # A form is read first and alone: request.values would build a second mapping of every request.
    found: Sequence[object] = request.form.getlist("s") or request.args.getlist("s")
    if not found and request.is_json:
        body = request.get_json()
        value = body.get("s") if isinstance(body, dict) else None
        found = value if isinstance(value, list) else [value]
    texts = [sentence for sentence in found if isinstance(sentence, str)]
    if not texts or len(texts) < len(found):
        abort(400, 'send a sentence with a [MASK] as "s": a form field, a query or JSON')
    return texts
