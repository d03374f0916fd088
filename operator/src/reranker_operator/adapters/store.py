"""Objects in memory: what the watches and the answers to our own writes have told.

An object is kept as JSON text: a tenth of what dictionaries take, and a reader that changes what it
got changes nothing here. Of `managedFields` only strangers' entries are kept, and only of what we
apply, and whose wish the number of pods is.
"""

from collections.abc import Callable, Collection, Hashable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import orjson

from reranker_operator.adapters.cluster import Json, facets_of
from reranker_operator.api.meta import JOB, POD, PVC, RERANKER_ENGINE, RERANKER_SERVICE, Resource
from reranker_operator.core.drift import strangers
from reranker_operator.core.replicas import only_replicas
from reranker_operator.names import ENGINE_LABEL, SERVICE_LABEL

#: Seconds for which a late answer cannot bring a deleted object back.
_TOMBSTONE_SECONDS = 300.0
#: By these the operator asks for its objects: no read looks at all of a namespace.
_INDEXED = (SERVICE_LABEL, ENGINE_LABEL)
#: Never applied by us, so nobody can intrude.
_UNGUARDED = frozenset({POD.kind, JOB.kind, RERANKER_SERVICE.kind, RERANKER_ENGINE.kind})
#: What changes with each write, and owners or annotations.
_UNSEEN = frozenset({"resourceVersion", "managedFields", "ownerReferences"})
_ANNOTATED = frozenset({"resourceVersion", "managedFields", "annotations"})
#: Many of a namespace belong together, of which each look is about very few.
_FACETED = frozenset({RERANKER_ENGINE.kind, PVC.kind})
_FACET = "facet"


@dataclass(slots=True)
class Entry:
    """One version of an object."""

    uid: str
    version: int
    labels: Mapping[str, str]
    #: Kind and uid of each.
    owners: frozenset[tuple[str, str]]
    text: bytes
    facets: tuple[str, ...]
    #: When it got here, in puts: a list that began later knows better.
    turn: int
    #: Whose write this version is the answer to.
    writer: Hashable = None
    #: This write did nothing but add owners to what was told before: nobody need look.
    quiet: bool = False
    #: An event has told of this version, or of one that differs only in its owners. Of the versions
    #: that come within a moment kopf tells the last one alone.
    told: bool = False

    def matches(self, selector: Mapping[str, str] | None) -> bool:
        """Whether the labels are those asked for."""
        return not selector or all(self.labels.get(key) == selector[key] for key in selector)

    def body(self) -> Json:
        """A copy of the reader's own."""
        found: Json = orjson.loads(self.text)
        return found


class _Tombstone(NamedTuple):
    """Up to this version nothing of the object is believed."""

    version: int
    until: float


@dataclass(frozen=True)
class News:
    """What an event brought: whether anybody need look, and who has seen it before."""

    stale: bool = False
    quiet: bool = False
    writer: Hashable = None


