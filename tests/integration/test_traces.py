"""Spans over the wire: a real exporter, a real collector's door, and one that is not there."""

from __future__ import annotations

import gzip
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import ClassVar

import pytest
import request_records as records
import trio
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from punch.events import Bus
from punch.gateway import open_spans
from punch.gateway.telemetry._spans import CLOSE_SECONDS


class Collector(BaseHTTPRequestHandler):
    """Takes what is posted, as the OpenTelemetry collector does."""

    taken: ClassVar[list[tuple[str, bytes]]] = []

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        packed = self.headers.get("content-encoding") == "gzip"
        self.taken.append((self.path, gzip.decompress(body) if packed else body))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_args: object) -> None:
        """Nobody reads it."""


@pytest.fixture
def collector() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Collector)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    thread.join(10)
    server.server_close()
    Collector.taken.clear()


async def test_the_spans_of_the_last_request_arrive_before_the_gateway_ends(collector: str) -> None:
    """All of them, under the service's name."""
    with trio.fail_after(20):
        async with open_spans(Bus(), endpoint=collector) as spans:
            assert spans is not None
            spans.hear(records.ended(records.continued()))

    ((path, body),) = Collector.taken
    (resource,) = ExportTraceServiceRequest.FromString(body).resource_spans
    names = {pair.key: pair.value.string_value for pair in resource.resource.attributes}
    assert path == "/v1/traces"
    assert names["service.name"] == "punch-gateway"
    assert len(resource.scope_spans[0].spans) == 7


async def test_a_collector_that_is_not_there_holds_nobody_up() -> None:
    """Neither requests nor the end; the spans are lost."""
    with trio.fail_after(20):
        began = time.monotonic()
        async with open_spans(Bus(), endpoint="http://127.0.0.1:9") as spans:
            assert spans is not None
            for _ in range(3000):
                spans.hear(records.ended(records.easy()))
        assert time.monotonic() - began < CLOSE_SECONDS + 5
