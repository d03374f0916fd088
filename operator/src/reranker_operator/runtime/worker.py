"""Workers: take a key, reconcile it, put it back if it failed.

A reconcile that hangs, behind a webhook of somebody's for example, has its place taken by another.
All that hang together are bounded, and shared among the namespaces: one that has keys which hang
may have no more than half as many at work as there are places left. So one alone gets a third, and
with each that hangs as well all of them get less, but something is left for those that don't.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable

from reranker_operator.errors import Forbidden, OperatorError, Unavailable
from reranker_operator.runtime.metrics import Metrics
from reranker_operator.runtime.queue import Key, WorkQueue

logger = logging.getLogger(__name__)

Reconcile = Callable[[Key], Awaitable[float | None]]

#: Seconds after which a reconcile no longer counts: it waits for an answer that does not come, and
#: others must not wait for it.
_PATIENCE = 0.5
#: Reconciles at the same time, those that hang included.
_MOST = 64
#: Seconds; when the API server is back, nobody should wait for minutes.
_LONGEST_OUTAGE_DELAY = 30.0


class Workers:
    """A bounded number of reconciles at the same time; one that hangs has its place taken."""

    def __init__(
        self,
        queue: WorkQueue,
        reconcile: Reconcile,
        metrics: Metrics,
        *,
        count: int,
        patience: float = _PATIENCE,
    ) -> None:
        self._queue = queue
        self._reconcile = reconcile
        self._metrics = metrics
        self._count = count
        self._patience = patience
        self._places = asyncio.Semaphore(count)
        self._most = max(count, _MOST)
        self._all = asyncio.Semaphore(self._most)
        #: Keys by namespace: all at work, and those of them that hang.
        self._busy: Counter[str] = Counter()
        self._hanging: Counter[str] = Counter()

    async def run(self) -> None:
        """Until the queue is closed."""
        async with asyncio.TaskGroup() as group:
            while True:
                await self._all.acquire()
                await self._places.acquire()
                key = await self._queue.get(self._is_full)
                if key is None:
                    return
                self._busy[key.namespace] += 1
                group.create_task(self._work(key))

    def _is_full(self, namespace: str) -> bool:
        if not self._hanging[namespace]:
            return False
        return 2 * self._busy[namespace] >= self._most - self._hanging.total()

    async def _work(self, key: Key) -> None:
        place = _Place(self._places, self._hanging, key.namespace)
        timer = asyncio.get_running_loop().call_later(self._patience, place.hangs)
        try:
            await self._one(key)
        finally:
            timer.cancel()
            place.leave()
            self._all.release()
            _less(self._busy, key.namespace)
            self._queue.done(key)

    async def _one(self, key: Key) -> None:
        try:
            with self._metrics.reconcile(key.kind):
                requeue_after = await self._reconcile(key)
        except (Unavailable, Forbidden) as error:
            # Nobody tells when the API server is back or a right is given.
            hold = (error.retry_after or 0.0) if isinstance(error, Unavailable) else 0.0
            delay = self._queue.retry(key, hold=hold, longest=_LONGEST_OUTAGE_DELAY)
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


class _Place:
    """One of the counted places, or one among those that hang."""

    def __init__(self, places: asyncio.Semaphore, hanging: Counter[str], namespace: str) -> None:
        self._places = places
        self._hanging = hanging
        self._namespace = namespace
        self._hangs = False

    def hangs(self) -> None:
        """Somebody else may work."""
        self._hangs = True
        self._hanging[self._namespace] += 1
        self._places.release()

    def leave(self) -> None:
        """The work is done."""
        if self._hangs:
            _less(self._hanging, self._namespace)
        else:
            self._places.release()


def _less(counter: Counter[str], namespace: str) -> None:
    """Without keeping those that have none."""
    counter[namespace] -= 1
    if not counter[namespace]:
        del counter[namespace]
