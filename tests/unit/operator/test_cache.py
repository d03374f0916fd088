"""Reads from memory: right after our own writes, late news, lost news and hidden objects."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from reranker_operator.adapters.cache import CachingCluster, writing_as
from reranker_operator.adapters.cluster import Json, made_from, named, owned_by
from reranker_operator.adapters.store import News, Store
from reranker_operator.api.meta import (
    DEPLOYMENT,
    NODE,
    POD,
    PVC,
    RERANKER_ENGINE,
    RERANKER_SERVICE,
    SERVICE,
    Resource,
)
from reranker_operator.errors import (
    Conflict,
    Forbidden,
    NotFound,
    OperatorError,
    Rejected,
    Unavailable,
)

OURS = {"app.kubernetes.io/managed-by": "reranker-operator"}


class Live:
    """The API server's answers to reads and some kinds of writes; counts the reads."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str], Json] = {}
        self.reads = 0
        self.refuses: OperatorError | None = None
        self.while_listing: Callable[[], None] = lambda: None
        self.while_deleting: Callable[[], None] = lambda: None

    async def get(self, resource: Resource, namespace: str, name: str) -> Json:
        self.reads += 1
        if (namespace, name) not in self.objects:
            raise NotFound(name)
        return self.objects[namespace, name]

    async def list(
        self, resource: Resource, namespace: str | None, selector: Any = None, *, fields: Any = None
    ) -> list[Json]:
        self.reads += 1
        return self._select(namespace, selector)

    async def pages(
        self, resource: Resource, namespace: str | None, selector: Any = None
    ) -> AsyncIterator[Any]:
        self.reads += 1
        if self.refuses:
            raise self.refuses
        found = self._select(namespace, selector)
        self.while_listing()
        for entry in found:
            yield [entry]

    def _select(self, namespace: str | None, selector: Any) -> Any:
        return [
            body
            for (space, _), body in self.objects.items()
            if namespace in (None, space)
            and (selector or {}).items() <= body["metadata"].get("labels", {}).items()
        ]

    async def apply(self, manifest: Json, manager: str) -> Json:
        if self.refuses:
            raise self.refuses
        meta = manifest["metadata"]
        self.objects[meta["namespace"], meta["name"]] = manifest
        return manifest

    async def delete(
        self, resource: Resource, namespace: str, name: str, uid: Any = None, version: Any = None
    ) -> None:
        self.objects.pop((namespace, name), None)
        self.while_deleting()


def service(name: str, version: int, *, uid: str = "u1", port: int = 1, labels: Any = OURS) -> Json:
    meta = {"name": name, "namespace": "shop", "uid": uid, "resourceVersion": str(version)}
    managed = [{"manager": "reranker-operator"}, {"manager": "kubectl", "subresource": "status"}]
    meta |= {"labels": dict(labels), "managedFields": managed}
    return {"kind": "Service", "metadata": meta, "spec": {"port": port}}


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def live() -> Live:
    return Live()


@pytest.fixture
def cache(live: Live) -> CachingCluster:
    return CachingCluster(live, {SERVICE: OURS}, Clock())  # type: ignore[arg-type]


async def ports(cache: CachingCluster) -> dict[str, int]:
    found = await cache.list(SERVICE, "shop", OURS)
    return {entry["metadata"]["name"]: entry["spec"]["port"] for entry in found}


async def test_lists_are_live_until_the_first_relist(cache: CachingCluster, live: Live) -> None:
    live.objects["shop", "a"] = service("a", 1)
    assert await ports(cache) == {"a": 1}
    assert live.reads == 1
    await cache.relist(None)
    assert await ports(cache) == {"a": 1}
    assert live.reads == 2


async def test_a_reader_sees_its_own_write_at_once(cache: CachingCluster, live: Live) -> None:
    await cache.relist(None)
    await cache.apply(service("a", 5, port=7), "m")
    cache.observe("Service", "MODIFIED", service("a", 4, port=3))
    assert await ports(cache) == {"a": 7}, "an older event changes nothing"
    found = await cache.get(SERVICE, "shop", "a")
    assert "managedFields" not in found["metadata"]
    found["spec"]["port"] = 99
    assert await ports(cache) == {"a": 7}, "what a reader does to its copy is its own affair"


