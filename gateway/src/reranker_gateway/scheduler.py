"""The queue of pairs: requests come in whole, leave in batches, and come back whole.

Pairs of all waiting requests lie in one queue, ordered by length, each distinct pair once
(`pairs`). Whenever fewer than two batches are in flight (one running, one ready behind it), the
next one is chosen for the request that is due (`turns`), and filled up with others' pairs of
like length (`batching`). A request whose client has gone takes its waiting pairs with it.

    run ─▶ waiting (by length) ─▶ batch ─▶ engine ─▶ scattered to the requests' results
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from reranker_contracts import ServedModel
from reranker_gateway.assembly import BatchAssembler
from reranker_gateway.batching import BatchLimits, choose_batch
from reranker_gateway.clock import Clock
from reranker_gateway.engine import Batch, Engine, FloatArray, check_scores
from reranker_gateway.errors import EngineError, EngineTimeoutError, EngineUnavailableError
from reranker_gateway.pairs import Job, Pair, PairQueue
from reranker_gateway.request_context import Stage, current_request
from reranker_gateway.score_cache import ScoreCache
from reranker_gateway.telemetry import Telemetry
from reranker_gateway.throughput import Throughput
from reranker_gateway.tokenise import TokenisedRequest
from reranker_gateway.turns import CallerTurns

IN_FLIGHT = 2


async def _at_once() -> bool:
    return True


class Scheduler:
    """Batches the pairs of all requests and runs the batches on the engine."""

    def __init__(
        self,
        *,
        engine: Engine,
        model: ServedModel,
        limits: BatchLimits,
        cache: ScoreCache,
        throughput: Throughput,
        telemetry: Telemetry,
        clock: Clock,
        on_failure: Callable[[], None] = lambda: None,
        engine_works: Callable[[], Awaitable[bool]] = _at_once,
    ) -> None:
        """`engine_works` waits for an engine that went away; it says no when that took too long."""
        self._engine = engine
        self._assembler = BatchAssembler(model)
        self._limits = limits
        self._cache = cache
        self._throughput = throughput
        self._telemetry = telemetry
        self._clock = clock
        self._on_failure = on_failure
        self._engine_works = engine_works
        self._second_attempt = asyncio.Lock()
        self._lone_attempts = 0
        self._queue = PairQueue()
        self._turns: CallerTurns[Job] = CallerTurns(limits.token_budget)
        self._running: set[asyncio.Task[None]] = set()

    @property
    def waiting_tokens(self) -> int:
        """Tokens in the queue, padding not counted."""
        return self._queue.tokens

    @property
    def backlog_tokens(self) -> int:
        """Tokens in the queue and in the engine, padding not counted."""
        return self._queue.tokens + self._queue.tokens_in_flight

    @property
    def waiting_by_caller(self) -> Mapping[str, int]:
        """The same by caller; what several wait for is counted once, for the first of them."""
        return self._queue.callers

    async def run(self, inputs: TokenisedRequest, caller: str = "") -> FloatArray:
        """Score all pairs of one request, in its order.

        Raises EngineError when a batch with one of its pairs failed twice, or took too long. It
        is no EngineUnavailableError when the engine went down both times.
        Cancelling this call drops the pairs that still wait and that nobody else waits for.
        """
        done: asyncio.Future[FloatArray] = asyncio.get_running_loop().create_future()
        job = Job(len(inputs.lengths), done, self._clock(), caller)
        shared, added = self._queue.shared, self._queue.tokens_added
        self._queue.add(job, inputs, self._cache.get)
        self._telemetry.shared_pairs.inc(self._queue.shared - shared)
        self._telemetry.arrived(self._queue.tokens_added - added)
        if job.waiting:
            self._turns.join(caller, job, sum(pair.length for pair in job.waiting))
        else:
            job.taken = job.submitted
            self._telemetry.queue_seconds.observe(0.0)
        self._dispatch()
        try:
            return await done
        except asyncio.CancelledError:
            self._drop(job)
            raise
        finally:
            now = self._clock()
            taken = min(job.taken, now)
            stages = current_request().stages
            stages.append(Stage("queue", job.submitted, taken))
            stages.append(Stage("infer", taken, now))

    def _drop(self, job: Job) -> None:
        """Take what only `job` waits for out of the queue."""
        self._turns.leave(job.caller, job)
        self._queue.drop(job)

    def _dispatch(self) -> None:
        while len(self._running) < IN_FLIGHT and self._queue and not self._lone_attempts:
            if not self._running:
                self._throughput.begin()
            task = asyncio.create_task(self._execute(self._take()))
            self._running.add(task)
            task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            self._dispatch()
        if not self._running:
            self._throughput.end()

    def _take(self) -> list[Pair]:
        """Remove the next batch from the queue."""
        queue, caller = self._queue, self._turns.caller
        own_places = queue.positions(self._turns.leader)
        chosen = choose_batch(queue.lengths, own_places, self._limits)
        batch, jobs = queue.take(chosen)
        longest = batch[-1].length
        own = len(batch)
        if any(job.caller != caller for job in jobs):
            own = sum(any(job.caller == caller for job, _ in pair.claims) for pair in batch)
        self._turns.spend(own * longest, len(batch) * longest)
        now = self._clock()
        for job in jobs:
            if not job.waiting:
                self._turns.leave(job.caller, job)
                job.taken = now
                self._telemetry.queue_seconds.observe(now - job.submitted)
        return batch

    async def _execute(self, pairs: list[Pair]) -> None:
        try:
            scores = await self._infer(pairs)
        except EngineTimeoutError as error:
            self._lost(pairs, error)
        except EngineUnavailableError as error:
            await self._once_more(pairs, error)
        except EngineError:
            await self._apart(pairs)
        except Exception as error:  # whatever it was, the callers must hear of it
            self._lost(pairs, error)
        else:
            self._scored(pairs, scores)

    async def _apart(self, pairs: list[Pair]) -> None:
        """Once more, each request alone: one of them may be what the engine has no scores for."""
        for own in _by_job(pairs):
            try:
                scores = await self._infer(own)
            except EngineTimeoutError as again:
                self._lost(own, again)
            except EngineUnavailableError as error:
                await self._once_more(own, error)
            except Exception as again:  # as above
                self._lost(own, again)
            else:
                self._scored(own, scores)

    async def _once_more(self, pairs: list[Pair], error: EngineError) -> None:
        """When the engine is back; nothing new is begun before.

        Each request alone and one after the other: one that brings the engine down must not take
        others along a second time, and must not be tried for ever.
        """
        self._lone_attempts += 1
        try:
            async with self._second_attempt:
                for own in _by_job(pairs):
                    await self._attempt_alone(own, error)
        finally:
            self._lone_attempts -= 1

    async def _attempt_alone(self, pairs: list[Pair], error: EngineError) -> None:
        try:
            needless = all(job.done.done() for pair in pairs for job, _ in pair.claims)
            if needless or not await self._engine_works():
                self._lost(pairs, error)
                return
            scores = await self._infer(pairs)
        except EngineTimeoutError as again:
            self._lost(pairs, again)
        except EngineUnavailableError:
            twice = EngineError(
                "the engine went down twice while it had this request; do not send it again"
            )
            self._lost(pairs, twice)
        except Exception as again:  # as above
            self._lost(pairs, again)
        else:
            self._scored(pairs, scores)

    async def _infer(self, pairs: list[Pair]) -> FloatArray:
        types = [pair.types for pair in pairs if pair.types is not None]
        batch = self._assembler.assemble([pair.ids for pair in pairs], types or None)
        real = sum(pair.length for pair in pairs)
        started = self._clock()
        scores = await self._attempt(batch)
        self._telemetry.infer_seconds.observe(self._clock() - started)
        self._telemetry.tokens.inc(real)
        self._telemetry.padded_tokens.inc(batch.input_ids.size)
        self._telemetry.batch_rows.observe(batch.rows)
        self._throughput.finish(real)
        return scores

    async def _attempt(self, batch: Batch) -> FloatArray:
        try:
            scores = await self._engine.infer(batch)
            check_scores(batch, scores)
        except EngineError:
            self._telemetry.batch_failures.inc()
            self._on_failure()
            raise
        return scores

    def _scored(self, pairs: list[Pair], scores: FloatArray) -> None:
        self._queue.landed(pairs)
        values: list[float] = scores.tolist()
        for pair, score in zip(pairs, values, strict=True):
            for job, index in pair.claims:
                job.answer(index, score)
        self._cache.put((pair.key, score) for pair, score in zip(pairs, values, strict=True))

    def _lost(self, pairs: list[Pair], error: Exception) -> None:
        self._queue.landed(pairs)
        for job in {job for pair in pairs for job, _ in pair.claims}:
            self._drop(job)
            if not job.done.done():
                job.done.set_exception(error)


def _by_job(pairs: list[Pair]) -> list[list[Pair]]:
    """The pairs of each request; what several wait for is of the first of them."""
    found: dict[Job, list[Pair]] = {}
    for pair in pairs:
        found.setdefault(pair.claims[0][0], []).append(pair)
    return list(found.values())
