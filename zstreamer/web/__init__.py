"""HTTP for a cluster: apps for WSGI and ASGI servers, and the gateway, a server of its own.

    server ── Request ──> api ── Predict ──> client ── outputs, or an error ──┐
    server <─────────────────────── Response <────────────────── api <────────┘

    api/       what a request means and how an outcome is written; knows no server and no client
    http/      bytes of a connection to requests, responses to bytes
    gateway/   processes that serve one port: a parent, and children with `http` and `api`

`wsgi` and `asgi` are the apps. `flask` and `gunicorn`, a worker class, serve apps of others.
`backend` and `directory` are the cluster as the apps see it: predictions, and which models there
are.
"""
