"""gunicorn's settings for `flask_cluster`: the library's, and how many processes there are.

    gunicorn -c examples/gunicorn_cluster.py examples.flask_cluster:app
    gunicorn -c examples/gunicorn_cluster.py --preload examples.flask_cluster:app

``BIND`` (127.0.0.1:8000) and ``WORKERS`` (4) come from the environment. ``--preload``, which loads
the app once and then forks, is safe: a client connects at the first call of each process.
"""

from __future__ import annotations

import os

from zstreamer.web.gunicorn import *  # noqa: F403  # gunicorn looks for settings by name

workers = int(os.environ.get("WORKERS", "4"))
