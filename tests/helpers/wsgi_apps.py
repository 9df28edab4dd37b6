"""WSGI apps without models: bare, Flask and Django, which answer alike.

POST /echo      the body
GET  /pid       the process, and the one that imported this
GET  /scheme    http or https, and the client's certificate
GET  /stream    a body of unknown length
GET  /slow      after 0.3 s
GET  /block     after 30 s in which the process does nothing else
GET  /fail      raises
"""

import json
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import django.http
import flask
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.urls import re_path

IMPORTED_BY = os.getpid()
FILE = Path(__file__)


def answer(path: str, body: bytes, environ: dict[str, Any]) -> bytes | Iterator[bytes]:
    """What each app answers."""
    if path == "/echo":
        return body
    if path == "/pid":
        return json.dumps([os.getpid(), IMPORTED_BY]).encode()
    if path == "/scheme":
        peer = getattr(environ["gunicorn.socket"], "getpeercert", dict)() or {}
        return json.dumps([environ["wsgi.url_scheme"], peer.get("subject")]).encode()
    if path == "/environ":
        return json.dumps({k: v for k, v in environ.items() if isinstance(v, str | bool)}).encode()
    if path == "/stream":
        return (b"%d," % n for n in range(1000))
    if path == "/slow":
        time.sleep(0.3)
        return b"slow"
    if path == "/block":
        import gevent.monkey

        gevent.monkey.get_original("time", "sleep")(30)
    raise ValueError(path)


def bare(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    found = answer(environ["PATH_INFO"], environ["wsgi.input"].read(), environ)
    start_response("200 OK", [("X-App", "bare")])
    return [found] if isinstance(found, bytes) else found


in_flask = flask.Flask(__name__)


@in_flask.route("/<path>", methods=["GET", "POST"])
def view(path: str) -> flask.Response:
    found = answer(f"/{path}", flask.request.get_data(), flask.request.environ)
    return flask.Response(found, headers={"X-App": "flask"})


settings.configure(
    ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"], SECRET_KEY="tests", LOGGING_CONFIG=None
)


def django_view(request: django.http.HttpRequest, path: str) -> django.http.HttpResponseBase:
    if path == "file":
        return django.http.FileResponse(FILE.open("rb"))
    found = answer(f"/{path}", request.body, request.META)
    if isinstance(found, bytes):
        return django.http.HttpResponse(found, headers={"X-App": "django"})
    return django.http.StreamingHttpResponse(found, headers={"X-App": "django"})


urlpatterns = [re_path(r"^(.*)$", django_view)]
in_django = get_wsgi_application()
