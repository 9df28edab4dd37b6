"""gunicorn's settings for `flask_cluster`: several processes, each with many greenlets.

    gunicorn -c examples/gunicorn_cluster.py examples.flask_cluster:app
    gunicorn -c examples/gunicorn_cluster.py --preload examples.flask_cluster:app

``BIND`` (127.0.0.1:8000) and ``WORKERS`` (4) come from the environment. ``--preload``, which loads
the app once and then forks, is safe: a client connects at the first call of each process.
"""

from __future__ import annotations

import os

bind = os.environ.get("BIND", "127.0.0.1:8000")
workers = int(os.environ.get("WORKERS", "4"))
worker_class = "gevent"
worker_connections = 1000