@dataclass
class Shelf:
    """The objects of one kind, by namespace and name."""

    resource: Resource
    selector: Mapping[str, str] | None
    spaces: dict[str, dict[str, Entry]] = field(default_factory=dict)
    index: dict[tuple[str, str, str], set[str]] = field(default_factory=dict)
    listed: set[str | None] = field(default_factory=set)

    @property
    def faceted(self) -> bool:
        """Whether `related` finds its objects."""
        return self.resource.kind in _FACETED

    def knows(self, namespace: str | None) -> bool:
        """Whether every object of the namespace is here."""
        return None in self.listed or namespace in self.listed

    def entry(self, namespace: str, name: str) -> Entry | None:
        """What is known of an object."""
        return self.spaces.get(namespace, {}).get(name)

    def select(self, namespace: str | None, selector: Mapping[str, str] | None) -> Iterator[Entry]:
        """The entries with these labels."""
        key = next((key for key in _INDEXED if selector and key in selector), None)
        if namespace is not None and selector and key is not None:
            space = self.spaces.get(namespace, {})
            chosen = sorted(self.index.get((namespace, key, selector[key]), ()))
            yield from (space[name] for name in chosen if space[name].matches(selector))
            return
        spaces = list(self.spaces.values()) if namespace is None else [
            self.spaces.get(namespace, {})
        ]  # fmt: skip
        for space in spaces:
            yield from (entry for entry in space.values() if entry.matches(selector))

    def related(self, namespace: str, facets: Collection[str]) -> Iterator[Entry]:
        """The entries with any of these facets."""
        space = self.spaces.get(namespace, {})
        chosen = (self.index.get((namespace, _FACET, facet), ()) for facet in facets)
        yield from (space[name] for name in sorted(set().union(*chosen)))

    def set(self, namespace: str, name: str, entry: Entry) -> None:
        """Keep this version."""
        self.remove(namespace, name)
        self.spaces.setdefault(namespace, {})[name] = entry
        for place in _places(namespace, entry):
            self.index.setdefault(place, set()).add(name)

    def remove(self, namespace: str, name: str) -> None:
        """Forget the object."""
        entry = self.spaces.get(namespace, {}).pop(name, None)
        if entry is None:
            return
        for place in _places(namespace, entry):
            self.index[place].discard(name)
            if not self.index[place]:
                del self.index[place]


def _places(namespace: str, entry: Entry) -> Iterator[tuple[str, str, str]]:
    """Where an entry stands in the index."""
    for key in _INDEXED:
        if key in entry.labels:
            yield namespace, key, entry.labels[key]
    for facet in entry.facets:
        yield namespace, _FACET, facet


