"""A receiver of OpenTelemetry spans on loopback, as vLLM's exporter sends them."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

LIMIT_S = 60.0
ENVIRONMENT = {
    "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf",
    "OTEL_BSP_SCHEDULE_DELAY": "200",
}
"""For the process that sends."""


class Spans:
    """What has arrived; `url` is where to send it."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}/v1/traces"
        self._spans: list[Any] = []
        self._changed = threading.Condition()

    def take(self, body: bytes) -> None:
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
            ExportTraceServiceRequest,
        )

        sent = ExportTraceServiceRequest.FromString(body)
        with self._changed:
            for resource in sent.resource_spans:
                for scope in resource.scope_spans:
                    self._spans += scope.spans
            self._changed.notify_all()

    def of(self, trace_id: str, count: int) -> list[Any]:
        """The spans of a trace, once there are that many; fails after the limit."""
        deadline = time.monotonic() + LIMIT_S
        with self._changed:
            while True:
                seen = [span for span in self._spans if span.trace_id.hex() == trace_id]
                if len(seen) >= count:
                    return seen
                left = deadline - time.monotonic()
                assert left > 0, [span.name for span in seen]
                self._changed.wait(left)


@contextmanager
def receive_spans() -> Iterator[Spans]:
    """Receive spans until the block is left."""

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            spans.take(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Be quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    spans = Spans(server.server_address[1])
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield spans
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
