"""Requests in, batches out, and every score back at its place."""

import asyncio
import gc
import itertools
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from reranker_contracts import ServedModel
from reranker_gateway.batching import BatchLimits
from reranker_gateway.engine import Batch
from reranker_gateway.errors import EngineError, EngineTimeoutError, EngineUnavailableError
from reranker_gateway.scheduler import IN_FLIGHT, Scheduler
from reranker_gateway.score_cache import ScoreCache
from reranker_gateway.telemetry import Telemetry
from reranker_gateway.throughput import Throughput
from reranker_gateway.tokenise import TokenisedRequest


def request(*rows: list[int]) -> TokenisedRequest:
    ids = [np.array(row, dtype=np.int32) for row in rows]
    return TokenisedRequest(
        ids=ids, types=[row * 0 for row in ids], lengths=[len(row) for row in ids], truncated=0
    )


_TOKENS = itertools.count(1000)


def of_lengths(*lengths: int, token: int | None = None) -> TokenisedRequest:
    """Pairs like no others, unless they are given a token."""
    return request(*([next(_TOKENS) if token is None else token] * length for length in lengths))


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
        cache=ScoreCache(0, "0" * 64, telemetry.cache_lookups),
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
    distinct = {row.tobytes() for asked in requests for row in asked.ids}
    assert sum(batch.rows for batch in engine.batches) == len(distinct) < 72
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
    assert (await scheduler.run(of_lengths(4, token=1))).tolist() == [4.0]
    assert len(suspicions) == 1


async def test_who_brings_the_engine_down_twice_is_told_so_and_nobody_else(
    scheduler: Scheduler, engine: Any
) -> None:
    """In one batch first, then each alone; a 503 would be sent again, to the next pod."""
    healthy = engine.score

    def poisoned(batch: Batch) -> np.ndarray:
        if 9 in batch.input_ids:
            raise EngineUnavailableError("crashed")
        return healthy(batch)

    engine.score = poisoned
    engine.open.clear()
    occupied = [
        asyncio.create_task(scheduler.run(of_lengths(length, token=2))) for length in (60, 61)
    ]
    asked = [asyncio.create_task(scheduler.run(of_lengths(5, token=token))) for token in (9, 1)]
    await asyncio.sleep(0)
    engine.open.set()
    bad, good = await asyncio.gather(*asked, return_exceptions=True)
    await asyncio.gather(*occupied)
    assert [type(bad), bad.status] == [EngineError, 500]
    assert good.tolist() == [5.0]
    assert [9 in batch.input_ids for batch in engine.batches].count(True) == 2
    assert [batch.rows for batch in engine.batches[-3:]] == [2, 1, 1]


