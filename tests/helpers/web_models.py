"""The models of a cluster over WSGI, made when the module is imported; served by tests.

As a program it is served by `zstreamer.web.http.pywsgi`:

    python -m tests.helpers.web_models PORT BOUNDS
"""

if __name__ == "__main__":
    from gevent import monkey

    monkey.patch_all()

import json
import sys

from zstreamer.web import wsgi

app = wsgi.App()

if __name__ == "__main__":
    from zstreamer.web.http import pywsgi

    pywsgi.serve(app, port=int(sys.argv[1]), bounds=pywsgi.Bounds(**json.loads(sys.argv[2])))
