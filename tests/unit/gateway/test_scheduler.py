"""Requests in, batches out, and every score back at its place."""

import asyncio
import gc
import itertools
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from reranker_gateway.pairs import PairKeys
from reranker_gateway.score_cache import ScoreCache

from reranker_contracts import ServedModel
from reranker_gateway.batching import BatchLimits
from reranker_gateway.engine import Batch
from reranker_gateway.errors import EngineError, EngineTimeoutError, EngineUnavailableError
from reranker_gateway.scheduler import IN_FLIGHT, Scheduler
from reranker_gateway.telemetry import Telemetry
from reranker_gateway.throughput import Throughput
from reranker_gateway.tokenise import TokenisedRequest


def request(*rows: list[int]) -> TokenisedRequest:
    ids = [np.array(row, dtype=np.int32) for row in rows]
    return TokenisedRequest(
        ids=ids, types=[row * 0 for row in ids], lengths=[len(row) for row in ids], truncated=0
    )


def of_lengths(*lengths: int, token: int = 1) -> TokenisedRequest:
    return request(*([token] * length for length in lengths))


@pytest.fixture
def suspicions() -> list[None]:
    return []


@pytest.fixture
def telemetry() -> Telemetry:
    return Telemetry()


@pytest.fixture
def scheduler(
    engine: Any, model: ServedModel, suspicions: list[None], telemetry: Telemetry
) -> Scheduler:
    clock = itertools.count().__next__
    return Scheduler(
        engine=engine,
        model=model,
        limits=BatchLimits(max_rows=4, token_budget=64),
        keys=PairKeys("0" * 64),
        cache=ScoreCache(0, telemetry.cache_lookups),
        throughput=Throughput(clock),
        telemetry=telemetry,
        clock=clock,
        on_failure=lambda: suspicions.append(None),
    )


async def test_scores_come_back_in_the_callers_order(scheduler: Scheduler, engine: Any) -> None:
    requests = [
        request(*([token] * (1 + (7 * token * at) % 12) for at in range(9)))
        for token in range(1, 9)
    ]
    found = await asyncio.gather(*map(scheduler.run, requests))
    for asked, scores in zip(requests, found, strict=True):
        assert scores.tolist() == [float(row.sum()) for row in asked.ids]
    assert sum(batch.rows for batch in engine.batches) == 72
    assert scheduler.waiting_tokens == 0


async def test_the_next_batch_is_for_the_first_in_line(
    scheduler: Scheduler, engine: Any, eventually: Callable[..., Any]
) -> None:
    engine.open.clear()
    occupied = asyncio.gather(*(scheduler.run(of_lengths(64)) for _ in range(IN_FLIGHT)))
    await eventually(lambda: len(engine.batches) == IN_FLIGHT)
    first = asyncio.create_task(scheduler.run(of_lengths(3, token=5)))
    await eventually(lambda: scheduler.waiting_tokens == 3)
    crowd = asyncio.gather(*(scheduler.run(of_lengths(16, 16, 16, 16)) for _ in range(5)))
    await eventually(lambda: scheduler.waiting_tokens == 3 + 5 * 64)
    engine.open.set()
    await asyncio.gather(occupied, first, crowd)
    assert 5 in engine.batches[IN_FLIGHT].input_ids


async def test_at_most_two_batches_are_in_flight(
    scheduler: Scheduler, engine: Any, eventually: Callable[..., Any]
) -> None:
    engine.open.clear()
    work = asyncio.gather(*(scheduler.run(of_lengths(64)) for _ in range(6)))
    await eventually(lambda: len(engine.batches) == IN_FLIGHT)
    assert scheduler.waiting_tokens == 4 * 64
    engine.open.set()
    await work
    assert len(engine.batches) == 6


async def test_a_cancelled_request_leaves_the_queue(
    scheduler: Scheduler, engine: Any, eventually: Callable[..., Any]
) -> None:
    engine.open.clear()
    occupied = asyncio.gather(*(scheduler.run(of_lengths(64)) for _ in range(IN_FLIGHT)))
    gone = asyncio.create_task(scheduler.run(of_lengths(5, 6, 7)))
    stays = asyncio.create_task(scheduler.run(of_lengths(5)))
    await eventually(lambda: scheduler.waiting_tokens == 23)
    gone.cancel()
    await asyncio.wait([gone])
    assert scheduler.waiting_tokens == 5
    engine.open.set()
    await asyncio.gather(occupied, stays)
    assert sum(batch.rows for batch in engine.batches) == IN_FLIGHT + 1


async def test_cancelled_requests_leave_nothing_behind_while_the_engine_hangs(
    scheduler: Scheduler, engine: Any, eventually: Callable[..., Any]
) -> None:
    engine.open.clear()
    occupied = asyncio.gather(*(scheduler.run(of_lengths(64)) for _ in range(IN_FLIGHT)))
    inputs = of_lengths(5, 6, 7)
    kept = weakref.ref(inputs.ids[0])
    gone = asyncio.create_task(scheduler.run(inputs))
    await eventually(lambda: scheduler.waiting_tokens == 18)
    gone.cancel()
    await asyncio.wait([gone])
    del gone, inputs
    gc.collect()
    assert kept() is None
    engine.open.set()
    await occupied


async def test_a_batch_that_took_too_long_is_not_tried_again(
    scheduler: Scheduler, engine: Any, suspicions: list[None]
) -> None:
    engine.failures.append(EngineTimeoutError("late"))
    with pytest.raises(EngineTimeoutError):
        await scheduler.run(of_lengths(4))
    assert (len(engine.batches), len(suspicions)) == (1, 1)


async def test_a_failed_batch_is_tried_once_more(
    scheduler: Scheduler, engine: Any, suspicions: list[None]
) -> None:
    engine.failures.append(EngineUnavailableError("away"))
    assert (await scheduler.run(of_lengths(4))).tolist() == [4.0]
    assert len(suspicions) == 1


async def test_only_requests_of_the_failed_batch_fail(scheduler: Scheduler, engine: Any) -> None:
    healthy = engine.score

    def poisoned(batch: Batch) -> np.ndarray:
        if 9 in batch.input_ids:
            raise EngineError("bad")
        return healthy(batch)

    engine.score = poisoned
    results = await asyncio.gather(
        scheduler.run(of_lengths(60, 59, 58, token=9)),
        scheduler.run(of_lengths(5, 4)),
        return_exceptions=True,
    )
    assert isinstance(results[0], EngineError)
    assert results[1].tolist() == [5.0, 4.0]
    # Two tries of one batch; what else the failed request had waiting was dropped or in flight.
    assert sum(9 in batch.input_ids for batch in engine.batches) <= 2 * IN_FLIGHT
    assert scheduler.waiting_tokens == 0


async def test_a_score_that_is_not_a_number_fails_the_request(
    scheduler: Scheduler, engine: Any
) -> None:
    engine.score = lambda batch: np.full(batch.rows, np.nan, dtype=np.float32)
    with pytest.raises(EngineError, match="not a score"):
        await scheduler.run(of_lengths(4))
