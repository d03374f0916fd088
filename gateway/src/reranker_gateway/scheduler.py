"""The queue of pairs: requests come in whole, leave in batches, and come back whole.

Pairs of all waiting requests lie in one list, ordered by length. Whenever fewer than two batches
are in flight (one running, one ready behind it), the next one is chosen around the pair that has
waited longest. A request whose client has gone takes its waiting pairs with it.

    submit ─▶ waiting (by length) ─▶ batch ─▶ engine ─▶ scattered to the requests' results
"""

import asyncio
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Callable

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

IN_FLIGHT = 2


class _Job:
    """One request: its inputs, the results so far, and who waits for them."""

    __slots__ = ("done", "inputs", "results", "submitted", "unanswered", "unsent")

    def __init__(
        self, inputs: TokenisedRequest, done: "asyncio.Future[FloatArray]", submitted: float
    ) -> None:
        self.inputs = inputs
        self.done = done
        self.submitted = submitted
        self.results: FloatArray = np.empty(len(inputs.lengths), dtype=np.float32)
        self.unsent = self.unanswered = len(inputs.lengths)


class _Pair:
    """One passage of a job, waiting or in flight."""

    __slots__ = ("index", "job", "length", "waiting")

    def __init__(self, job: _Job, index: int, length: int) -> None:
        self.job = job
        self.index = index
        self.length = length
        self.waiting = True


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
        self._arrivals: deque[_Pair] = deque()
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
        # Longest first, so that a request alone is split from the top without narrow leftovers.
        for index in sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True):
            pair = _Pair(job, index, lengths[index])
            at = bisect_right(self._lengths, pair.length)
            self._lengths.insert(at, pair.length)
            self._pairs.insert(at, pair)
            self._arrivals.append(pair)
        self.waiting_tokens += job.inputs.tokens

    def _drop(self, job: _Job) -> None:
        """Take the waiting pairs of `job` out of the queue."""
        kept = [pair for pair in self._pairs if pair.job is not job]
        if len(kept) == len(self._pairs):
            return
        for pair in self._pairs:
            if pair.job is job:
                pair.waiting = False
                self.waiting_tokens -= pair.length
        self._pairs = kept
        self._lengths = [pair.length for pair in kept]
        # Batches that are taken clear it too, but none is taken while the engine hangs.
        self._arrivals = deque(pair for pair in self._arrivals if pair.waiting)

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
        while not self._arrivals[0].waiting:
            self._arrivals.popleft()
        # The first pair of its length is the oldest one: equal lengths lie in order of arrival.
        oldest = bisect_left(self._lengths, self._arrivals[0].length)
        chosen = choose_batch(self._lengths, oldest, self._limits)
        batch = self._pairs[chosen]
        self.waiting_tokens -= sum(self._lengths[chosen])
        del self._pairs[chosen], self._lengths[chosen]
        now = self._clock()
        for pair in batch:
            pair.waiting = False
            pair.job.unsent -= 1
            if pair.job.unsent == 0:
                self._telemetry.queue_seconds.observe(now - pair.job.submitted)
        if not self._pairs:
            self._arrivals.clear()
        return batch

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
        for job in {id(pair.job): pair.job for pair in pairs}.values():
            self._drop(job)
            if not job.done.done():
                job.done.set_exception(error)
