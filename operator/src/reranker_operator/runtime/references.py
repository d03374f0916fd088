"""Keeps the versions of the Secrets and ConfigMaps that services name, and wakes the services.

Only objects that somebody asked for are remembered. The first question about one goes to the API
server; from then on a watch tells, and a list after each gap. The newest resourceVersion wins, so
an answer that comes late does no harm.
"""

import asyncio
import logging
import random
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from dataclasses import dataclass

from reranker_operator.adapters.metadata import Change, Metadata, MetadataApi
from reranker_operator.api.meta import RESOURCES, Resource
from reranker_operator.core.backoff import doubled
from reranker_operator.core.world import Reference
from reranker_operator.errors import Expired, Forbidden, NotFound, OperatorError
from reranker_operator.runtime.queue import Key

logger = logging.getLogger(__name__)

_FIRST_DELAY = 1.0
_LONGEST_DELAY = 60.0
#: A watch that ends sooner has achieved nothing: a server that does so must not be hurried.
_SHORTEST_WATCH = 5.0

_Place = tuple[str, Reference]


@dataclass(frozen=True)
class _Seen:
    """An object as it was seen last; without uid it was not there."""

    version: int
    uid: str | None


class References:
    """Versions by object; `add` queues the services that name one that has changed."""

    def __init__(
        self,
        api: MetadataApi,
        add: Callable[[Key], None],
        *,
        kinds: Collection[str],
        namespaces: Sequence[str] = (),
        jitter: Callable[[], float] = random.random,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._api = api
        self._add = add
        self._kinds = frozenset(kinds)
        self._namespaces: Sequence[str | None] = namespaces or [None]
        self._jitter = jitter
        self._sleep = sleep
        self._clock = clock
        self._wanted: dict[Key, frozenset[_Place]] = {}
        self._askers: defaultdict[_Place, set[Key]] = defaultdict(set)
        self._seen: dict[_Place, _Seen] = {}
        self._forbidden: set[str] = set()
        self._needed = {kind: asyncio.Event() for kind in self._kinds}

    async def versions(
        self, key: Key, references: Iterable[Reference]
    ) -> dict[Reference, str | None]:
        """What is known of these; the service `key` is told when one of them changes."""
        watched = {entry for entry in references if entry.kind in self._kinds}
        # First, so that nothing is missed between the answer and the next event.
        self._remember(key, frozenset((key.namespace, entry) for entry in watched))
        known: dict[Reference, str | None] = {}
        for entry in sorted(watched):
            place = (key.namespace, entry)
            seen = self._seen.get(place)
            if seen is None or seen.uid is None:
                seen = await self._ask(place)
            if seen is not None:
                known[entry] = f"{seen.uid}/{seen.version}" if seen.uid else None
        return known

    def forget(self, key: Key) -> None:
        """The service is gone."""
        self._remember(key, frozenset())

    def observe(self, kind: str, change: Change) -> None:
        """Takes an event of a watch in."""
        found = change.found
        place = _place(kind, found)
        if place in self._askers:
            uid = None if change.kind == "DELETED" else found.uid
            self._put(place, _Seen(found.version, uid))

    def listed(
        self, kind: str, namespace: str | None, found: Iterable[Metadata], version: int
    ) -> None:
        """Takes a whole list in: what is not on it is gone."""
        there = {_place(kind, entry): entry for entry in found}
        for place in list(self._askers):
            if place[1].kind != kind or namespace not in (None, place[0]):
                continue
            entry = there.get(place)
            self._put(place, _Seen(entry.version, entry.uid) if entry else _Seen(version, None))

    async def run(self) -> None:
        """Watch forever; cancelled at the end."""
        async with asyncio.TaskGroup() as tasks:
            for kind in sorted(self._kinds):
                for namespace in self._namespaces:
                    tasks.create_task(self._follow(RESOURCES[kind], namespace))

    async def _follow(self, resource: Resource, namespace: str | None) -> None:
        # Where nobody names one, nothing is listed.
        await self._needed[resource.kind].wait()
        failures = 0
        while True:
            began = self._clock()
            try:
                await self._list_and_watch(resource, namespace)
            except Expired as error:
                logger.info("%s: %s; listing anew", resource.plural, error)
            except OperatorError as error:
                logger.warning("changes of %s go unnoticed: %s", resource.plural, error)
            if self._clock() - began >= _SHORTEST_WATCH:
                failures = 0
            delay = doubled(_FIRST_DELAY, failures, _LONGEST_DELAY)
            failures += 1
            await self._sleep(delay * (0.75 + 0.5 * self._jitter()))

    async def _list_and_watch(self, resource: Resource, namespace: str | None) -> None:
        """Until the watch breaks; one that the server ends in time goes on where it was."""
        found, version = await self._api.list(resource, namespace)
        self.listed(resource.kind, namespace, found, version)
        while True:
            began = self._clock()
            async for change in self._api.watch(resource, namespace, version):
                version = max(version, change.found.version)
                if change.kind != "BOOKMARK":
                    self.observe(resource.kind, change)
            if self._clock() - began < _SHORTEST_WATCH:
                return

    def _remember(self, key: Key, places: frozenset[_Place]) -> None:
        before = self._wanted.pop(key, frozenset())
        if places:
            self._wanted[key] = places
        for place in places:
            self._askers[place].add(key)
            self._needed[place[1].kind].set()
        for place in before - places:
            self._askers[place].discard(key)
            if not self._askers[place]:
                del self._askers[place]
                self._seen.pop(place, None)

    async def _ask(self, place: _Place) -> _Seen | None:
        """Of an object that nobody has seen yet, or that was not there."""
        namespace, (kind, name) = place
        before = self._seen.get(place)
        try:
            found = await self._api.get(RESOURCES[kind], namespace, name)
        except NotFound:
            answer = _Seen(before.version if before else 0, None)
        except Forbidden as error:
            if kind not in self._forbidden:
                logger.warning("references to a %s are not looked at: %s", kind, error)
            self._forbidden.add(kind)
            return None
        else:
            answer = _Seen(found.version, found.uid)
        since = self._seen.get(place)
        if since is not None and since != before and since.version >= answer.version:
            # An event came faster.
            return since
        if place in self._askers:
            self._seen[place] = answer
        return answer

    def _put(self, place: _Place, now: _Seen) -> None:
        before = self._seen.get(place)
        if before is not None and before.version > now.version:
            return
        self._seen[place] = now
        if before is None or before.uid != now.uid or (now.uid and before != now):
            for key in sorted(self._askers[place]):
                self._add(key)


def _place(kind: str, found: Metadata) -> _Place:
    # Only kinds that are watched come here.
    return found.namespace, Reference("Secret" if kind == "Secret" else "ConfigMap", found.name)
