"""The page for people, which models are served and a box to try them; and the OpenAPI document."""

from __future__ import annotations

import base64
import hashlib
from functools import lru_cache
from pathlib import Path

import orjson

import zstreamer
from zstreamer.web.api.bodies import JSON
from zstreamer.web.api.json import dumps
from zstreamer.web.api.steps import Response


@lru_cache
def response() -> Response:
    """Return the page, which loads nothing from anywhere else."""
    body = Path(__file__).with_name("page.html").read_bytes()
    # No script may run but the page's own, whatever a model's name or answer looks like.
    policy = (
        f"default-src 'none'; script-src {_hash(body, b'script')}; "
        f"style-src {_hash(body, b'style')}; img-src data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    headers = [
        ("content-type", "text/html; charset=utf-8"),
        ("content-security-policy", policy),
        ("x-content-type-options", "nosniff"),
    ]
    return Response(200, body, headers)


@lru_cache
def openapi() -> Response:
    """Return the OpenAPI 3.1 document of the interface, with this release's version."""
    document = orjson.loads(Path(__file__).with_name("openapi.json").read_bytes())
    document["info"]["version"] = zstreamer.__version__
    return Response(200, dumps(document), [("content-type", JSON)])


def _hash(body: bytes, tag: bytes) -> str:
    text = body.partition(b"<" + tag + b">")[2].partition(b"</" + tag + b">")[0]
    return f"'sha256-{base64.b64encode(hashlib.sha256(text).digest()).decode()}'"
