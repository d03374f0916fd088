"""Looks at every object once in a while: repairs lost events, drift and ghosts.

It starts from live lists, which put the memory right: a watch that was cut keeps ghosts.
"""

import asyncio
import logging
import random
import time
from collections.abc import Callable, Sequence

from reranker_operator.adapters.cache import CachingCluster
from reranker_operator.adapters.cluster import Json
from reranker_operator.api.meta import RERANKER_ENGINE, RERANKER_SERVICE
from reranker_operator.errors import Forbidden, OperatorError
from reranker_operator.runtime.fleet import Fleet
from reranker_operator.runtime.optional_kinds import OptionalKinds
from reranker_operator.runtime.queue import Key, Lane, WorkQueue

logger = logging.getLogger(__name__)

_RETRY_SECONDS = 10.0


class Resync:
    """`missed` is told of objects whose end nobody told.

    `last_finished` is on the event loop's clock, `finished_at` in Unix time. `tried` is set once
    the first list has ended, in whatever way: who reads before that asks for each list anew.
    """

    def __init__(
        self,
        cluster: CachingCluster,
        queue: WorkQueue,
        fleet: Fleet,
        namespaces: Sequence[str],
        *,
        seconds: float,
        missed: Callable[[Json], None] = lambda _: None,
        jitter: Callable[[], float] = random.random,
        clock: Callable[[], float] | None = None,
        kinds: OptionalKinds | None = None,
    ) -> None:
        self._cluster = cluster
        self._queue = queue
        self._fleet = fleet
        self._namespaces: Sequence[str | None] = namespaces or [None]
        self._kinds = kinds
        self._missed = missed
        self._jitter = jitter
        self._clock = clock or (lambda: asyncio.get_running_loop().time())
        self.seconds = seconds
        self.last_finished: float | None = None
        self.finished_at: float | None = None
        self.tried = asyncio.Event()

    async def run(self) -> None:
        """Forever; cancelled at the end."""
        while True:
            try:
                await self.once()
                pause = self.seconds * (0.9 + 0.2 * self._jitter())
            except OperatorError as error:
                logger.warning("resync: %s; again in %.0f s", error, _RETRY_SECONDS)
                pause = _RETRY_SECONDS
            self.tried.set()
            await asyncio.sleep(pause)

    async def once(self) -> None:
        """Queue every object that exists now."""
        if self._kinds is not None:
            await self._kinds.refresh()
        self._fleet.begin_list()
        found: list[Json] = []
        for namespace in self._namespaces:
            try:
                found += await self._look_into(namespace)
            except Forbidden as error:
                # A watched namespace that was deleted takes our Role along; the others go on.
                logger.warning("resync: %s", error)
        self._fleet.end_list(found)
        if self.last_finished is None:
            self._queue.mark()
        self.last_finished, self.finished_at = self._clock(), time.time()

    async def _look_into(self, namespace: str | None) -> list[Json]:
        for body in await self._cluster.relist(namespace):
            self._missed(body)
        found = []
        for resource in (RERANKER_SERVICE, RERANKER_ENGINE):
            for entry in await self._cluster.list(resource, namespace):
                meta = entry["metadata"]
                key = Key(resource.kind, meta["namespace"], meta["name"])
                self._queue.add(key, Lane.BACKGROUND)
                found.append(entry)
        return found
