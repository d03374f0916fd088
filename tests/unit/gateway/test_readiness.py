"""Ready, away, ready again."""

import asyncio
from collections.abc import Callable
from typing import Any

import numpy as np

from reranker_gateway.errors import EngineError, EngineUnavailableError
from reranker_gateway.readiness import warm_up_lengths


def test_warm_up_runs_every_bucket_up_to_the_limit() -> None:
    assert list(warm_up_lengths(512)) == [64, 128, 256, 512]
    assert list(warm_up_lengths(300)) == [64, 128, 256, 300]
    assert list(warm_up_lengths(32)) == [32]


async def test_follows_the_engine(
    gateway_of: Callable[..., Any],
    engine: Any,
    watch: Callable[..., None],
    eventually: Callable[..., Any],
) -> None:
    engine.loaded = False
    readiness = gateway_of(ready=False, engine_patience_seconds=0).readiness
    watch(readiness)
    readiness.suspect()
    await eventually(lambda: not readiness.suspected)
    assert not readiness.ready
    engine.loaded = True
    readiness.suspect()
    await eventually(lambda: readiness.ready)
    assert [batch.input_ids.shape[1] for batch in engine.batches] == [32, 32]
    engine.loaded = False
    readiness.suspect()
    await eventually(lambda: not readiness.ready)


async def test_a_loaded_engine_that_fails_is_not_ready(
    gateway_of: Callable[..., Any],
    engine: Any,
    watch: Callable[..., None],
    eventually: Callable[..., Any],
) -> None:
    readiness = gateway_of(engine_patience_seconds=0).readiness
    watch(readiness)
    failures = [EngineError("dead backend"), EngineUnavailableError("dead"), ZeroDivisionError()]
    engine.failures.extend(failures)
    readiness.suspect()
    await eventually(lambda: not readiness.ready)
    while engine.failures:
        readiness.suspect()
        await asyncio.sleep(0)
    readiness.suspect()
    await eventually(lambda: readiness.ready)
    engine.score = lambda batch: np.full(batch.rows, np.nan, dtype=np.float32)
    readiness.suspect()
    await eventually(lambda: not readiness.ready)


async def test_one_bad_batch_does_not_take_a_healthy_engine_away(
    gateway_of: Callable[..., Any],
    engine: Any,
    watch: Callable[..., None],
    eventually: Callable[..., Any],
) -> None:
    readiness = gateway_of().readiness
    watch(readiness)
    readiness.suspect()
    await eventually(lambda: len(engine.batches) == 1)
    assert engine.batches[0].rows == 1
    assert readiness.ready


async def test_requests_wait_for_an_engine_that_starts_again(
    gateway_of: Callable[..., Any],
    client_of: Callable[..., Any],
    engine: Any,
    body: Callable[..., Any],
    watch: Callable[..., None],
    eventually: Callable[..., Any],
) -> None:
    gateway = gateway_of()
    watch(gateway.readiness)
    async with client_of(gateway) as client:
        engine.open.clear()
        during = asyncio.create_task(client.post("/v1/ranking", json=body()))
        await eventually(lambda: len(engine.batches) == 1)
        engine.loaded = False
        engine.open.set()
        later = asyncio.create_task(client.post("/v1/ranking", json=body(query={"text": "w7"})))
        # Nothing further is sent to an engine that lost what it had.
        await asyncio.sleep(0.05)
        assert (await client.get("/v1/health/ready")).status_code == 200
        assert not during.done()
        assert not later.done()
        engine.loaded = True
        assert {(await running).status_code for running in (during, later)} == {200}


async def test_patience_ends(
    gateway_of: Callable[..., Any],
    client_of: Callable[..., Any],
    engine: Any,
    body: Callable[..., Any],
    watch: Callable[..., None],
) -> None:
    gateway = gateway_of(engine_patience_seconds=0.05)
    watch(gateway.readiness)
    engine.loaded = False
    async with client_of(gateway) as client:
        refused = await client.post("/v1/ranking", json=body())
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        assert "not answering" in refused.json()["message"] or "away" in refused.json()["message"]
        assert (await client.get("/v1/health/ready")).status_code == 503


async def test_a_batch_that_brings_the_engine_down_takes_the_others_along_only_once(
    gateway_of: Callable[..., Any],
    client_of: Callable[..., Any],
    engine: Any,
    body: Callable[..., Any],
    watch: Callable[..., None],
    eventually: Callable[..., Any],
) -> None:
    """They were lost with it; then each is tried alone."""
    gateway = gateway_of()
    poison = 13
    crashed = []

    def score(batch: Any) -> Any:
        if poison in batch.input_ids or len(crashed) == 1:
            crashed.append(batch)
            raise EngineUnavailableError("crashed")
        return (batch.input_ids * batch.attention_mask).sum(axis=1).astype(np.float32)

    engine.score = score
    watch(gateway.readiness)
    async with client_of(gateway) as client:
        engine.open.clear()
        asked = [body(query={"text": word}, passages=[{"text": "w3"}]) for word in ("w9", "w1")]
        answers = [
            asyncio.create_task(client.post("/v1/ranking", json=question)) for question in asked
        ]
        await eventually(lambda: len(engine.batches) == 2)
        engine.open.set()
        bad, good = await asyncio.gather(*answers)
    assert (bad.status_code, good.status_code) == (500, 200)
    assert len(crashed) == 3
