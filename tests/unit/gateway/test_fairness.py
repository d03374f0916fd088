"""Who waits for whom, counted in padded tokens on an engine that runs one batch after the other."""

import asyncio
import itertools
import random
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reranker_contracts import ServedModel
from reranker_gateway.batching import BatchLimits
from reranker_gateway.engine import Batch, FloatArray
from reranker_gateway.scheduler import IN_FLIGHT, Scheduler
from reranker_gateway.score_cache import ScoreCache
from reranker_gateway.telemetry import Telemetry
from reranker_gateway.throughput import Throughput
from reranker_gateway.tokenise import TokenisedRequest
from reranker_gateway.turns import LARGE, LONGEST_TURN, PATIENCE, CallerTurns

NEVER = 1_000_000
MODEL = ServedModel.model_validate(
    {
        "name": "demo",
        "architecture": "Demo",
        "family": "demo",
        "maxLength": 512,
        "padId": 0,
        "template": {"pieces": [{"kind": "query"}, {"kind": "passage"}]},
        "inputs": ["input_ids", "attention_mask"],
    }
)


@dataclass
class Asked:
    """A request, and what happened to it. Times are numbers of batches."""

    lengths: list[int]
    comes: int = 0
    caller: str = field(default="", kw_only=True)
    goes: int = NEVER
    came: int = 0
    went: int = NEVER
    #: Requests in progress when it came.
    ahead: int = 0
    scores: FloatArray | None = None


