"""What spans say of a request."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from reranker_gateway.tracing import OpenTelemetry

Make = Callable[..., Any]


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
