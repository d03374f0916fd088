"""What follows from an event of a watch: memory, metrics, and who has to look again.

kopf lists a kind anew when its watch was cut for too long, and never says what vanished meanwhile.
Its entries come as events without a type: the first of them after the start has the kind listed by
us as well, which finds what is gone.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from reranker_operator.adapters.cache import CachingCluster
from reranker_operator.api.meta import (
    DEPLOYMENT,
    POD,
    PVC,
    RERANKER_ENGINE,
    RERANKER_SERVICE,
)
from reranker_operator.core import diagnose
from reranker_operator.errors import Forbidden, OperatorError
from reranker_operator.names import SERVICE_LABEL
from reranker_operator.runtime.fleet import Fleet
from reranker_operator.runtime.queue import Key, Lane, WorkQueue

logger = logging.getLogger(__name__)

KeysOf = Callable[[str, Mapping[str, Any]], list[Key]]

#: Seconds; what happens to children comes in bursts, of which the last counts.
_CHILD_DELAY = 0.1
#: Seconds between entries of the same list.
_BURST = 10.0
#: Seconds between two lists of ours.
_PAUSE = 5.0
_OWN = frozenset({RERANKER_SERVICE.kind, RERANKER_ENGINE.kind})


class Watch:
    """Takes events in; never waits."""

    def __init__(
        self,
        cluster: CachingCluster,
        queue: WorkQueue,
        fleet: Fleet,
        keys_of: KeysOf,
        namespaces: Sequence[str],
        *,
        child_delay: float = _CHILD_DELAY,
        pause: float = _PAUSE,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self._cluster = cluster
        self._queue = queue
        self._fleet = fleet
        self._keys_of = keys_of
        self._namespaces: Sequence[str | None] = namespaces or [None]
        self._child_delay = child_delay
        self._pause = pause
        self._clock = clock or (lambda: asyncio.get_running_loop().time())
        self._began: float | None = None
        self._listing: dict[str, float] = {}
        self._cut: dict[str, None] = {}
        self._wake = asyncio.Event()

    def saw(self, kind: str, event: str | None, body: Mapping[str, Any]) -> None:
        """An event of a watch: ADDED, MODIFIED, DELETED, or None for an entry of a list."""
        self._notice_lists(kind, event)
        news = self._cluster.observe(kind, event, body)
        if kind in _OWN and not news.stale:
            self._tell_fleet(kind, event, body)
        if news.quiet:
            return
        for key in self._interested(kind, body):
            if key == news.writer:
                continue
            if event is None:
                self._queue.add(key, Lane.BACKGROUND)
            elif kind in _OWN or not self._child_delay:
                self._queue.add(key)
            else:
                self._queue.add_after(key, self._child_delay)

    def missed(self, body: Mapping[str, Any]) -> None:
        """A list has shown that this object, which was in memory, is gone."""
        kind = str(body["kind"])
        if kind in _OWN:
            self._tell_fleet(kind, "DELETED", body)
        for key in self._interested(kind, body):
            self._queue.add(key)

    async def run(self) -> None:
        """Lists anew what kopf has listed anew; forever, cancelled at the end."""
        while True:
            await self._wake.wait()
            kind = next(iter(self._cut), None)
            if kind is None:
                self._wake.clear()
                continue
            del self._cut[kind]
            try:
                await self._find_missed(kind)
            except OperatorError as error:
                logger.warning("list of %s: %s; again in %.0f s", kind, error, self._pause)
                self._cut[kind] = None
            await asyncio.sleep(self._pause)

    async def _find_missed(self, kind: str) -> None:
        logger.info("the watch of %s was cut; looking for what vanished", kind)
        for namespace in self._namespaces:
            try:
                gone = await self._cluster.relist(namespace, kind)
            except Forbidden as error:
                # As in a resync: a namespace that was deleted must not be in the others' way.
                logger.warning("list of %s: %s", kind, error)
                continue
            for body in gone:
                self.missed(body)

    def _notice_lists(self, kind: str, event: str | None) -> None:
        now = self._clock()
        if self._began is None:
            self._began = now
        if event is not None:
            # From now on a list is a new one.
            self._listing[kind] = min(self._listing.get(kind, 0.0), now - _BURST)
            return
        last = self._listing.get(kind, self._began)
        self._listing[kind] = now
        if now - last >= _BURST and kind not in self._cut:
            self._cut[kind] = None
            self._wake.set()

    def _tell_fleet(self, kind: str, event: str | None, body: Mapping[str, Any]) -> None:
        meta = body["metadata"]
        if event == "DELETED":
            self._fleet.lost(Key(kind, str(meta.get("namespace", "")), str(meta["name"])))
        else:
            self._fleet.saw({**body, "kind": kind})

    def _interested(self, kind: str, body: Mapping[str, Any]) -> list[Key]:
        keys = self._keys_of(kind, body["metadata"])
        if kind == PVC.kind:
            # Not all who need a claim own it. It changes seldom.
            namespace = str(body["metadata"].get("namespace", ""))
            return [*dict.fromkeys([*keys, *self._services_of(namespace)])]
        labels = body["metadata"].get("labels") or {}
        serves = kind in (POD.kind, DEPLOYMENT.kind) and SERVICE_LABEL in labels
        if serves and not (kind == POD.kind and _tells_of_engine(body)):
            # Of what serves it an engine hears only this.
            return [key for key in keys if key.kind != RERANKER_ENGINE.kind]
        return keys

    def _services_of(self, namespace: str) -> list[Key]:
        names = self._cluster.names(RERANKER_SERVICE, namespace)
        return [Key(RERANKER_SERVICE.kind, namespace, name) for name in names]


def _tells_of_engine(pod: Mapping[str, Any]) -> bool:
    try:
        return diagnose.tells_of_engine(pod)
    except (AttributeError, LookupError, TypeError, ValueError):
        # Somebody else's pod with our labels; a look too many does no harm.
        return True
