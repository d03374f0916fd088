"""A Cluster whose reads come from memory, for the kinds that are watched.

Three things keep the memory right: watch events (`observe`), the answers to our own writes, and
full lists (`relist`), since a watch that was cut may never tell of a deletion. A read that finds
nothing asks the API server: objects of somebody else's, which the label selectors of the watches
hide, must not seem absent.

An object is kept as JSON text, of its `managedFields` only those of `spec.replicas`: a tenth of
what dictionaries take, and a reader that changes what it got changes nothing here.
"""

import json
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from reranker_operator.adapters.cluster import Cluster, Json
from reranker_operator.api.meta import RESOURCES, Resource
from reranker_operator.core.replicas import only_replicas

#: Seconds for which a late answer cannot bring a deleted object back.
_TOMBSTONE_SECONDS = 300.0


@dataclass(frozen=True)
class _Entry:
    uid: str
    version: int
    labels: Mapping[str, str]
    #: When it got here, in puts: a list that began later knows better.
    turn: int
    text: bytes

    def matches(self, selector: Mapping[str, str] | None) -> bool:
        return not selector or all(self.labels.get(key) == selector[key] for key in selector)


@dataclass
class _Shelf:
    """The objects of one kind, by namespace and name."""

    selector: Mapping[str, str] | None
    objects: dict[str, dict[str, _Entry]] = field(default_factory=dict)
    listed: set[str | None] = field(default_factory=set)

    def knows(self, namespace: str | None) -> bool:
        return None in self.listed or namespace in self.listed


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
        self._shelves = {resource.kind: _Shelf(labels) for resource, labels in watched.items()}
        self._tombstones: dict[str, float] = {}
        self._turn = 0

    # What keeps the memory right.

    def observe(self, kind: str, event: str | None, body: Mapping[str, Any]) -> None:
        """Takes a watch event in; `event` is ADDED, MODIFIED, DELETED or None (from a list)."""
        if event == "DELETED":
            self._drop(kind, body["metadata"])
        else:
            self._put(kind, body)

    async def relist(self, namespace: str | None) -> None:
        """Reads every watched kind anew, in one namespace or (None) everywhere."""
        for kind, shelf in self._shelves.items():
            began = self._turn
            items = await self._live.list(RESOURCES[kind], namespace, shelf.selector)
            self._forget_all_but(shelf, namespace, {_uid(item) for item in items}, began)
            for item in items:
                self._put(kind, item)
            shelf.listed.add(namespace)
        now = self._clock()
        self._tombstones = {uid: until for uid, until in self._tombstones.items() if until > now}

    # The protocol.

    async def get(self, resource: Resource, namespace: str, name: str) -> Json:
        """One object. Raises NotFound."""
        shelf = self._shelves.get(resource.kind)
        entry = shelf.objects.get(namespace, {}).get(name) if shelf else None
        if entry is not None:
            return _parse(entry)
        found = await self._live.get(resource, namespace, name)
        if shelf is not None and _Entry("", 0, _labels(found), 0, b"").matches(shelf.selector):
            self._put(resource.kind, found)
        return found

    async def list(
        self,
        resource: Resource,
        namespace: str | None,
        selector: Mapping[str, str] | None = None,
        *,
        fields: Mapping[str, str] | None = None,
    ) -> list[Json]:
        """All objects with these labels and fields; namespace None means everywhere."""
        shelf = self._shelves.get(resource.kind)
        # Which fields can select, and how, only the API server knows.
        if shelf is None or fields or not shelf.knows(namespace):
            return await self._live.list(resource, namespace, selector, fields=fields)
        spaces = shelf.objects.values() if namespace is None else [shelf.objects.get(namespace, {})]
        return [
            _parse(entry) for space in spaces for entry in space.values() if entry.matches(selector)
        ]

    async def apply(self, manifest: Json, manager: str) -> Json:
        """Server-side apply, forced; returns the merged object."""
        return self._answer(manifest["kind"], await self._live.apply(manifest, manager))

    async def apply_status(self, manifest: Json, manager: str) -> Json:
        """Server-side apply of the status subresource. Raises NotFound."""
        return self._answer(manifest["kind"], await self._live.apply_status(manifest, manager))

    async def create(self, manifest: Json) -> Json:
        """Create. Raises Conflict when the name is taken."""
        return self._answer(manifest["kind"], await self._live.create(manifest))

    async def merge_patch(self, resource: Resource, namespace: str, name: str, patch: Json) -> Json:
        """JSON merge patch. Raises NotFound or, with a resourceVersion in it, Conflict."""
        after = await self._live.merge_patch(resource, namespace, name, patch)
        return self._answer(resource.kind, after)

    async def delete(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        uid: str | None = None,
        version: str | None = None,
    ) -> None:
        """Delete with dependents in the background; gone, replaced or changed since is fine."""
        await self._live.delete(resource, namespace, name, uid, version)
        shelf = self._shelves.get(resource.kind)
        entry = shelf.objects.get(namespace, {}).get(name) if shelf else None
        if (
            shelf is not None
            and entry is not None
            and uid in (None, entry.uid)
            and version in (None, str(entry.version))
        ):
            # It may stay for a while, with a deletionTimestamp; the next read asks.
            del shelf.objects[namespace][name]

    # Bookkeeping.

    def _answer(self, kind: str, body: Json) -> Json:
        self._put(kind, body)
        return body

    def _put(self, kind: str, body: Mapping[str, Any]) -> None:
        shelf = self._shelves.get(kind)
        meta = body["metadata"]
        if shelf is None or _uid(body) in self._tombstones:
            return
        space = shelf.objects.setdefault(meta.get("namespace", ""), {})
        before, version = space.get(meta["name"]), int(meta["resourceVersion"])
        if before is not None and before.version > version:
            return
        self._turn += 1
        kept = dict(body) | {"metadata": dict(meta)}
        if meta.get("managedFields") is not None:
            kept["metadata"]["managedFields"] = only_replicas(meta["managedFields"])
        text = json.dumps(kept, separators=(",", ":")).encode()
        space[meta["name"]] = _Entry(_uid(body), version, _labels(body), self._turn, text)

    def _drop(self, kind: str, meta: Mapping[str, Any]) -> None:
        self._tombstones[meta["uid"]] = self._clock() + _TOMBSTONE_SECONDS
        shelf = self._shelves.get(kind)
        space = shelf.objects.get(meta.get("namespace", ""), {}) if shelf else {}
        entry = space.get(meta["name"])
        if entry is not None and entry.uid == meta["uid"]:
            del space[meta["name"]]

    @staticmethod
    def _forget_all_but(
        shelf: _Shelf, namespace: str | None, uids: Collection[str], began: int
    ) -> None:
        """Drops what a list that began at turn `began` did not show; newer entries stay."""
        chosen = list(shelf.objects) if namespace is None else [namespace]
        for name in chosen:
            space = shelf.objects.get(name, {})
            shelf.objects[name] = {
                key: entry
                for key, entry in space.items()
                if entry.uid in uids or entry.turn > began
            }


def _parse(entry: _Entry) -> Json:
    found: Json = json.loads(entry.text)
    return found


def _uid(body: Mapping[str, Any]) -> str:
    return str(body["metadata"]["uid"])


def _labels(body: Mapping[str, Any]) -> Mapping[str, str]:
    return dict(body["metadata"].get("labels") or {})