@dataclass
class World:
    """Requests, their scheduler, and the engine.

    Tokens of request N are all (N + 1) * 1000 + the pair's number: no pair is like another.
    """

    limits: BatchLimits
    asked: list[Asked]
    batches: list[Batch] = field(default_factory=list)
    tasks: dict[int, "asyncio.Task[FloatArray]"] = field(default_factory=dict)

    async def run(self) -> None:
        self.telemetry = Telemetry()
        clock = itertools.count().__next__
        self.scheduler = Scheduler(
            engine=self,  # type: ignore[arg-type]
            model=MODEL,
            limits=self.limits,
            cache=ScoreCache(0, "0" * 64, self.telemetry.cache_lookups),
            throughput=Throughput(clock),
            telemetry=self.telemetry,
            clock=clock,
        )
        self._engine = asyncio.Lock()
        done = 0
        while done < len(self.asked):
            await self._move(len(self.batches))
            # Nothing in the engine: those who come next do not wait for batches to pass.
            if all(task.done() for task in self.tasks.values()):
                await self._move(min((a.comes for a in self._outside()), default=0))
            done = sum(task.done() for task in self.tasks.values())
        for number, task in self.tasks.items():
            if not task.cancelled():
                self.asked[number].scores = task.result()

    async def infer(self, batch: Batch) -> FloatArray:
        self.batches.append(batch)
        async with self._engine:
            # Time for `run` to bring what is due.
            for _ in range(6):
                await asyncio.sleep(0)
        return (batch.input_ids * batch.attention_mask).sum(axis=1).astype(np.float32)

    def rows(self, batch: Batch, number: int) -> int:
        return int((batch.input_ids.max(axis=1) // 1000 == number + 1).sum())

    def waiting(self, since: int, number: int, rows: int) -> int:
        """Padded tokens of the batches from `since` to the one with the row `rows` of a request."""
        tokens = 0
        for batch in self.batches[since:]:
            rows -= self.rows(batch, number)
            if rows <= 0:
                break
            tokens += batch.input_ids.size
        return tokens

    def _outside(self) -> list[Asked]:
        return [a for number, a in enumerate(self.asked) if number not in self.tasks]

    async def _move(self, now: int) -> None:
        for number, one in enumerate(self.asked):
            if number not in self.tasks and one.comes <= now:
                one.came = len(self.batches)
                one.ahead = sum(not task.done() for task in self.tasks.values())
                ids = [
                    np.full(length, (number + 1) * 1000 + at, dtype=np.int32)
                    for at, length in enumerate(one.lengths)
                ]
                inputs = TokenisedRequest(ids, None, list(one.lengths), 0)
                self.tasks[number] = asyncio.create_task(self.scheduler.run(inputs, one.caller))
            elif number in self.tasks and one.goes <= now and not self.tasks[number].done():
                self.tasks[number].cancel()
                await asyncio.wait([self.tasks[number]])
                one.went = min(one.went, len(self.batches))
        await asyncio.sleep(0)


REQUESTS = st.builds(
    Asked,
    lengths=st.lists(st.integers(1, 60), min_size=1, max_size=40),
    comes=st.integers(0, 12),
    goes=st.just(NEVER) | st.integers(0, 12),
)
LIMITS = st.builds(BatchLimits, max_rows=st.integers(1, 8), token_budget=st.integers(60, 240))


@settings(deadline=None)
@given(asked=st.lists(REQUESTS, min_size=1, max_size=7), limits=LIMITS)
def test_callers_wait_by_how_many_wait_and_not_by_their_sizes(
    asked: list[Asked], limits: BatchLimits
) -> None:
    callers = [Asked(a.lengths, a.comes, goes=a.goes, caller=f"{n}") for n, a in enumerate(asked)]
    world = World(limits, callers)
    asyncio.run(world.run())
    turn = LONGEST_TURN * limits.token_budget
    for number, one in enumerate(world.asked):
        sent = sum(world.rows(batch, number) for batch in world.batches)
        if one.scores is None:
            assert not any(world.rows(batch, number) for batch in world.batches[one.went :])
            continue
        # Nothing is lost, nothing doubled.
        assert one.scores.tolist() == [
            float(length * ((number + 1) * 1000 + at)) for at, length in enumerate(one.lengths)
        ]
        assert sent == len(one.lengths)
        assert world.waiting(one.came, number, 1) <= one.ahead * turn
        everything = len(one.lengths) * len(asked) * turn
        assert world.waiting(one.came, number, sent) <= everything
    assert world.scheduler.waiting_tokens == 0


@given(st.lists(st.tuples(st.integers(1, 900), st.integers(0, 900)), min_size=1, max_size=30))
def test_a_request_is_overtaken_by_smaller_ones_and_only_for_a_time(
    asked: list[tuple[int, int]],
) -> None:
    """Each has so many tokens, and comes when so many more are done, or nobody waits."""
    turns: CallerTurns[int] = CallerTurns(100)
    left, came, done, order = {}, {}, 0, []
    coming = [(number, tokens) for number, (tokens, _) in enumerate(asked)]
    due = list(itertools.accumulate(pause for _, pause in asked))
    while coming or left:
        while coming and (due[coming[0][0]] <= done or not left):
            number, tokens = coming.pop(0)
            left[number], came[number] = tokens, done
            turns.join("", number, tokens)
        leader = turns.leader
        spent = min(50, left[leader])
        done += spent
        left[leader] -= spent
        turns.spend(spent, spent)
        if not left[leader]:
            order.append(leader)
            turns.leave("", leader)
            del left[leader]
    assert sorted(order) == list(range(len(asked)))
    for at, first in enumerate(order):
        for later in order[at + 1 :]:
            if later < first:
                # It came before and ended after.
                assert asked[first][0] < asked[later][0]
                patience = PATIENCE * min(asked[later][0], LARGE * 100)
                assert came[first] < came[later] + patience


async def test_of_requests_that_are_alike_the_first_is_done_first() -> None:
    limits = BatchLimits(max_rows=8, token_budget=800)
    alike = [Asked([100] * 24, comes=at) for at in range(4)]
    world = World(limits, alike)
    await world.run()
    assert [[world.rows(batch, n) for n in range(4)].index(8) for batch in world.batches] == [
        number for number in range(4) for _ in range(3)
    ]


@pytest.mark.parametrize("others", [1, 4])
@pytest.mark.parametrize("passages", [32, 512])
async def test_a_small_request_is_done_long_before_the_large_ones(
    others: int, passages: int
) -> None:
    limits = BatchLimits(max_rows=32, token_budget=8192)
    large = [Asked([512] * passages) for _ in range(others)]
    small = Asked([100], comes=IN_FLIGHT)
    world = World(limits, [*large, small])
    await world.run()
    # At once, whatever they hold.
    assert world.waiting(small.came, others, 1) == 0
    # And the large ones were hardly held up: 16 pairs a batch, all full, and one batch more.
    assert len(world.batches) == others * passages // 16 + 1


async def test_a_large_request_goes_on_while_small_ones_keep_coming() -> None:
    limits = BatchLimits(max_rows=32, token_budget=8192)
    large = Asked([512] * 128)
    # A full batch of them for each batch that is done.
    stream = [Asked([100] * 32, comes=at) for at in range(200)]
    world = World(limits, [large, *stream])
    await world.run()
    own = 512 * 128
    assert own > LARGE * limits.token_budget
    assert world.waiting(0, 0, 128) <= PATIENCE * LARGE * limits.token_budget + own


async def test_many_requests_of_mixed_lengths_are_padded_little() -> None:
    limits = BatchLimits(max_rows=32, token_budget=8192)
    chance = random.Random(1)  # noqa: S311
    asked = [Asked([chance.randint(20, 300) for _ in range(50)], comes=at) for at in range(40)]
    world = World(limits, asked)
    await world.run()
    real = sum(sum(one.lengths) for one in asked)
    padded = sum(batch.input_ids.size for batch in world.batches)
    # Alone each of them has 1.12; neighbours of other requests bring it down.
    assert padded / real <= 1.08
    assert padded / len(world.batches) >= 0.5 * limits.token_budget


async def test_a_callers_many_requests_take_no_more_than_anothers_one() -> None:
    limits = BatchLimits(max_rows=32, token_budget=8192)
    batch_job = [Asked([512] * 16, caller="batch job") for _ in range(40)]
    other = [Asked([512] * 16, comes=IN_FLIGHT, caller="other") for _ in range(4)]
    world = World(limits, [*batch_job, *other])
    await world.run()
    first = IN_FLIGHT
    last = max(at for at, batch in enumerate(world.batches) if world.rows(batch, 43))
    # Every second batch is the other's, whose four requests are four full batches.
    assert last - first <= 2 * len(other)


async def test_callers_with_small_requests_have_as_much_as_those_with_large_ones() -> None:
    limits = BatchLimits(max_rows=32, token_budget=8192)
    large = [Asked([500] * 200, caller="large")]
    small = [Asked([100] * 4, caller="small") for _ in range(300)]
    world = World(limits, [*large, *small])
    await world.run()
    ended = next(
        at
        for at in range(len(world.batches))
        if not any(world.rows(batch, 0) for batch in world.batches[at:])
    )
    # Before the first ones nobody else was there.
    both = world.batches[IN_FLIGHT:ended]
    of_large = sum(world.rows(batch, 0) * batch.input_ids.shape[1] for batch in both)
    total = sum(batch.input_ids.size for batch in both)
    assert 0.4 <= of_large / total <= 0.6
