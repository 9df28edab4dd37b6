"""gunicorn's settings for an app that calls models: many greenlets in several processes.

    gunicorn -c python:zstreamer.web.gunicorn app:app
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

bind = os.environ.get("BIND", "127.0.0.1:8000")
workers = int(os.environ.get("WEB_CONCURRENCY") or cpus.share(1))
worker_class = "gevent"
worker_connections = 2048
"""Requests that a process has open at once; a greenlet that waits for a model costs it little."""

keepalive = 5
"""Seconds in which the next request on a connection must come, its headers whole. Behind a proxy
more than it keeps idle connections; but a process that is told to stop waits as long for those."""

graceful_timeout = 30
"""Seconds that open requests have when a process is told to stop."""


def post_worker_init(worker: Any) -> None:
    """Have calls end whose callers hang up."""
    worker.wsgi = CancelOnDisconnect(worker.wsgi)
