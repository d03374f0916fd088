"""A Cluster whose reads come from memory, for the kinds that are watched.

Three things keep the memory right: watch events (`observe`), the answers to our own writes, and
full lists (`relist`), since a watch that was cut may never tell of a deletion. A read that finds
nothing asks the API server: objects of somebody else's, which the label selectors of the watches
hide, must not seem absent. A write that is refused corrects the memory, too.

What is decided by it may be a moment old. That is safe, since deletions name the uid (and, where it
matters, the version) of what was seen, creations fail where the name is taken, and all else is put
right by the next look.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Collection, Hashable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from reranker_operator.adapters.cluster import Cluster, Items, Json, facets_of
from reranker_operator.adapters.store import News, Store
from reranker_operator.api.meta import GROUP, NODE, RESOURCES, Resource
from reranker_operator.core.nodes import Nodes
from reranker_operator.errors import Conflict, Forbidden, NotFound, OperatorError, Rejected

#: Seconds for which a list of nodes is good enough. They change all the time and decide little.
_NODES_SECONDS = 30.0
_WRITER: ContextVar[Hashable] = ContextVar("writer", default=None)
_Place = tuple[str, str, str]
#: What was asked for and was not there, in this look at an object.
_MISSED: ContextVar[set[_Place] | None] = ContextVar("missed", default=None)


@contextmanager
def writing_as(writer: Hashable) -> Iterator[None]:
    """Within, writes are this one's: their echoes are no news to it.

    It also asks only once for what is not there.
    """
    token, missed = _WRITER.set(writer), _MISSED.set(set())
    try:
        yield
    finally:
        _WRITER.reset(token)
        _MISSED.reset(missed)


class CachingCluster:
    """Reads of `watched` kinds from memory, everything else live.

    `watched` maps a kind to the labels that its watch selects by; None: all objects.
    """

    def __init__(
        self,
        live: Cluster,
        watched: Mapping[Resource, Mapping[str, str] | None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._live = live
        self._clock = clock
        self._store = Store(watched, clock)
        self._nodes = Nodes()
        self._nodes_until = float("-inf")
        self._nodes_fetch: asyncio.Task[None] | None = None

    # What keeps the memory right.

    def observe(self, kind: str, event: str | None, body: Mapping[str, Any]) -> News:
        """Takes a watch event in; `event` is ADDED, MODIFIED, DELETED or None (from a list)."""
        return self._store.observe(kind, event, body)

    async def relist(self, namespace: str | None, kind: str | None = None) -> Items:
        """Reads every watched kind, or one, anew, in one namespace or (None) everywhere.

        Returns what was in memory and is gone.
        """
        gone: Items = []
        for name in [kind] if kind else list(self._store.shelves):
            gone += await self._relist(name, namespace)
        self._store.clean()
        return gone

    async def _relist(self, kind: str, namespace: str | None) -> Items:
        shelf, began, uids = self._store.shelves[kind], self._store.turn, set()
        try:
            async for page in self._live.pages(RESOURCES[kind], namespace, shelf.selector):
                uids |= {item["metadata"]["uid"] for item in page}
                for item in page:
                    self._store.put(kind, item)
        except (NotFound, Forbidden):
            shelf.listed.discard(namespace)
            if shelf.resource.group == GROUP:
                raise
            # A kind that this cluster does not know or let us see, or not yet.
            return []
        shelf.listed.add(namespace)
        return self._store.forget_all_but(shelf, namespace, uids, began)

    def names(self, resource: Resource, namespace: str) -> tuple[str, ...]:
        """Names of a watched kind's objects that are in memory."""
        return tuple(self._store.shelves[resource.kind].spaces.get(namespace, ()))

    # The protocol: reads.

    async def get(self, resource: Resource, namespace: str, name: str) -> Json:
        """One object. Raises NotFound."""
        shelf = self._store.shelves.get(resource.kind)
        entry = shelf.entry(namespace, name) if shelf else None
        if entry is not None:
            return entry.body()
        missed, place = _MISSED.get(), (resource.kind, namespace, name)
        if missed is not None and place in missed:
            raise NotFound(f"{resource.kind} {name} was not there a moment ago")
        try:
            return await self._look(resource, namespace, name)
        except NotFound:
            if missed is not None and shelf is not None:
                missed.add(place)
            raise

    async def list(
        self,
        resource: Resource,
        namespace: str | None,
        selector: Mapping[str, str] | None = None,
        *,
        fields: Mapping[str, str] | None = None,
    ) -> Items:
        """All objects with these labels and fields; namespace None means everywhere."""
        if resource is NODE and not selector and not fields:
            return await self._list_nodes()
        shelf = self._store.shelves.get(resource.kind)
        # Which fields can select, and how, only the API server knows.
        if shelf is None or fields or not shelf.knows(namespace):
            return await self._live.list(resource, namespace, selector, fields=fields)
        return [entry.body() for entry in shelf.select(namespace, selector)]

    async def related(self, resource: Resource, namespace: str, facets: Collection[str]) -> Items:
        """Objects of the namespace that have any of these facets."""
        shelf = self._store.shelves.get(resource.kind)
        if shelf is None or not shelf.faceted or not shelf.knows(namespace):
            wanted = set(facets)
            found = await self.list(resource, namespace)
            return [entry for entry in found if not wanted.isdisjoint(facets_of(entry))]
        return [entry.body() for entry in shelf.related(namespace, facets)]

    async def pages(
        self,
        resource: Resource,
        namespace: str | None,
        selector: Mapping[str, str] | None = None,
    ) -> AsyncIterator[Items]:
        """As `list`, in parts."""
        yield await self.list(resource, namespace, selector)

    async def _list_nodes(self) -> Items:
        """One call for all who ask at the same time; nobody changes what all of them get."""
        if self._nodes_fetch is None and self._clock() >= self._nodes_until:
            self._nodes_fetch = asyncio.create_task(self._fetch_nodes())
        if self._nodes_fetch is not None:
            await asyncio.shield(self._nodes_fetch)
        return self._nodes

    async def _fetch_nodes(self) -> None:
        try:
            pages = self._live.pages(NODE, None)
            self._nodes = Nodes([_trimmed(node) async for page in pages for node in page])
            self._nodes_until = self._clock() + _NODES_SECONDS
        finally:
            self._nodes_fetch = None

    async def _look(self, resource: Resource, namespace: str, name: str) -> Json:
        """Ask the API server, and remember what the watch will go on telling of."""
        shelf = self._store.shelves.get(resource.kind)
        began = self._store.turn
        try:
            found = await self._live.get(resource, namespace, name)
        except NotFound:
            entry = shelf.entry(namespace, name) if shelf else None
            if shelf is not None and entry is not None and entry.turn <= began:
                shelf.remove(namespace, name)
            raise
        labels = found["metadata"].get("labels") or {}
        if shelf is not None and (shelf.selector or {}).items() <= labels.items():
            self._store.put(resource.kind, found)
        return found

    # The protocol: writes.

    async def apply(self, manifest: Json, manager: str) -> Json:
        """Server-side apply, forced; returns the merged object."""
        async with _Correction(self, *_place(manifest)):
            return self._answer(await self._live.apply(manifest, manager), manifest["kind"])

    async def apply_status(self, manifest: Json, manager: str) -> Json:
        """Server-side apply of the status subresource. Raises NotFound."""
        async with _Correction(self, *_place(manifest)):
            return self._answer(await self._live.apply_status(manifest, manager), manifest["kind"])

    async def create(self, manifest: Json) -> Json:
        """Create. Raises Conflict when the name is taken."""
        # One whose name is made by the server can't be in the way of another.
        if "name" not in manifest["metadata"]:
            return await self._live.create(manifest)
        async with _Correction(self, *_place(manifest)):
            return self._answer(await self._live.create(manifest), manifest["kind"])

    async def merge_patch(self, resource: Resource, namespace: str, name: str, patch: Json) -> Json:
        """JSON merge patch. Raises NotFound or, with a resourceVersion in it, Conflict."""
        async with _Correction(self, resource, namespace, name):
            after = await self._live.merge_patch(resource, namespace, name, patch)
            return self._answer(after, resource.kind)

    async def scale(self, resource: Resource, namespace: str, name: str, replicas: int) -> None:
        """Set the number of pods through the scale subresource. Raises NotFound."""
        await self._live.scale(resource, namespace, name, replicas)
        # The answer is a Scale, not the object.
        await self.refresh(resource, namespace, name)

    async def json_patch(self, resource: Resource, namespace: str, name: str, patch: Items) -> Json:
        """JSON patch. Raises NotFound, and Rejected where a `test` in it fails."""
        async with _Correction(self, resource, namespace, name):
            after = await self._live.json_patch(resource, namespace, name, patch)
            return self._answer(after, resource.kind)

    async def delete(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        uid: str | None = None,
        version: str | None = None,
    ) -> None:
        """Delete with dependents in the background; gone, replaced or changed since is fine."""
        shelf = self._store.shelves.get(resource.kind)
        before = shelf.entry(namespace, name) if shelf else None
        await self._live.delete(resource, namespace, name, uid, version)
        # What the watch told meanwhile is newer. The object may stay for a while, with a
        # deletionTimestamp: the watch tells of that as well.
        if (
            shelf is not None
            and before is not None
            and shelf.entry(namespace, name) is before
            and uid in (None, before.uid)
            and version in (None, str(before.version))
        ):
            shelf.remove(namespace, name)

    def _answer(self, body: Json, kind: str) -> Json:
        self._store.put(kind, body, _WRITER.get())
        return body

    async def refresh(self, resource: Resource, namespace: str, name: str) -> None:
        """What is in memory of this object has proved wrong, perhaps: look again."""
        if resource.kind in self._store.shelves:
            if (missed := _MISSED.get()) is not None:
                missed.discard((resource.kind, namespace, name))
            try:
                await self._look(resource, namespace, name)
            except OperatorError:
                # Gone, or out of reach: the memory is right, or the next event puts it right.
                return


class _Correction:
    """A write that is refused tells that the memory is wrong, perhaps."""

    def __init__(
        self, cluster: CachingCluster, resource: Resource, namespace: str, name: str
    ) -> None:
        self._cluster = cluster
        self._place = (resource, namespace, name)

    async def __aenter__(self) -> None:
        return None

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and issubclass(kind, NotFound | Conflict | Rejected):
            await self._cluster.refresh(*self._place)


def _place(manifest: Json) -> tuple[Resource, str, str]:
    meta = manifest["metadata"]
    return RESOURCES[manifest["kind"]], meta["namespace"], meta["name"]


def _trimmed(node: Json) -> Json:
    """What decisions look at: not the images and annotations, by far the most of a node."""
    meta, spec, status = node["metadata"], node.get("spec", {}), node.get("status", {})
    return {
        "kind": NODE.kind,
        "metadata": {"name": meta["name"], "labels": meta.get("labels", {})},
        "spec": {key: spec[key] for key in ("taints", "unschedulable") if key in spec},
        "status": {key: status[key] for key in ("allocatable", "conditions") if key in status},
    }
