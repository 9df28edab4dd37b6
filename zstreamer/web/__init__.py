"""HTTP doors to a cluster: a WSGI app, an ASGI and RSGI app, and the gateway that serves them.

    server ── Request ──> interface ── Predict ──> client ── outputs, or an error ──┐
    server <──────────────────────────── Response <──────────────────── interface <─┘

What a request means and how an outcome is written (`interface`) knows no server and no client;
the doors (`wsgi`, `asgi`, `rsgi`) carry requests to it and its questions to a client.
"""