async def test_a_late_answer_does_not_bring_a_deleted_object_back(cache: CachingCluster) -> None:
    await cache.relist(None)
    cache.observe("Service", "ADDED", service("a", 1))
    cache.observe("Service", "DELETED", service("a", 3))
    cache.observe("Service", "MODIFIED", service("a", 2))
    assert await ports(cache) == {}
    cache.observe("Service", "ADDED", service("a", 9, uid="u2"))
    cache.observe("Service", "DELETED", service("a", 8, uid="u1"))
    assert await ports(cache) == {"a": 1}, "another object of that name is alive"


async def test_a_relist_buries_ghosts_but_nothing_that_came_meanwhile(
    cache: CachingCluster, live: Live
) -> None:
    cache.observe("Service", "ADDED", service("ghost", 1, uid="g"))
    live.objects["shop", "a"] = service("a", 2, uid="a")
    live.while_listing = lambda: cache.observe("Service", "ADDED", service("new", 3, uid="n"))
    await cache.relist("shop")
    assert sorted(await ports(cache)) == ["a", "new"]


async def test_what_the_watch_does_not_show_is_asked_for(cache: CachingCluster, live: Live) -> None:
    await cache.relist(None)
    live.objects["shop", "foreign"] = service("foreign", 4, labels={})
    for _ in range(2):
        assert (await cache.get(SERVICE, "shop", "foreign"))["spec"]
    assert live.reads == 3, "never remembered: no watch would tell of its end"
    with pytest.raises(NotFound):
        await cache.get(SERVICE, "shop", "nothing")


async def test_deleted_by_us_is_gone_from_memory(cache: CachingCluster, live: Live) -> None:
    await cache.relist(None)
    await cache.apply(service("a", 5), "m")
    await cache.delete(SERVICE, "shop", "a", "other")
    await cache.delete(SERVICE, "shop", "a", "u1", "4")
    assert await ports(cache) == {"a": 1}, "it has changed since"
    await cache.delete(SERVICE, "shop", "a", "u1", "5")
    assert await ports(cache) == {}


async def test_other_kinds_are_live(cache: CachingCluster, live: Live) -> None:
    await cache.relist(None)
    before = live.reads
    await cache.list(PVC, "shop")
    await cache.list(PVC, "shop")
    assert live.reads == before + 2


async def test_a_list_by_fields_is_live(cache: CachingCluster, live: Live) -> None:
    await cache.relist(None)
    before = live.reads
    await cache.list(SERVICE, "shop", fields={"metadata.name": "a"})
    assert live.reads == before + 1


async def test_an_index_by_our_labels_follows_every_change(cache: CachingCluster) -> None:
    await cache.relist(None)
    mine = {"reranker.dev/service": "rank"}

    async def found() -> list[str]:
        return [entry["metadata"]["name"] for entry in await cache.list(SERVICE, "shop", mine)]

    for name in ("b", "a", "other"):
        labels = OURS | ({} if name == "other" else mine)
        cache.observe("Service", "ADDED", service(name, 1, uid=name, labels=labels))
    assert await found() == ["a", "b"]
    cache.observe("Service", "MODIFIED", service("a", 2, uid="a"))
    cache.observe("Service", "MODIFIED", service("other", 2, uid="other", labels=OURS | mine))
    assert await found() == ["b", "other"]
    cache.observe("Service", "DELETED", service("b", 3, uid="b", labels=OURS | mine))
    assert await found() == ["other"]


def engine(name: str, version: int, *owners: str, source: str = "hf://a/b") -> Json:
    references = [{"kind": "RerankerService", "name": uid, "uid": uid} for uid in owners]
    meta = {"name": name, "namespace": "shop", "uid": name, "resourceVersion": str(version)}
    meta |= {"ownerReferences": references}
    return {"kind": "RerankerEngine", "metadata": meta, "spec": {"source": {"source": source}}}


async def test_a_few_of_many_are_found_by_name_owner_and_source(live: Live) -> None:
    cache = CachingCluster(live, {RERANKER_ENGINE: None}, Clock())  # type: ignore[arg-type]
    kind = RERANKER_ENGINE.kind

    async def found(*facets: str) -> list[str]:
        entries = await cache.related(RERANKER_ENGINE, "shop", facets)
        return [entry["metadata"]["name"] for entry in entries]

    live.objects["shop", "a"] = engine("a", 1, "u1", "u1")
    live.objects["elsewhere", "b"] = engine("b", 1, "u1")
    # Also before anything is known by heart.
    assert await found(owned_by("u1")) == ["a"]
    live.objects.clear()
    await cache.relist(None)
    reads = live.reads
    cache.observe(kind, "ADDED", engine("a", 1, "u1", "u1"))
    cache.observe(kind, "ADDED", engine("b", 2, "u2", source="hf://c/d"))
    assert await found(owned_by("u1"), named("b"), named("none")) == ["a", "b"]
    assert await found(made_from("hf://c/d")) == ["b"]
    cache.observe(kind, "MODIFIED", engine("a", 3, "u2"))
    assert await found(owned_by("u1")) == []
    assert await found(owned_by("u2"), made_from("hf://a/b")) == ["a", "b"]
    cache.observe(kind, "DELETED", engine("a", 4, "u2"))
    assert await found(owned_by("u2"), named("a")) == ["b"]
    assert live.reads == reads
    cache.observe(kind, "DELETED", engine("b", 5))
    assert cache._store.shelves[kind].index == {}


