"""Traces of requests by OpenTelemetry, when its standard environment variables ask for them.

    OTEL_TRACES_EXPORTER=otlp, or OTEL_EXPORTER_OTLP_ENDPOINT, …_TRACES_ENDPOINT   on
    OTEL_TRACES_EXPORTER=none, OTEL_SDK_DISABLED=true                              off

All others (service name, resource, sampler, headers, protocol) are read by the SDK itself. It is
imported only when it is on: it costs memory and start-up time. Spans are made when a request has
ended, from the times that it noted, so that no work waits for them.
"""

import logging
import re
from collections.abc import Mapping
from typing import Any, Protocol

from reranker_gateway import VERSION
from reranker_gateway.request_context import RequestContext

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_SERVICE = "reranker-gateway"
#: What is below is the caller's doing, and no error of a server's span.
_FAILED = 500
#: All that is handed on by callers: others of their headers are nobody's concern.
_PROPAGATED = frozenset({b"traceparent", b"tracestate"})
_LONGEST_STATE = 512
_TRACE_ID = re.compile("00-([0-9a-f]{32})-")
_log = logging.getLogger(__name__)


class Tracing(Protocol):
    """Where ended requests are told."""

    def record(self, request: RequestContext, *, route: str, path: str, code: int) -> None:
        """Make the spans of a request that has ended; `route` has no words of the caller's."""

    def close(self) -> None:
        """Send what is left; may take seconds."""


def propagated(headers: list[tuple[bytes, bytes]]) -> dict[str, str]:
    """The W3C trace context of the caller."""
    return {
        name.decode("latin-1"): value.decode("latin-1")
        for name, value in headers
        if name in _PROPAGATED and len(value) <= _LONGEST_STATE
    }


def trace_id(trace: Mapping[str, str]) -> str | None:
    """Of the caller's context as `propagated`, for the log."""
    found = _TRACE_ID.match(trace.get("traceparent", ""))
    return found[1] if found else None


def wanted(environment: Mapping[str, str]) -> bool:
    """Whether the environment asks for traces."""
    exporter = environment.get("OTEL_TRACES_EXPORTER", "").strip().lower()
    disabled = environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
    if disabled or exporter == "none":
        return False
    return exporter == "otlp" or any(environment.get(name) for name in _ENDPOINTS)


def load_tracing(environment: Mapping[str, str]) -> Tracing | None:
    """What the environment asks for; None when it asks for nothing."""
    if not wanted(environment):
        return None
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

    return OpenTelemetry(BatchSpanProcessor(_exporter(environment)))


def _exporter(environment: Mapping[str, str]) -> Any:
    protocol = environment.get(
        "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", environment.get("OTEL_EXPORTER_OTLP_PROTOCOL", "")
    )
    if protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import (  # noqa: PLC0415
            OTLPSpanExporter as Grpc,
        )

        return Grpc()
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # noqa: PLC0415
        OTLPSpanExporter as Http,
    )

    return Http()


class OpenTelemetry:
    """Spans by the SDK: one for the request, and one for each stage within it."""

    def __init__(self, processor: Any) -> None:
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.trace import SpanKind, StatusCode, set_span_in_context  # noqa: PLC0415
        from opentelemetry.trace.propagation.tracecontext import (  # noqa: PLC0415
            TraceContextTextMapPropagator,
        )

        resource = Resource.create()
        if str(resource.attributes.get("service.name", "")).startswith("unknown_service"):
            resource = resource.merge(Resource({"service.name": _SERVICE}))
        self._provider = TracerProvider(resource=resource)
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer(_SERVICE, VERSION)
        self._propagator = TraceContextTextMapPropagator()
        self._within = set_span_in_context
        self._kind = SpanKind.SERVER
        self._error = StatusCode.ERROR

    def record(self, request: RequestContext, *, route: str, path: str, code: int) -> None:
        """Make the spans; what the caller's context says of sampling is heeded."""
        parent = self._propagator.extract(request.trace)
        span = self._tracer.start_span(
            f"POST {route}",
            context=parent,
            kind=self._kind,
            start_time=request.wall_ns(request.began),
            attributes={
                "http.request.method": "POST",
                "http.response.status_code": code,
                "url.path": path,
                "reranker.request_id": request.request_id,
                "reranker.dialect": request.dialect,
                "reranker.passages": request.passages,
                "reranker.tokens": request.tokens,
            },
        )
        if code >= _FAILED:
            span.set_status(self._error)
        context = self._within(span)
        for stage in request.stages:
            child = self._tracer.start_span(
                stage.name, context=context, start_time=request.wall_ns(stage.began)
            )
            child.end(end_time=request.wall_ns(stage.ended))
        span.end(end_time=request.wall_ns(request.ended))

    def close(self) -> None:
        """Flush and stop the exporter's thread."""
        self._provider.shutdown()
