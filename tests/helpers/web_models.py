"""The models of a cluster over WSGI, made when the module is imported; served by tests."""

from zstreamer.web import wsgi
from zstreamer.web.gunicorn import Worker

app = wsgi.App()


class ImpatientWorker(Worker):
    """Leaves a client soon that does not read."""

    write_timeout = 1.0
