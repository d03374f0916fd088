"""What the operator scales by and judges revisions by, as a pod tells it."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import httpx
import pytest
from prometheus_client import disable_created_metrics
from prometheus_client.parser import text_string_to_metric_families

from reranker_contracts import metrics as names
from reranker_gateway.activator.server import build_activator
from reranker_gateway.activator.settings import ActivatorSettings
from reranker_gateway.api.info import metrics_app
from reranker_gateway.drain import Phase
from reranker_gateway.errors import EngineError
from reranker_gateway.gateway import Gateway
from reranker_gateway.throughput import Throughput

Make = Callable[..., dict[str, Any]]
Connect = Callable[[Gateway], httpx.AsyncClient]
#: Tokens of the body's two different pairs: [CLS] w1 w2 [SEP] w3 [SEP], and one more.
_TOKENS = 6 + 7


def _told(text: str) -> Mapping[str, float]:
    """Sums over all labels, by name."""
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found[sample.name] = found.get(sample.name, 0.0) + sample.value
    return found


def _of(gateway: Gateway) -> Mapping[str, float]:
    return _told(gateway.telemetry.exposition(names.OF_LOAD))


async def test_arrived_and_backlog_count_what_the_engine_has_to_do(
    gateway_of: Callable[..., Gateway],
    client_of: Connect,
    engine: Any,
    body: Make,
    eventually: Callable[..., Any],
) -> None:
    gateway = gateway_of()
    engine.open.clear()
    async with client_of(gateway) as client:
        first = asyncio.create_task(client.post("/v1/ranking", json=body()))
        await eventually(lambda: bool(engine.batches))
        # Everything is in the engine, and the gauge of what waits says nothing of it.
        assert _of(gateway)[names.BACKLOG_TOKENS] == _TOKENS
        assert "\nreranker_queue_tokens 0.0" in gateway.telemetry.exposition()
        # The same pairs once more are no work.
        again = asyncio.create_task(client.post("/v1/ranking", json=body()))
        shared = "\nreranker_shared_pairs_total 4.0"
        await eventually(lambda: shared in gateway.telemetry.exposition())
        engine.open.set()
        assert [(await task).status_code for task in (first, again)] == [200, 200]
    told = _of(gateway)
    assert (told[names.ARRIVED_TOKENS], told[names.TOKENS]) == (_TOKENS, _TOKENS)
    assert (told[names.BACKLOG_TOKENS], told[names.REQUESTS]) == (0, 2)


async def test_refused_requests_have_arrived(
    gateway_of: Callable[..., Gateway],
    client_of: Connect,
    engine: Any,
    body: Make,
    eventually: Callable[..., Any],
) -> None:
    # Requests in progress: two places, of which one caller alone has all.
    gateway = gateway_of(max_queue_tokens=1, max_connections=8)
    engine.open.clear()
    texts = iter(range(10, 60))

    def fresh() -> dict[str, Any]:
        passages = [{"text": f"w{next(texts)}"} for _ in range(2)]
        return body(passages=passages)

    async with client_of(gateway) as client:
        # Two batches in the engine, and one request that waits alone.
        tasks = []
        for number in range(3):
            tasks.append(asyncio.create_task(client.post("/v1/ranking", json=fresh())))
            await eventually(lambda n=number: _of(gateway)[names.ARRIVED_TOKENS] == 12 * (n + 1))
        refused = await client.post("/v1/ranking", json=fresh())
        assert refused.status_code == 429
        assert _of(gateway)[names.ARRIVED_TOKENS] == 4 * 12, "its tokens are known"

        held = [gateway.admission.enter() for _ in range(gateway.settings.max_connections)]
        with pytest.raises(Exception, match="in progress"):
            for entry in held:
                entry.arrived()
        refused = await client.post("/v1/ranking", json=fresh())
        assert refused.status_code == 429
        assert _of(gateway)[names.ARRIVED_TOKENS] == 5 * 12, "they are guessed by the others'"
        engine.open.set()
        assert {(await task).status_code for task in tasks} == {200}
    assert _of(gateway)[names.FAILED] == 0


async def test_failures_are_told_from_being_turned_away(
    gateway_of: Callable[..., Gateway], client_of: Connect, engine: Any, body: Make
) -> None:
    gateway = gateway_of(engine_patience_seconds=0)
    async with client_of(gateway) as client:
        engine.failures.extend([EngineError("no")] * 2)
        assert (await client.post("/v1/ranking", json=body())).status_code == 500
        engine.loaded = False
        watch = asyncio.create_task(gateway.readiness.watch())
        assert (await client.post("/v1/ranking", json=body())).status_code == 503
        watch.cancel()
        assert _of(gateway)[names.FAILED] == 2

        gateway.readiness.ready = False
        assert (await client.post("/v1/ranking", json=body())).status_code == 503
        gateway.readiness.ready = True
        gateway.drain.phase = Phase.CLOSED
        assert (await client.post("/v1/ranking", json=body())).status_code == 503
        gateway.drain.phase = Phase.SERVING
        assert (await client.post("/v1/ranking", json={})).status_code == 422
    told = _of(gateway)
    assert (told[names.FAILED], told[names.REQUESTS]) == (2, 5)


def test_busy_seconds_go_on_while_a_batch_runs_and_stand_still_between() -> None:
    now = 0.0
    throughput = Throughput(lambda: now)
    throughput.begin()
    now = 3.0
    assert throughput.busy_seconds == 3.0, "a batch that takes long is work all the time"
    throughput.begin()
    now = 5.0
    throughput.end()
    now = 60.0
    assert throughput.busy_seconds == 5.0
    throughput.end()
    throughput.begin()
    now = 61.0
    assert throughput.busy_seconds == 6.0


async def test_busy_seconds_of_a_gateway_end_with_the_work(
    gateway_of: Callable[..., Gateway], client_of: Connect, engine: Any, body: Make
) -> None:
    gateway = gateway_of()
    async with client_of(gateway) as client:
        assert _of(gateway)[names.BUSY_SECONDS] == 0
        engine.failures.extend([EngineError("no")] * 2)
        for code in (500, 200):
            assert (await client.post("/v1/ranking", json=body())).status_code == code
    # The batch ends right after its answers.
    await asyncio.sleep(0)
    busy = _of(gateway)[names.BUSY_SECONDS]
    assert busy > 0
    assert _of(gateway)[names.BUSY_SECONDS] == busy


async def test_some_metrics_can_be_asked_for_alone(
    gateway_of: Callable[..., Gateway], client_of: Connect, body: Make
) -> None:
    disable_created_metrics()  # type: ignore[no-untyped-call]
    gateway = gateway_of()
    async with client_of(gateway) as client:
        assert (await client.post("/v1/ranking", json=body())).status_code == 200
    transport = httpx.ASGITransport(metrics_app(gateway))
    async with httpx.AsyncClient(transport=transport, base_url="http://pod") as scraper:
        asked = {"name[]": list(names.OF_LOAD)}
        some, everything = await asyncio.gather(
            scraper.get("/metrics", params=asked), scraper.get("/metrics")
        )
        nothing = await scraper.get("/metrics", params={"name[]": "nv_inference_count"})
    # All but what activators hold, and what is only there while scores are compared.
    compared = {name for name in names.OF_LOAD if name.startswith(names.SHADOW_TAU)}
    absent = {names.HELD, names.HELD_BYTES, names.SHADOW_REQUESTS} | compared
    assert _told(some.text).keys() == set(names.OF_LOAD) - absent
    assert "nv_inference_count" in everything.text
    assert "process_cpu_seconds_total" in everything.text
    assert nothing.text.strip() == ""


def test_what_an_activator_tells_of_what_it_holds() -> None:
    activator = build_activator(ActivatorSettings(backend_url="http://127.0.0.1:1"))
    told = _told(activator.telemetry.exposition(names.OF_LOAD))
    assert told == {names.HELD: 0, names.HELD_BYTES: 0}
