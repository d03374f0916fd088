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
    gateway_of: Callable[..., Any], engine: Any, eventually: Callable[..., Any]
) -> None:
    engine.loaded = False
    readiness = gateway_of(ready=False).readiness
    watch = asyncio.create_task(readiness.watch())
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
    watch.cancel()


async def test_a_loaded_engine_that_fails_is_not_ready(
    gateway_of: Callable[..., Any], engine: Any, eventually: Callable[..., Any]
) -> None:
    readiness = gateway_of().readiness
    watch = asyncio.create_task(readiness.watch())
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
    watch.cancel()


async def test_one_bad_batch_does_not_take_a_healthy_engine_away(
    gateway_of: Callable[..., Any], engine: Any, eventually: Callable[..., Any]
) -> None:
    readiness = gateway_of().readiness
    watch = asyncio.create_task(readiness.watch())
    readiness.suspect()
    await eventually(lambda: len(engine.batches) == 1)
    assert engine.batches[0].rows == 1
    assert readiness.ready
    watch.cancel()
