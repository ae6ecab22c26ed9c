"""OpenTelemetry: one span for each request and each socket; texts, audio, keys and queries are not in them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from rechka import __version__
from rechka.errors import MissingExtra


class Tracer:
    """Sends spans from a thread of its own, in batches; what a collector does not take in time is dropped.

    Args:
        endpoint: of the collector, OTLP over HTTP, such as ``http://localhost:4318``.

    Raises:
        MissingExtra: the packages are not installed.
    """

    def __init__(self, endpoint: str) -> None:
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
            from opentelemetry.trace import SpanKind, Status, StatusCode
            from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
        except ModuleNotFoundError:
            raise MissingExtra("otlp_endpoint needs OpenTelemetry", remedy='pip install "rechka[otel]"') from None
        resource = Resource.create({"service.name": "rechka", "service.version": __version__})
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(
            BatchSpanProcessor(OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces"))
        )
        self._tracer = self._provider.get_tracer("rechka.server", __version__)
        self._context = TraceContextTextMapPropagator()
        self._kind = SpanKind.SERVER
        self._failed = Status(StatusCode.ERROR)

    def record(
        self, name: str, headers: Mapping[str, str], seconds: float, attributes: Mapping[str, Any], *, failed: bool
    ) -> None:
        """A request that is over.

        Args:
            name: ``GET /v1/models``.
            headers: of the request; a ``traceparent`` makes the span a part of the caller's trace.
            seconds: it took, until now.
            attributes: in OpenTelemetry's names.
            failed: by our fault.
        """
        end = time.time_ns()
        carrier = {key: value for key, value in headers.items() if key in ("traceparent", "tracestate")}
        span = self._tracer.start_span(
            name, self._context.extract(carrier), self._kind, dict(attributes), start_time=end - int(seconds * 1e9)
        )
        if failed:
            span.set_status(self._failed)
        span.end(end)

    def close(self) -> None:
        """Send what waits."""
        self._provider.shutdown()
