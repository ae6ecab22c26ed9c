"""Spans reach a collector: one for each request and each socket, in the caller's trace, with nothing private."""

from __future__ import annotations

import json
import threading
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason="OpenTelemetry is not installed")

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from websockets.sync.client import connect

from rechka.testing.servers import serving

TRACE = "0af7651916cd43dd8448eb211c80319c"


def test_spans(capfd):
    bodies: list[bytes] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self):
            import gzip

            data = self.rfile.read(int(self.headers["Content-Length"]))
            bodies.append(gzip.decompress(data) if self.headers.get("Content-Encoding") == "gzip" else data)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            pass

    collector = ThreadingHTTPServer(("127.0.0.1", 0), Collector)
    threading.Thread(target=collector.serve_forever, daemon=True).start()
    try:
        with serving(otlp_endpoint=f"http://127.0.0.1:{collector.server_port}") as server:
            headers = {"traceparent": f"00-{TRACE}-b7ad6b7169203331-01"}
            with urllib.request.urlopen(urllib.request.Request(f"{server.http}/v1/models", headers=headers)):
                pass
            with pytest.raises(urllib.error.HTTPError):
                urllib.request.urlopen(f"{server.http}/v1/secret-name?token=secret-token")
            with urllib.request.urlopen(f"{server.http}/livez"):
                pass
            with connect(f"{server.ws}/v1/stream") as socket:
                socket.send(b"\0" * 1600)
                socket.send('{"type":"finish"}')
                assert [json.loads(text)["type"] for text in socket][-1] == "done"
    finally:
        collector.shutdown()
        collector.server_close()
    spans = {}
    for body in bodies:
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            assert {a.key: a.value.string_value for a in resource.resource.attributes}["service.name"] == "rechka"
            for scope in resource.scope_spans:
                spans |= {span.name: span for span in scope.spans}
    assert set(spans) == {"GET /v1/models", "GET unknown", "WS /v1/stream"}  # probes are not worth a span
    assert spans["GET /v1/models"].trace_id.hex() == TRACE
    status = {a.key: a.value for a in spans["GET unknown"].attributes}["http.response.status_code"]
    assert status.int_value == 404
    assert all(span.end_time_unix_nano > span.start_time_unix_nano for span in spans.values())
    assert not any(b"secret" in body for body in bodies)
