"""Readiness: Triton has the model, it was warmed up, and batches do not fail.

A server can report a model as ready while every batch fails (a crashed backend process, a lost
GPU). So a failed batch is followed by a small one of our own: if that fails too, traffic must go
elsewhere; if it does not, the fault was in the batch.

A Triton that crashed is started again within seconds. For as long as our patience lasts the server
stays ready and requests wait: there may be no other to go to. One that hangs is not waited for.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress

from reranker_contracts import ServedModel
from reranker_gateway.assembly import BatchAssembler
from reranker_gateway.batching import BatchLimits
from reranker_gateway.clock import Clock
from reranker_gateway.engine import Engine, check_scores
from reranker_gateway.errors import EngineError, EngineTimeoutError, EngineUnavailableError
from reranker_gateway.throughput import Throughput

_INTERVAL = 1.0
#: While requests wait for the engine.
_SHORT_INTERVAL = 0.1
_SHORTEST_BUCKET = 64
#: A full batch is run only where one row foretells less than this: on a CPU it would warm nothing
#: that a single row does not, and hold up a pod that traffic waits for.
_FULL_BATCH_SECONDS = 1.0
#: No further bucket is begun after this: a long-context model on a small CPU must get ready too.
_WARM_UP_SECONDS = 30.0
_log = logging.getLogger(__name__)


def warm_up_lengths(max_length: int) -> Iterator[int]:
    """64, 128, 256 … and `max_length` itself."""
    length = _SHORTEST_BUCKET
    while length < max_length:
        yield length
        length *= 2
    yield max_length


class WarmUp:
    """Runs every length bucket once, so that no caller pays for first-time work."""

    def __init__(
        self,
        *,
        engine: Engine,
        model: ServedModel,
        max_length: int,
        limits: BatchLimits,
        throughput: Throughput,
        clock: Clock,
    ) -> None:
        self._engine = engine
        self._assembler = BatchAssembler(model)
        self._max_length = max_length
        self._limits = limits
        self._throughput = throughput
        self._clock = clock

    async def __call__(self) -> None:
        """Raises EngineError when the engine fails on a batch."""
        started = self._clock()
        largest = 0
        for length in warm_up_lengths(self._max_length):
            if self._clock() - started > _WARM_UP_SECONDS:
                _log.warning("warm-up ended before length %d: it took too long", length)
                return
            seconds = await self._run(1, length)
            rows = max(1, min(self._limits.max_rows, self._limits.token_budget // length))
            if rows * seconds <= _FULL_BATCH_SECONDS:
                seconds = await self._run(rows, length)
            else:
                rows = 1
            if rows * length >= largest:
                largest = rows * length
                self._throughput.seed(largest, seconds)

    async def probe(self) -> None:
        """One short row. Raises EngineError when the engine fails on it."""
        await self._run(1, min(_SHORTEST_BUCKET, self._max_length))

    async def _run(self, rows: int, length: int) -> float:
        started = self._clock()
        batch = self._assembler.uniform(rows, length)
        check_scores(batch, await self._engine.infer(batch))
        return self._clock() - started


class Readiness:
    """Watches the engine; `ready` is what the readiness probe tells."""

    def __init__(
        self,
        engine: Engine,
        warm_up: WarmUp,
        *,
        clock: Clock,
        patience: float = 0.0,
        interval: float = _INTERVAL,
    ) -> None:
        self._engine = engine
        self._warm_up = warm_up
        self._clock = clock
        self._patience = patience
        self._interval = interval
        self._suspicion = asyncio.Event()
        #: Not set while it is open whether the engine works.
        self._judged = asyncio.Event()
        self._judged.set()
        self._away_since: float | None = None
        self._complained = False
        self.ready = False

    @property
    def suspected(self) -> bool:
        """Whether a look is due at once."""
        return self._suspicion.is_set()

    def suspect(self) -> None:
        """A batch has just failed: look at once."""
        self._suspicion.set()
        self._judged.clear()

    async def engine_works(self) -> bool:
        """After a failed batch: wait until the engine works. False when patience is over."""
        await self._judged.wait()
        return self.ready

    async def watch(self) -> None:
        """Run until cancelled."""
        while True:
            suspected = self.suspected
            self._suspicion.clear()
            try:
                await self._look(suspected)
            except Exception:  # a watch that has ended would leave readiness as it is, for good
                _log.exception("not ready: the engine cannot be looked at")
                self._lose()
            if self._away_since is None and not self.suspected:
                self._judged.set()
            with suppress(TimeoutError):
                async with asyncio.timeout(self._pause):
                    await self._suspicion.wait()

    @property
    def _pause(self) -> float:
        return self._interval if self._away_since is None else _SHORT_INTERVAL

    async def _look(self, suspected: bool) -> None:
        try:
            loaded = await self._engine.ready()
        except EngineTimeoutError:
            self._lose("the engine does not answer")
            return
        if not loaded:
            self._miss()
        elif not self.ready:
            await self._try(self._warm_up)
        elif suspected or self._away_since is not None:
            await self._try(self._warm_up.probe)

    def _miss(self) -> None:
        """The engine is away; it counts as lost when it stays away."""
        now = self._clock()
        if not self.ready:
            return
        if self._away_since is None:
            self._away_since = now
            self._judged.clear()
            _log.warning("the engine is away; requests wait %g s for it", self._patience)
        if now - self._away_since >= self._patience:
            self._lose("the engine is away")

    def _lose(self, why: str | None = None) -> None:
        if why and self.ready:
            _log.warning("not ready: %s", why)
        self.ready = False
        self._away_since = None

    async def _try(self, run: Callable[[], Awaitable[None]]) -> None:
        """Ready is whether `run` succeeds; only changes are logged."""
        try:
            await run()
        except EngineError as error:
            if self.ready and _may_come_back(error):
                self._miss()
                return
            if self.ready or not self._complained:
                _log.warning("not ready: the engine is loaded but fails: %s", error)
            self._lose()
            self._complained = True
            return
        if not self.ready:
            _log.info("warmed up; ready")
        elif self._away_since is not None:
            _log.info("the engine is back after %.1f s", self._clock() - self._away_since)
        self.ready = True
        self._away_since = None
        self._complained = False


def _may_come_back(error: EngineError) -> bool:
    return isinstance(error, EngineUnavailableError) and not isinstance(error, EngineTimeoutError)
