"""Workers: take a key, reconcile it, put it back if it failed."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from reranker_operator.errors import OperatorError, Unavailable
from reranker_operator.runtime.metrics import Metrics
from reranker_operator.runtime.queue import Key, WorkQueue

logger = logging.getLogger(__name__)

Reconcile = Callable[[Key], Awaitable[float | None]]


class Workers:
    """A bounded number of reconciles at the same time."""

    def __init__(
        self, queue: WorkQueue, reconcile: Reconcile, metrics: Metrics, *, count: int
    ) -> None:
        self._queue = queue
        self._reconcile = reconcile
        self._metrics = metrics
        self._count = count

    async def run(self) -> None:
        """Until the queue is closed."""
        async with asyncio.TaskGroup() as group:
            for _ in range(self._count):
                group.create_task(self._work())

    async def _work(self) -> None:
        while (key := await self._queue.get()) is not None:
            try:
                await self._one(key)
            finally:
                self._queue.done(key)

    async def _one(self, key: Key) -> None:
        try:
            with self._metrics.reconcile(key.kind):
                requeue_after = await self._reconcile(key)
        except Unavailable as error:
            delay = self._queue.retry(key, at_least=error.retry_after or 0.0)
            logger.warning("%s: %s; again in %.0f s", key, error, delay)
        except OperatorError as error:
            logger.warning("%s: %s; again in %.0f s", key, error, self._queue.retry(key))
        except Exception:
            # A defect of ours in one object must not stop the others.
            logger.exception("%s failed; again in %.0f s", key, self._queue.retry(key))
        else:
            self._queue.forget(key)
            if requeue_after is not None:
                self._queue.add_after(key, requeue_after)
