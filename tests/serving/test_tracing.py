"""Traces of the gateway's process, at a collector of the test's own."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from reranker_gateway.tracing import wanted

Start = Callable[..., Any]
BODY = b'{"model":"demo","query":{"text":"a"},"passages":[{"text":"b"},{"text":"c c"}]}'
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.fixture
async def collector(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[list[Any]]:
    """Spans that were sent, with their resource's attributes."""
    spans: list[Any] = []

    async def take(request: web.Request) -> web.Response:
        sent = ExportTraceServiceRequest.FromString(await request.read())
        for resource in sent.resource_spans:
            attributes = {a.key: a.value.string_value for a in resource.resource.attributes}
            spans.extend((span, attributes) for s in resource.scope_spans for span in s.spans)
        return web.Response()

    app = web.Application()
    app.router.add_post("/v1/traces", take)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{runner.addresses[0][1]}")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
    yield spans
    await runner.cleanup()


async def test_a_request_is_told_with_its_stages_as_part_of_the_callers_trace(
    start_gateway: Start, triton: Any, collector: list[Any]
) -> None:
    await triton.start()
    gateway = await start_gateway()
    await gateway.until_ready()
    headers = {"traceparent": f"00-{TRACE}-{PARENT}-01", "x-request-id": "seen"}
    assert (await gateway.client.post("/v1/ranking", content=BODY, headers=headers)).is_success
    while len(collector) < 4:  # noqa: ASYNC110
        await asyncio.sleep(0.02)
    spans = {span.name: span for span, _ in collector}
    assert {attributes["service.name"] for _, attributes in collector} == {"reranker-gateway"}
    request = spans.pop("POST /v1/ranking")
    assert (request.trace_id.hex(), request.parent_span_id.hex()) == (TRACE, PARENT)
    told = {a.key: a.value.string_value or a.value.int_value for a in request.attributes}
    assert told["http.response.status_code"] == 200
    assert (told["reranker.dialect"], told["reranker.passages"]) == ("nim", 2)
    assert told["reranker.request_id"] == "seen"
    assert spans.keys() == {"tokenise", "queue", "infer"}
    for span in spans.values():
        assert (span.trace_id, span.parent_span_id) == (request.trace_id, request.span_id)
        begun, ended = span.start_time_unix_nano, span.end_time_unix_nano
        assert request.start_time_unix_nano <= begun <= ended <= request.end_time_unix_nano
    order = [spans[name].start_time_unix_nano for name in ("tokenise", "queue", "infer")]
    assert order == sorted(order)
    # No texts.
    assert "c c" not in str(collector)
    gateway.process.terminate()
    _, log = await gateway.process.communicate()
    assert f'"traceId": "{TRACE}"' in log.decode()


async def test_what_the_caller_does_not_sample_is_not_told(
    start_gateway: Start, triton: Any, collector: list[Any]
) -> None:
    await triton.start()
    gateway = await start_gateway()
    await gateway.until_ready()
    for flags in ("00", "01"):
        headers = {"traceparent": f"00-{TRACE}-{PARENT}-{flags}"}
        await gateway.client.post("/v1/ranking", content=BODY, headers=headers)
    gateway.process.terminate()
    await gateway.process.wait()
    # The end of the process sends what is left.
    assert len(collector) == 4


@pytest.mark.parametrize(
    ("environment", "on"),
    [
        ({}, False),
        ({"OTEL_SERVICE_NAME": "x"}, False),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://x"}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x", "OTEL_TRACES_EXPORTER": "none"}, False),
        ({"OTEL_TRACES_EXPORTER": "otlp", "OTEL_SDK_DISABLED": "TRUE"}, False),
    ],
)
def test_the_standard_variables_decide(environment: dict[str, str], on: bool) -> None:
    assert wanted(environment) is on
