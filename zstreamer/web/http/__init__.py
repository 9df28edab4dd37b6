"""HTTP/1.1: bytes of a connection to requests, responses to bytes.

    bytes ─> receiver ─> headers ─> Request ─> connection (asyncio) or green (gevent) ─> interface
    bytes <─ response_head <────── Response <─ connection (asyncio) or green (gevent) <─ interface

`service` is what all connections of a gateway's process share; `pywsgi` is a gevent server for any
WSGI app, with `environ` for what the app is called with and `wsgi_response` for what it answers.
"""
