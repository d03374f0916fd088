"""Reads from memory: right after our own writes, late news, lost news and hidden objects."""

from collections.abc import Callable
from typing import Any

import pytest

from reranker_operator.adapters.cache import CachingCluster
from reranker_operator.adapters.cluster import Json
from reranker_operator.api.meta import PVC, SERVICE, Resource
from reranker_operator.errors import NotFound

OURS = {"app.kubernetes.io/managed-by": "reranker-operator"}
#: What of a field manager's fields is worth its memory.
REPLICAS = {"f:spec": {"f:replicas": {}}}


class Live:
    """The API server's answers to reads and one kind of write; counts the reads."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str], Json] = {}
        self.reads = 0
        self.while_listing: Callable[[], None] = lambda: None

    async def get(self, resource: Resource, namespace: str, name: str) -> Json:
        self.reads += 1
        if (namespace, name) not in self.objects:
            raise NotFound(name)
        return self.objects[namespace, name]

    async def list(
        self, resource: Resource, namespace: str | None, selector: Any = None, *, fields: Any = None
    ) -> list[Json]:
        self.reads += 1
        found = [
            body
            for (space, _), body in self.objects.items()
            if namespace in (None, space)
            and (selector or {}).items() <= body["metadata"].get("labels", {}).items()
        ]
        self.while_listing()
        return found

    async def apply(self, manifest: Json, manager: str) -> Json:
        meta = manifest["metadata"]
        self.objects[meta["namespace"], meta["name"]] = manifest
        return manifest

    async def delete(
        self, resource: Resource, namespace: str, name: str, uid: Any = None, version: Any = None
    ) -> None:
        self.objects.pop((namespace, name), None)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(name)


def service(name: str, version: int, *, uid: str = "u1", port: int = 1, labels: Any = OURS) -> Json:
    meta = {"name": name, "namespace": "shop", "uid": uid, "resourceVersion": str(version)}
    managed = {
        "manager": "x",
        "time": "now",
        "fieldsV1": REPLICAS | {"f:metadata": {"f:labels": {}}},
    }
    meta |= {"labels": dict(labels), "managedFields": [managed, {"manager": "y"}]}
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
    return CachingCluster(live, {SERVICE: OURS}, Clock())


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
    assert found["metadata"]["managedFields"] == [{"manager": "x", "fieldsV1": REPLICAS}]
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