class Store:
    """All shelves, by kind."""

    def __init__(
        self,
        watched: Mapping[Resource, Mapping[str, str] | None],
        clock: Callable[[], float],
    ) -> None:
        self._clock = clock
        self._tombstones: dict[str, _Tombstone] = {}
        self.shelves = {
            resource.kind: Shelf(resource, labels) for resource, labels in watched.items()
        }
        self.turn = 0

    def observe(self, kind: str, event: str | None, body: Mapping[str, Any]) -> News:
        """Takes a watch event in; `event` is ADDED, MODIFIED, DELETED or None (from a list)."""
        meta = body["metadata"]
        shelf = self.shelves.get(kind)
        before = shelf.entry(meta.get("namespace", ""), meta["name"]) if shelf else None
        if event == "DELETED":
            self.bury(kind, meta)
            return News()
        if before is not None and before.uid == meta["uid"]:
            version = int(meta["resourceVersion"])
            if before.version == version:
                before.told = True
                return News(quiet=before.quiet, writer=before.writer)
            if before.version > version:
                return News(stale=True)
        after = self.put(kind, body)
        if after is None:
            return News()
        after.told = True
        return News(quiet=after.quiet)

    def put(self, kind: str, body: Mapping[str, Any], writer: Hashable = None) -> Entry | None:
        """Keep this version, if none that is newer is here; the entry if it is kept."""
        shelf, meta = self.shelves.get(kind), body["metadata"]
        buried = self._tombstones.get(meta["uid"])
        if shelf is None or (buried and int(meta["resourceVersion"]) <= buried.version):
            return None
        namespace, name = meta.get("namespace", ""), meta["name"]
        before = shelf.entry(namespace, name)
        if before is not None and before.version > int(meta["resourceVersion"]):
            return None
        self.turn += 1
        entry = self._entry(kind, body, writer)
        if before is not None and before.version == entry.version:
            # The same once more, from somebody who does not know whose write it was.
            writer = writer or before.writer
            entry = replace(entry, writer=writer, quiet=before.quiet, told=before.told)
        elif before is not None and before.told and _is_no_news(kind, before, entry):
            entry = replace(entry, quiet=True, told=True)
        shelf.set(namespace, name, entry)
        return entry

    def bury(self, kind: str, meta: Mapping[str, Any]) -> None:
        """The object is gone, or no longer has the labels that we watch."""
        until = self._clock() + _TOMBSTONE_SECONDS
        self._tombstones[meta["uid"]] = _Tombstone(int(meta["resourceVersion"]), until)
        shelf = self.shelves.get(kind)
        entry = shelf.entry(meta.get("namespace", ""), meta["name"]) if shelf else None
        if shelf is not None and entry is not None and entry.uid == meta["uid"]:
            shelf.remove(meta.get("namespace", ""), meta["name"])

    def forget_all_but(
        self, shelf: Shelf, namespace: str | None, uids: Collection[str], began: int
    ) -> list[Json]:
        """Drops what a list that began at turn `began` did not show; newer entries stay."""
        gone = []
        for space in list(shelf.spaces) if namespace is None else [namespace]:
            for name, entry in list(shelf.spaces.get(space, {}).items()):
                if entry.uid not in uids and entry.turn <= began:
                    gone.append(entry.body())
                    shelf.remove(space, name)
        return gone

    def clean(self) -> None:
        """Forget tombstones that no answer can be late for any more."""
        now = self._clock()
        self._tombstones = {
            uid: entry for uid, entry in self._tombstones.items() if entry.until > now
        }

    def _entry(self, kind: str, body: Mapping[str, Any], writer: Hashable) -> Entry:
        meta = dict(body["metadata"])
        managed = meta.pop("managedFields", None)
        if managed is not None and (kept := _of_use(kind, managed)) is not None:
            meta["managedFields"] = kept
        # Answers and events have their kind, entries of a list may not.
        # What orjson gives holds on to the whole buffer that it was written into.
        text = bytes(memoryview(orjson.dumps({**body, "kind": kind, "metadata": meta})))
        return Entry(
            uid=meta["uid"],
            version=int(meta["resourceVersion"]),
            labels=dict(meta.get("labels") or {}),
            owners=frozenset(
                (owner["kind"], owner["uid"]) for owner in meta.get("ownerReferences") or []
            ),
            text=text,
            facets=tuple(facets_of(body)) if kind in _FACETED else (),
            turn=self.turn,
            writer=writer,
        )


def _of_use(kind: str, managed: list[Json]) -> list[Json] | None:
    """Of `managedFields`: whose wish the number of pods is, and what strangers own."""
    if kind == RERANKER_SERVICE.kind:
        # Also when that is nobody: without any, nothing would be known.
        return only_replicas(managed)
    if kind in _UNGUARDED:
        return None
    scaled = [entry for entry in managed if entry.get("subresource") == "scale"]
    return [*strangers(managed), *only_replicas(scaled)] or None


def _is_no_news(kind: str, before: Entry, after: Entry) -> bool:
    return _only_adds_owners(before, after) or (
        kind == PVC.kind and before.uid == after.uid and _is_only_annotated(before, after)
    )


def _is_only_annotated(before: Entry, after: Entry) -> bool:
    """Nobody reads a claim's annotations, and all of its namespace would look."""
    return _essence(before.body(), _ANNOTATED) == _essence(after.body(), _ANNOTATED)


def _only_adds_owners(before: Entry, after: Entry) -> bool:
    # The first owner of a kind is news: until then an object was nobody's, and a store's claim
    # could not be let go of.
    kinds = [{kind for kind, _ in entry.owners} for entry in (before, after)]
    same = before.uid == after.uid and before.owners < after.owners and kinds[0] == kinds[1]
    return same and _essence(before.body(), _UNSEEN) == _essence(after.body(), _UNSEEN)


def _essence(body: Json, unseen: frozenset[str]) -> Json:
    """An object without what is of no concern."""
    meta = {key: value for key, value in body["metadata"].items() if key not in unseen}
    return body | {"metadata": meta}