def test_the_writer_has_seen_its_own_write_and_nobody_else_has(cache: CachingCluster) -> None:
    async def write() -> None:
        with writing_as("me"):
            await cache.apply(service("a", 5), "m")
        await cache.apply(service("b", 6, uid="b"), "m")

    asyncio.run(write())
    assert cache.observe("Service", "MODIFIED", service("a", 5)) == News(writer="me")
    assert cache.observe("Service", "MODIFIED", service("a", 4)) == News(stale=True)
    assert cache.observe("Service", "MODIFIED", service("a", 7)) == News()
    assert cache.observe("Service", "ADDED", service("b", 6, uid="b")) == News()


def _owned(version: int, *owners: str, port: int = 1) -> Json:
    body = service("a", version, port=port)
    body["metadata"]["ownerReferences"] = [{"kind": owner[0], "uid": owner} for owner in owners]
    return body


def test_one_more_owner_is_no_news_but_one_less_is(cache: CachingCluster) -> None:
    events = [
        _owned(1, "x1"),
        _owned(2, "x1", "x2"),
        _owned(3, "x1", "x2", "x3", port=2),
        _owned(4, "x1"),
    ]
    seen = [cache.observe("Service", "MODIFIED", event).quiet for event in events]
    assert seen == [False, True, False, False]


def test_the_first_owner_of_a_kind_is_news(cache: CachingCluster) -> None:
    owners = [[], ["x1"], ["x1", "x2"], ["x1", "x2", "y1"], ["x1", "x2", "x3", "y1", "y2"]]
    events = [_owned(version, *names) for version, names in enumerate(owners, start=1)]
    assert [cache.observe("Service", "MODIFIED", event).quiet for event in events] == [
        False, False, True, False, True,
    ]  # fmt: skip


async def test_an_object_that_no_event_has_told_of_yet_is_news(cache: CachingCluster) -> None:
    """kopf tells the last of several versions only: here not the one that we made."""
    with writing_as("us"):
        await cache.apply(_owned(1, "x1"), "m")
        await cache.apply(_owned(2, "x1", "x2"), "m")
    assert not cache.observe("Service", "MODIFIED", _owned(2, "x1", "x2")).quiet
    assert cache.observe("Service", "MODIFIED", _owned(3, "x1", "x2", "x3")).quiet


async def test_a_label_that_comes_back_brings_the_object_back(cache: CachingCluster) -> None:
    """To a watch with a selector an object without the label is deleted."""
    await cache.relist(None)
    cache.observe("Service", "ADDED", service("a", 1))
    cache.observe("Service", "DELETED", service("a", 3))
    assert await ports(cache) == {}
    await cache.apply(service("a", 4), "m")
    assert await ports(cache) == {"a": 1}


@pytest.mark.parametrize("error", [NotFound("a"), Conflict("a"), Rejected("a")])
async def test_a_refused_write_corrects_the_memory(
    cache: CachingCluster, live: Live, error: OperatorError
) -> None:
    await cache.relist(None)
    cache.observe("Service", "ADDED", service("a", 1, port=1))
    if not isinstance(error, NotFound):
        live.objects["shop", "a"] = service("a", 2, uid="another", port=2)
    live.refuses = error
    with pytest.raises(type(error)):
        await cache.apply(service("a", 9), "m")
    assert await ports(cache) == ({} if isinstance(error, NotFound) else {"a": 2})


async def test_what_the_watch_tells_during_a_deletion_counts(
    cache: CachingCluster, live: Live
) -> None:
    await cache.relist(None)
    cache.observe("Service", "ADDED", service("a", 1))
    live.while_deleting = lambda: cache.observe("Service", "MODIFIED", service("a", 2, port=2))  # type: ignore[assignment]
    await cache.delete(SERVICE, "shop", "a", "u1")
    assert await ports(cache) == {"a": 2}, "it is held by a finalizer"


