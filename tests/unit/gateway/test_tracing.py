"""What spans say of a request, without a collector."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from reranker_gateway.request_context import RequestContext
from reranker_gateway.tracing import OpenTelemetry, trace_id

Make = Callable[..., Any]
TRACE = "0af7651916cd43dd8448eb211c80319c"


@pytest.mark.parametrize(
    ("code", "status"),
    [(200, StatusCode.UNSET), (422, StatusCode.UNSET), (499, StatusCode.UNSET)]
    + [(code, StatusCode.ERROR) for code in (500, 503, 504)],
)
def test_only_what_the_server_failed_at_is_an_error(code: int, status: StatusCode) -> None:
    told = InMemorySpanExporter()
    tracing = OpenTelemetry(SimpleSpanProcessor(told))
    tracing.record(RequestContext(), route="/v1/ranking", path="/v1/ranking", code=code)
    (span,) = told.get_finished_spans()
    assert span.status.status_code is status
    tracing.close()


def test_the_traces_id_is_that_of_a_whole_context() -> None:
    assert trace_id({"traceparent": f"00-{TRACE}-b7ad6b7169203331-01"}) == TRACE
    for wrong in ("", TRACE, f"00-{TRACE[1:]}-b7ad6b7169203331-01"):
        assert trace_id({"traceparent": wrong}) is None
    assert trace_id({}) is None


async def test_the_name_of_a_span_has_no_words_of_the_callers(
    gateway_of: Make, client_of: Make, body: Make
) -> None:
    spans = InMemorySpanExporter()
    gateway = replace(gateway_of(), tracing=OpenTelemetry(SimpleSpanProcessor(spans)))
    path = "/v1/retrieval/made/up/reranking"
    async with client_of(gateway) as client:
        await client.post(path, json=body())
    span = spans.get_finished_spans()[-1]
    assert span.name == "POST /v1/retrieval/{org}/{model}/reranking"
    assert span.attributes is not None
    assert span.attributes["url.path"] == path
