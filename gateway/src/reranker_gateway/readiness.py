"""Readiness: Triton has the model, and it was warmed up since Triton last started."""

import asyncio
import logging
from collections.abc import Iterator
from contextlib import suppress

from reranker_contracts import ServedModel
from reranker_gateway.assembly import BatchAssembler
from reranker_gateway.batching import BatchLimits
from reranker_gateway.clock import Clock
from reranker_gateway.engine import Engine
from reranker_gateway.errors import EngineError
from reranker_gateway.throughput import Throughput

_INTERVAL = 1.0
_SHORTEST_BUCKET = 64
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
    """Runs one full batch per length bucket, so that no caller pays for first-time work."""

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
        """Raises EngineError when the engine fails on one of the batches."""
        started = self._clock()
        for length in warm_up_lengths(self._max_length):
            if self._clock() - started > _WARM_UP_SECONDS:
                _log.warning("warm-up ended before length %d: it took too long", length)
                return
            rows = max(1, min(self._limits.max_rows, self._limits.token_budget // length))
            self._throughput.begin()
            await self._engine.infer(self._assembler.uniform(rows, length))
            self._throughput.finish(rows * length)


class Readiness:
    """Watches the engine; `ready` is what the readiness probe tells."""

    def __init__(self, engine: Engine, warm_up: WarmUp, interval: float = _INTERVAL) -> None:
        self._engine = engine
        self._warm_up = warm_up
        self._interval = interval
        self._nudge = asyncio.Event()
        self.ready = False

    def suspect(self) -> None:
        """Look at once: a batch has just failed because the engine did not answer."""
        self._nudge.set()

    async def watch(self) -> None:
        """Run until cancelled."""
        while True:
            self._nudge.clear()
            await self._look()
            with suppress(TimeoutError):
                async with asyncio.timeout(self._interval):
                    await self._nudge.wait()

    async def _look(self) -> None:
        if not await self._engine.ready():
            if self.ready:
                _log.warning("the engine is away; not ready")
            self.ready = False
            return
        if self.ready:
            return
        try:
            await self._warm_up()
        except EngineError as error:
            _log.warning("warm-up failed: %s", error)
            return
        _log.info("warmed up; ready")
        self.ready = True
