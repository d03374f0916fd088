"""The queue of pairs: requests come in whole, leave in batches, and come back whole.

Pairs of all waiting requests lie in one list, ordered by length. Whenever fewer than two batches
are in flight (one running, one ready behind it), the next one is chosen for the request whose turn
it is, and filled up with others' pairs of like length. A request whose client has gone takes its
waiting pairs with it.

    submit ─▶ waiting (by length) ─▶ batch ─▶ engine ─▶ scattered to the requests' results
"""

import asyncio
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator

import numpy as np

from reranker_contracts import ServedModel
from reranker_gateway.assembly import BatchAssembler
from reranker_gateway.batching import BatchLimits, choose_batch
from reranker_gateway.clock import Clock
from reranker_gateway.engine import Batch, Engine, FloatArray, check_scores
from reranker_gateway.errors import EngineError, EngineTimeoutError
from reranker_gateway.telemetry import Telemetry
from reranker_gateway.throughput import Throughput
from reranker_gateway.tokenise import TokenisedRequest
from reranker_gateway.turns import Turns

IN_FLIGHT = 2


class _Job:
    """One request: its inputs, the results so far, and who waits for them."""

    __slots__ = ("done", "inputs", "results", "submitted", "unanswered", "waiting")

    def __init__(
        self, inputs: TokenisedRequest, done: "asyncio.Future[FloatArray]", submitted: float
    ) -> None:
        self.inputs = inputs
        self.done = done
        self.submitted = submitted
        self.results: FloatArray = np.empty(len(inputs.lengths), dtype=np.float32)
        self.unanswered = len(inputs.lengths)
        #: Pairs that are in the queue, as there ascending by length.
        self.waiting: list[_Pair] = []


class _Pair:
    """One passage of a job, waiting or in flight."""

    __slots__ = ("arrival", "index", "job", "length")

    def __init__(self, job: _Job, index: int, arrival: int) -> None:
        self.job = job
        self.index = index
        self.length = job.inputs.lengths[index]
        #: A number of its own, ascending in the order of arrival.
        self.arrival = arrival


def _arrival(pair: _Pair) -> int:
    return pair.arrival


class Scheduler:
    """Batches the pairs of all requests and runs the batches on the engine."""

    def __init__(
        self,
        *,
        engine: Engine,
        model: ServedModel,
        limits: BatchLimits,
        throughput: Throughput,
        telemetry: Telemetry,
        clock: Clock,
        on_failure: Callable[[], None] = lambda: None,
    ) -> None:
        self._engine = engine
        self._assembler = BatchAssembler(model)
        self._limits = limits
        self._throughput = throughput
        self._telemetry = telemetry
        self._clock = clock
        self._on_failure = on_failure
        # Two lists in step, ascending by length; pairs of one length in the order of arrival.
        self._lengths: list[int] = []
        self._pairs: list[_Pair] = []
        self._arrivals = 0
        self._turns: Turns[_Job] = Turns(limits.token_budget)
        self._running: set[asyncio.Task[None]] = set()
        self.waiting_tokens = 0

    async def run(self, inputs: TokenisedRequest) -> FloatArray:
        """Score all pairs of one request, in its order.

        Raises EngineError when a batch with one of its pairs failed twice, or took too long.
        Cancelling this call drops the pairs that still wait.
        """
        job = _Job(inputs, asyncio.get_running_loop().create_future(), self._clock())
        self._enqueue(job)
        self._dispatch()
        try:
            return await job.done
        except asyncio.CancelledError:
            self._drop(job)
            raise

    def _enqueue(self, job: _Job) -> None:
        lengths = job.inputs.lengths
        for index in sorted(range(len(lengths)), key=lengths.__getitem__):
            pair = _Pair(job, index, self._arrivals)
            self._arrivals += 1
            at = bisect_right(self._lengths, pair.length)
            self._lengths.insert(at, pair.length)
            self._pairs.insert(at, pair)
            job.waiting.append(pair)
        self.waiting_tokens += job.inputs.tokens
        self._turns.join(job)

    def _drop(self, job: _Job) -> None:
        """Take the waiting pairs of `job` out of the queue."""
        if not job.waiting:
            return
        self._turns.leave(job)
        self.waiting_tokens -= sum(pair.length for pair in job.waiting)
        job.waiting = []
        self._pairs = [pair for pair in self._pairs if pair.job is not job]
        self._lengths = [pair.length for pair in self._pairs]

    def _dispatch(self) -> None:
        while len(self._running) < IN_FLIGHT and self._pairs:
            if not self._running:
                self._throughput.begin()
            task = asyncio.create_task(self._execute(self._take()))
            self._running.add(task)
            task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            self._dispatch()

    def _take(self) -> list[_Pair]:
        """Remove the next batch from the queue."""
        leader = self._turns.leader
        chosen = choose_batch(self._lengths, self._positions(leader), self._limits)
        batch = [self._pairs[at] for at in chosen]
        for at in reversed(chosen):
            self.waiting_tokens -= self._lengths[at]
            del self._pairs[at], self._lengths[at]
        own = sum(pair.job is leader for pair in batch)
        longest = batch[-1].length
        self._turns.spend(own * longest, len(batch) * longest)
        now = self._clock()
        taken = set(batch)
        for job in {pair.job for pair in batch}:
            job.waiting = [pair for pair in job.waiting if pair not in taken]
            if not job.waiting:
                self._turns.leave(job)
                self._telemetry.queue_seconds.observe(now - job.submitted)
        return batch

    def _positions(self, job: _Job) -> Iterator[int]:
        """Where the pairs of `job` lie in the queue, longest first."""
        for pair in reversed(job.waiting):
            first = bisect_left(self._lengths, pair.length)
            last = bisect_right(self._lengths, pair.length)
            yield bisect_left(self._pairs, pair.arrival, first, last, key=_arrival)

    async def _execute(self, pairs: list[_Pair]) -> None:
        try:
            scores = await self._infer(pairs)
        except Exception as error:  # whatever it was, the callers must hear of it
            self._fail(pairs, error)
            return
        self._scatter(pairs, scores)

    async def _infer(self, pairs: list[_Pair]) -> FloatArray:
        types = [p.job.inputs.types[p.index] for p in pairs if p.job.inputs.types is not None]
        batch = self._assembler.assemble(
            [pair.job.inputs.ids[pair.index] for pair in pairs], types or None
        )
        real = sum(pair.length for pair in pairs)
        started = self._clock()
        try:
            scores = await self._attempt(batch)
        except EngineTimeoutError:
            raise
        except EngineError:
            # Once more: a restarted Triton fails the first call on the old connection.
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

    def _scatter(self, pairs: list[_Pair], scores: FloatArray) -> None:
        for pair, score in zip(pairs, scores, strict=True):
            job = pair.job
            job.results[pair.index] = score
            job.unanswered -= 1
            if job.unanswered == 0 and not job.done.done():
                job.done.set_result(job.results)

    def _fail(self, pairs: list[_Pair], error: Exception) -> None:
        for job in {pair.job for pair in pairs}:
            self._drop(job)
            if not job.done.done():
                job.done.set_exception(error)