async def test_a_list_tells_what_vanished_unheard(cache: CachingCluster, live: Live) -> None:
    cache.observe("Service", "ADDED", service("ghost", 1, uid="g"))
    live.objects["shop", "a"] = service("a", 2, uid="a")
    gone = await cache.relist(None, "Service")
    assert [entry["metadata"]["name"] for entry in gone] == ["ghost"]


async def test_a_kind_that_can_not_be_listed_is_read_live(
    cache: CachingCluster, live: Live
) -> None:
    live.objects["shop", "a"] = service("a", 1)
    live.refuses = Forbidden("no such right")
    assert await cache.relist(None) == []
    before = live.reads
    assert await ports(cache) == {"a": 1}
    assert live.reads == before + 1


async def test_only_entries_of_strangers_are_kept_of_managed_fields(cache: CachingCluster) -> None:
    body = service("a", 1)
    body["metadata"]["managedFields"].append({"manager": "kubectl-edit", "fieldsV1": {}})
    cache.observe("Service", "ADDED", body)
    kept = (await cache.get(SERVICE, "shop", "a"))["metadata"]["managedFields"]
    assert [entry["manager"] for entry in kept] == ["kubectl-edit"]


async def test_nodes_are_read_once_for_all_and_again_when_old(
    live: Live, cache: CachingCluster
) -> None:
    clock = Clock()
    cache = CachingCluster(live, {}, clock)  # type: ignore[arg-type]
    status = {"allocatable": {"cpu": "4"}, "images": [{"names": ["large"]}]}
    live.objects["", "n"] = {"metadata": {"name": "n"}, "status": status}
    found = await asyncio.gather(*(cache.list(NODE, None) for _ in range(3)))
    assert live.reads == 1
    assert found[0][0]["status"] == {"allocatable": {"cpu": "4"}}
    clock.now += 31
    live.refuses = Unavailable("away")
    with pytest.raises(Unavailable):
        await cache.list(NODE, None)
    live.refuses = None
    await cache.list(NODE, None)
    assert live.reads == 3


OWNS_REPLICAS = {"f:spec": {"f:replicas": {}}}
MANAGED = [
    {"manager": "reranker-operator", "fieldsV1": {"f:spec": {"f:paused": {}}}},
    {"manager": "kubectl", "fieldsV1": OWNS_REPLICAS | {"f:metadata": {"f:labels": {}}}},
    {"manager": "hpa", "subresource": "scale", "time": "now", "fieldsV1": OWNS_REPLICAS},
]
BY_SCALE = {"manager": "hpa", "subresource": "scale", "fieldsV1": OWNS_REPLICAS}


@pytest.mark.parametrize(
    ("resource", "managed", "kept"),
    [
        (
            RERANKER_SERVICE,
            MANAGED,
            [{"manager": "kubectl", "fieldsV1": OWNS_REPLICAS}, BY_SCALE],
        ),
        (RERANKER_SERVICE, MANAGED[:1], []),
        (RERANKER_SERVICE, None, None),
        (DEPLOYMENT, MANAGED, [MANAGED[1], BY_SCALE]),
        (DEPLOYMENT, MANAGED[:1], None),
        (POD, MANAGED, None),
    ],
)
def test_of_managers_those_of_replicas_and_strangers_are_remembered(
    resource: Resource, managed: Any, kept: Any
) -> None:
    body = service("a", 1)
    body["metadata"]["managedFields"] = managed
    entry = Store({resource: None}, Clock()).put(resource.kind, body)
    assert entry is not None
    assert entry.body()["metadata"].get("managedFields") == kept


async def test_one_look_asks_once_for_what_is_not_there(cache: CachingCluster, live: Live) -> None:
    await cache.relist(None)
    before = live.reads
    with writing_as("me"):
        for _ in range(2):
            with pytest.raises(NotFound):
                await cache.get(SERVICE, "shop", "a")
        assert live.reads == before + 1
        live.refuses, live.objects["shop", "a"] = Conflict("a"), service("a", 2)
        with pytest.raises(Conflict):
            await cache.apply(service("a", 1), "m")
        assert await cache.get(SERVICE, "shop", "a"), "a refusal tells that it is there"
    with writing_as("me"), pytest.raises(NotFound):
        await cache.get(SERVICE, "shop", "b")
