"""Django in front of a cluster: a project in one file, with a view for WSGI and one for ASGI.

    zstreamer broker
    zstreamer worker examples.bert_model:ManagedBertModel --num 2
    gunicorn -k zstreamer.web.gunicorn.Worker -w 4 examples.django_example:application
    curl -d "s=Happy birthday to [MASK]." http://127.0.0.1:8000/stream      # ["you"]

    uvicorn examples.django_example:asgi_application
    curl -d "s=Happy birthday to [MASK]." http://127.0.0.1:8000/async       # ["you"]

Under gunicorn each request is a greenlet, so `/stream` is a plain view. The view at `/async` is for
an ASGI server: under WSGI Django would make an event loop, and so a connection, for each request.

``ZSTREAMER_BROKER`` says where the broker is (tcp://127.0.0.1:7787) and ``ZSTREAMER_MODEL`` which
of its models to ask (default). This file loads no torch.
"""

from __future__ import annotations

import os
import secrets

from django.conf import settings
from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponseBase, JsonResponse
from django.urls import path
from django.utils.deprecation import MiddlewareMixin
from django.views.decorators.http import require_POST

from examples.problem import problem
from zstreamer import Client, aio, errors

if not settings.configured:
    settings.configure(
        ALLOWED_HOSTS=["127.0.0.1", "localhost"],
        MIDDLEWARE=[f"{__name__}.ErrorMiddleware"],
        ROOT_URLCONF=__name__,
        SECRET_KEY=secrets.token_hex(),  # signs nothing here; a project of yours keeps its own
    )

BROKER = os.environ.get("ZSTREAMER_BROKER", "tcp://127.0.0.1:7787")
MODEL = os.environ.get("ZSTREAMER_MODEL", "default")

# They connect at the first call of each process, so they may be made here, before any fork.
client = Client(BROKER, model=MODEL)
aio_client = aio.Client(BROKER, model=MODEL)


def stream(request: HttpRequest) -> HttpResponseBase:
    """Answer in a batch with the other callers."""
    return JsonResponse(client.predict(request.POST.getlist("s")), safe=False)


async def stream_async(request: HttpRequest) -> HttpResponseBase:
    """Answer the same way in an event loop."""
    return JsonResponse(await aio_client.predict(request.POST.getlist("s")), safe=False)


class ErrorMiddleware(MiddlewareMixin):  # type: ignore[misc]  # Django has no types
    """Answers an error of zstreamer with its status: 429 and when to try again, 504 …"""

    def process_exception(
        self,
        request: HttpRequest,  # noqa: ARG002  # Django's signature
        exception: Exception,
    ) -> HttpResponseBase | None:
        """Return the answer, or None for Django's own."""
        if not isinstance(exception, errors.ZStreamerError):
            return None
        body, status, headers = problem(exception)
        response = JsonResponse(body, status=status)
        for name, value in headers.items():
            response[name] = value
        return response


urlpatterns = [
    path("stream", require_POST(stream)),
    path("async", require_POST(stream_async)),
]
application = get_wsgi_application()
asgi_application = get_asgi_application()
