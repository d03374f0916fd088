"""Remembers which optional kinds the cluster has.

Asked anew by each resync, and in between only while a service waits for a missing kind, at most
once in a while for all of them together: a thousand waiting services cost no more than one.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable

from reranker_operator.adapters.discovery import Discovery
from reranker_operator.api.meta import OPTIONAL, Resource
from reranker_operator.errors import OperatorError

logger = logging.getLogger(__name__)

#: Shorter than what a waiting service sleeps, so that each waking finds news.
_PAUSE_SECONDS = 45.0


class OptionalKinds:
    """Kinds of `OPTIONAL` that are there, as of the last look."""

    def __init__(self, discovery: Discovery, clock: Callable[[], float] = time.monotonic) -> None:
        self._discovery = discovery
        self._clock = clock
        self._present: frozenset[Resource] = frozenset()
        self._looked: float | None = None
        self._refused: dict[tuple[Resource, str], float] = {}
        self._lock = asyncio.Lock()

    async def refresh(self) -> None:
        """Asks the API server."""
        answers = [await self._discovery.serves(resource) for resource in OPTIONAL]
        pairs = zip(OPTIONAL, answers, strict=True)
        present = frozenset(resource for resource, there in pairs if there)
        for resource in present ^ self._present:
            news = "is there" if resource in present else "is not there"
            logger.info("kind %s of %s %s", resource.kind, resource.api_version, news)
        self._present, self._looked = present, self._clock()

    async def present(self, asked: Iterable[Resource]) -> frozenset[Resource]:
        """What is there; looks again if some of `asked` is not and the last look is old."""
        async with self._lock:
            if self._looked is None:
                await self.refresh()
            elif self._clock() - self._looked >= _PAUSE_SECONDS and set(asked) - self._present:
                try:
                    await self.refresh()
                except OperatorError as error:
                    # What is there goes on; who waits asks again.
                    logger.warning("kinds can't be looked up: %s", error)
        return self._present

    async def have_changed(self) -> bool:
        """A write found nothing to write to: is it the kind that is gone?"""
        async with self._lock:
            before = self._present
            await self.refresh()
            return self._present != before

    def refuse(self, resource: Resource, namespace: str) -> None:
        """The operator has just been refused this kind there."""
        self._refused[resource, namespace] = self._clock()

    def is_refused(self, resource: Resource, namespace: str) -> bool:
        """So it was a while ago, and nobody need ask again: not each service each time."""
        since = self._refused.get((resource, namespace))
        if since is not None and self._clock() - since >= _PAUSE_SECONDS:
            del self._refused[resource, namespace]
            return False
        return since is not None

    def forget(self, resource: Resource) -> None:
        """It was just found missing."""
        self._present -= {resource}