async def test_only_requests_of_the_failed_batch_fail(scheduler: Scheduler, engine: Any) -> None:
    healthy = engine.score

    def poisoned(batch: Batch) -> np.ndarray:
        if 9 in batch.input_ids:
            raise EngineError("bad")
        return healthy(batch)

    engine.score = poisoned
    results = await asyncio.gather(
        scheduler.run(of_lengths(60, 59, 58, token=9)),
        scheduler.run(of_lengths(5, 4, token=1)),
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


async def test_a_row_without_a_score_fails_its_own_request_alone(
    scheduler: Scheduler, engine: Any, eventually: Callable[..., Any]
) -> None:
    """As where one input overflows the engine's precision, whoever sent it."""

    def score(batch: Batch) -> Any:
        scores = batch.input_ids.sum(axis=1).astype(np.float32)
        scores[(batch.input_ids == 9).any(axis=1)] = np.nan
        return scores

    engine.score = score
    engine.open.clear()
    occupied = asyncio.gather(*(scheduler.run(of_lengths(64)) for _ in range(IN_FLIGHT)))
    await eventually(lambda: len(engine.batches) == IN_FLIGHT)
    others = [asyncio.create_task(scheduler.run(of_lengths(4, token=n), f"{n}")) for n in (1, 2)]
    broken = asyncio.create_task(scheduler.run(of_lengths(4, token=9), "broken"))
    await eventually(lambda: scheduler.waiting_tokens == 12)
    engine.open.set()
    assert [(await other).tolist() for other in others] == [[4.0], [8.0]]
    with pytest.raises(EngineError, match="not a score"):
        await broken
    await occupied
    # All three were in one batch.
    assert any(batch.rows == 3 for batch in engine.batches)


async def test_equal_pairs_are_scored_once_for_everybody(
    scheduler: Scheduler, engine: Any, telemetry: Telemetry, eventually: Callable[..., Any]
) -> None:
    engine.open.clear()
    occupied = asyncio.gather(*(scheduler.run(of_lengths(64)) for _ in range(IN_FLIGHT)))
    await eventually(lambda: len(engine.batches) == IN_FLIGHT)
    first = asyncio.create_task(scheduler.run(of_lengths(5, 5, 7, token=3)))
    second = asyncio.create_task(scheduler.run(of_lengths(7, 9, token=3), "another"))
    await eventually(lambda: scheduler.waiting_tokens == 5 + 7 + 9)
    assert scheduler.waiting_by_caller == {"": 12, "another": 9}
    # Who brought a pair goes, and the other one still gets its score.
    first.cancel()
    await asyncio.wait([first])
    assert scheduler.waiting_tokens == 7 + 9
    engine.open.set()
    assert (await second).tolist() == [21.0, 27.0]
    await occupied
    assert sum(batch.rows for batch in engine.batches[IN_FLIGHT:]) == 2
    assert "reranker_shared_pairs_total 2.0" in telemetry.exposition()
    assert scheduler.waiting_by_caller == {}


async def test_a_pair_that_is_in_the_engine_is_not_sent_again(
    scheduler: Scheduler, engine: Any, eventually: Callable[..., Any]
) -> None:
    engine.open.clear()
    first = asyncio.create_task(scheduler.run(of_lengths(6, token=2)))
    await eventually(lambda: len(engine.batches) == 1)
    second = asyncio.create_task(scheduler.run(of_lengths(6, token=2)))
    await asyncio.sleep(0)
    first.cancel()
    engine.open.set()
    assert (await second).tolist() == [12.0]
    assert len(engine.batches) == 1
    # What has landed is asked anew: nothing is remembered.
    await scheduler.run(of_lengths(6, token=2))
    assert len(engine.batches) == 2


async def test_equal_ids_of_other_types_are_another_pair(scheduler: Scheduler, engine: Any) -> None:
    one, other = of_lengths(4, token=2), of_lengths(4, token=2)
    assert other.types is not None
    other.types[0] = np.array([0, 0, 1, 1], dtype=np.int32)
    engine.score = lambda batch: batch.token_type_ids.sum(axis=1).astype(np.float32)
    found = await asyncio.gather(scheduler.run(one), scheduler.run(other))
    assert [scores.tolist() for scores in found] == [[0.0], [2.0]]


async def test_a_failed_batch_fails_everybody_who_waits_for_it(
    scheduler: Scheduler, engine: Any
) -> None:
    engine.failures.extend([EngineError("bad"), EngineError("bad")])
    found = await asyncio.gather(
        scheduler.run(of_lengths(4, token=2)),
        scheduler.run(of_lengths(4, token=2)),
        return_exceptions=True,
    )
    assert [type(one) for one in found] == [EngineError, EngineError]
    assert (await scheduler.run(of_lengths(4, token=2))).tolist() == [8.0]


async def test_known_scores_come_from_the_cache(
    engine: Any, model: ServedModel, telemetry: Telemetry
) -> None:
    cache = ScoreCache(3, "0" * 64, telemetry.cache_lookups)
    clock = itertools.count().__next__
    scheduler = Scheduler(
        engine=engine,
        model=model,
        limits=BatchLimits(max_rows=4, token_budget=64),
        cache=cache,
        throughput=Throughput(clock),
        telemetry=telemetry,
        clock=clock,
    )
    assert (await scheduler.run(of_lengths(4, 5, token=2))).tolist() == [8.0, 10.0]
    assert (await scheduler.run(of_lengths(5, 6, token=2))).tolist() == [10.0, 12.0]
    assert sum(batch.rows for batch in engine.batches) == 3
    # 4 was asked for longest ago and makes room.
    await scheduler.run(of_lengths(7, token=2))
    assert len(cache) == 3
    assert (await scheduler.run(of_lengths(5, 6, 7, token=2))).tolist() == [10.0, 12.0, 14.0]
    assert sum(batch.rows for batch in engine.batches) == 4
    await scheduler.run(of_lengths(4, token=2))
    assert sum(batch.rows for batch in engine.batches) == 5
    text = telemetry.exposition()
    assert 'reranker_score_cache_lookups_total{result="hit"} 4.0' in text
    assert 'reranker_score_cache_lookups_total{result="miss"} 5.0' in text


async def test_a_cache_is_of_one_engine(telemetry: Telemetry) -> None:
    one = ScoreCache(3, "0" * 64, telemetry.cache_lookups)
    other = ScoreCache(3, "1" * 64, telemetry.cache_lookups)
    one.put([(b"pair", 1.5)])
    other._scores.update(one._scores)
    assert (one.get(b"pair"), other.get(b"pair")) == (1.5, None)
