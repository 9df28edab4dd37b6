"""A collector of spans: what exporters send it over OTLP/HTTP."""

import gzip
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.helpers.waiting import until


class Span:
    """A span as it came.

    Attributes:
        service: what its process is called.
        trace, id, parent: numbers in hexadecimal; parent is empty where it has none.
    """

    def __init__(self, service, span):
        self.service = service
        self.name = span.name
        self.trace, self.id = span.trace_id.hex(), span.span_id.hex()
        self.parent = span.parent_span_id.hex()
        self.links = [(link.trace_id.hex(), link.span_id.hex()) for link in span.links]
        self.seconds = (span.end_time_unix_nano - span.start_time_unix_nano) / 1e9

    def __repr__(self):
        return f"<{self.service}: {self.name} {self.trace[:4]} {self.id[:4]} in {self.parent[:4]}>"


class Collector:
    """Listens on a free port while the block lasts.

    Attributes:
        spans: all that have come.
    """

    def __init__(self):
        self.spans = spans = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.headers.get("content-encoding") == "gzip":
                    body = gzip.decompress(body)
                for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                    names = {each.key: each.value for each in resource.resource.attributes}
                    service = names["service.name"].string_value
                    for scope in resource.scope_spans:
                        spans.extend(Span(service, each) for each in scope.spans)
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever)

    def wait_for(self, trace, count):
        """The spans of a trace, by name, once there are so many."""

        def come():
            found = [span for span in self.spans if span.trace == trace]
            return len(found) >= count and found

        return {span.name: span for span in until(come)}

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
