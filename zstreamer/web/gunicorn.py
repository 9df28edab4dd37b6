"""A gunicorn worker class for apps that call models, and settings to start from.

    gunicorn -k zstreamer.web.gunicorn.Worker app:app
    gunicorn -c python:zstreamer.web.gunicorn app:app               # the settings below, too
    gunicorn -c python:zstreamer.web.gunicorn --preload -w 8 app:app

A configuration of one's own begins with ``from zstreamer.web.gunicorn import *``. ``BIND`` and
``WEB_CONCURRENCY`` (processes; one for each core where it is not set) come from the environment.
``--preload``, which imports the app once and then forks, is safe: a client connects at the first
call of each process.
"""

from __future__ import annotations

import os
from typing import Any

from zstreamer.system import cpus
from zstreamer.web.cancel_on_disconnect import CancelOnDisconnect
from zstreamer.web.gunicorn_worker import Worker as Worker  # noqa: PLC0414  # public from here

bind = os.environ.get("BIND", "127.0.0.1:8000")
workers = int(os.environ.get("WEB_CONCURRENCY") or cpus.share(1))
worker_class = "zstreamer.web.gunicorn.Worker"
worker_connections = 2048
"""Connections that a process has open at once; a greenlet that waits for a model costs little."""

keepalive = 5
"""Seconds in which the next request on a connection must come. Behind a proxy more than it keeps
idle connections."""

graceful_timeout = 30
"""Seconds that open requests have when a process is told to stop."""


def post_worker_init(worker: Any) -> None:
    """End calls whose callers hang up, if gunicorn's own gevent worker serves."""
    if not isinstance(worker, Worker):
        worker.wsgi = CancelOnDisconnect(worker.wsgi)
