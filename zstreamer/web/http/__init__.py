"""HTTP/1.1: bytes of a connection to requests, responses to bytes.

    bytes ─> receiver ─> connection ─> driver ─> interface, or environ ─> a WSGI app
    bytes <─ response_head <────────── driver <─ Response,  or wsgi_response <─┘

`connection` is the protocol without a socket, `shared` what all connections of a process share:
clock, bounds, bytes held. Two drivers move the bytes: `asyncio_driver` for the gateway's children,
`gevent_driver` for `zstreamer.web.gunicorn.Worker`.
"""
