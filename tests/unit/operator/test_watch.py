"""Who has to look again after an event, and when a list of kopf's is a new one."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from reranker_operator.adapters.cache import CachingCluster, writing_as
from reranker_operator.adapters.cluster import Json
from reranker_operator.api.meta import OWNED, RERANKER_ENGINE, RERANKER_SERVICE, Resource
from reranker_operator.errors import Forbidden, Unavailable
from reranker_operator.runtime.fleet import Fleet
from reranker_operator.runtime.queue import Key, WorkQueue
from reranker_operator.runtime.watch import Watch
from reranker_operator.shell.handlers import keys_of

SERVICE = Key("RerankerService", "shop", "rank")
ENGINE = Key("RerankerEngine", "shop", "tiny")
LABELS = {"reranker.dev/service": "rank", "reranker.dev/engine": "tiny"}
DAMAGE = (
    '{"stage":"verify","ok":false,"reason":"ChecksumMismatch","message":"bad","seconds":1,'
    '"schemaVersion":1}'
)


class Live:
    """An API server with nothing in it; counts the lists of each kind."""

    def __init__(self) -> None:
        self.lists: list[str] = []
        self.away = 0
        self.forbidden: str | None = None

    async def pages(
        self, resource: Resource, namespace: str | None, *_: object
    ) -> AsyncIterator[list[Json]]:
        if namespace is not None and namespace == self.forbidden:
            raise Forbidden("the Role is gone with its namespace")
        self.lists.append(resource.kind)
        if self.away:
            self.away -= 1
            raise Unavailable("away")
        yield []

    async def apply(self, manifest: Json, manager: str) -> Json:
        return manifest


class World:
    def __init__(self, *namespaces: str) -> None:
        self.now = 1000.0
        self.live = Live()
        watched = dict.fromkeys((RERANKER_SERVICE, RERANKER_ENGINE, *OWNED))
        self.cache = CachingCluster(self.live, watched, self.clock)  # type: ignore[arg-type]
        self.queue = WorkQueue(clock=self.clock)
        self.fleet = Fleet()
        self.watch = Watch(
            self.cache, self.queue, self.fleet, keys_of, namespaces, clock=self.clock, pause=0.0
        )

    def clock(self) -> float:
        return self.now

    def due(self) -> list[Key]:
        """Keys that are due now, in the order in which they are handed out."""
        self.queue._promote()
        return [self.queue._take() for _ in range(self.queue.waiting)]


@pytest.fixture
def world() -> World:
    return World()


def body(kind: str, version: int, name: str = "x", **more: Any) -> Json:
    meta = {"namespace": "shop", "name": name, "uid": f"{kind}-{name}"}
    meta |= {"resourceVersion": str(version), "labels": LABELS}
    status = more.pop("status", {})
    return {"kind": kind, "metadata": meta | more, "status": status}


def test_what_people_do_is_due_at_once_what_children_do_in_a_moment(world: World) -> None:
    for version in (1, 2, 3):
        world.watch.saw("Pod", "MODIFIED", body("Pod", version))
    assert world.due() == []
    world.watch.saw("RerankerService", "MODIFIED", body("RerankerService", 4, "rank", labels={}))
    assert world.due() == [SERVICE]
    world.watch.saw("Deployment", "MODIFIED", body("Deployment", 5))
    world.now += 0.2
    assert world.due() == [SERVICE]


def test_an_engine_hears_of_serving_pods_only_when_its_files_are_damaged(world: World) -> None:
    world.watch.saw("Deployment", "ADDED", body("Deployment", 1))
    world.watch.saw("Pod", "ADDED", body("Pod", 2))
    world.now += 0.2
    assert world.due() == [SERVICE]
    end = {"exitCode": 1, "message": DAMAGE, "finishedAt": "2026-01-05T12:00:00Z"}
    verify = {"name": "verify", "state": {"terminated": end}}
    for version, broken in ((3, False), (4, True)):
        status = {"initContainerStatuses": [{"name": "verify", "state": 7} if broken else verify]}
        world.watch.saw("Pod", "MODIFIED", body("Pod", version, status=status))
        world.now += 0.2
        assert sorted(world.due()) == sorted([SERVICE, ENGINE])


def test_an_engine_hears_of_pods_that_have_measured_it(world: World) -> None:
    said = DAMAGE.replace("verify", "measure").replace("ChecksumMismatch", "ParityRefused")
    end = {"exitCode": 1, "message": said, "finishedAt": "2026-01-05T12:00:00Z"}
    measure = {"name": "measure", "state": {"terminated": end}}
    body_ = body("Pod", 1, status={"initContainerStatuses": [measure]})
    world.watch.saw("Pod", "MODIFIED", body_)
    world.now += 0.2
    assert sorted(world.due()) == sorted([SERVICE, ENGINE])


def test_a_claim_is_news_to_those_who_own_it(world: World) -> None:
    owners = [
        {"kind": kind, "name": name, "uid": name}
        for kind, name in (("RerankerService", "rank"), ("RerankerEngine", "tiny"))
    ]
    claim = "PersistentVolumeClaim"
    events = [("ADDED", {}), ("MODIFIED", {"deletionTimestamp": "now"}), ("DELETED", {})]
    for number, (event, more) in enumerate(events, start=1):
        world.watch.saw(
            claim, event, body(claim, number, labels={}, ownerReferences=owners, **more)
        )
        world.now += 0.2
        assert sorted(world.due()) == [ENGINE, SERVICE]


def test_a_claim_that_is_only_annotated_is_no_news(world: World) -> None:
    """Its whole namespace would look: all who need it may not own it."""
    kind = "PersistentVolumeClaim"
    world.watch.saw("RerankerService", "ADDED", body("RerankerService", 1, "other", labels={}))
    world.due()
    claim = {"labels": {}, "status": {"phase": "Pending"}}
    world.watch.saw(kind, "ADDED", body(kind, 2, **claim))
    world.now += 0.2
    assert [key.name for key in world.due()] == ["other"]
    for number in (3, 4):
        annotations = {"backup.example/at": str(number)}
        world.watch.saw(kind, "MODIFIED", body(kind, number, annotations=annotations, **claim))
    world.now += 0.2
    assert world.due() == []
    claim["status"] = {"phase": "Bound"}
    world.watch.saw(kind, "MODIFIED", body(kind, 5, annotations={}, **claim))
    world.now += 0.2
    assert [key.name for key in world.due()] == ["other"]


async def test_nobody_is_woken_by_an_echo_or_by_one_more_owner(world: World) -> None:
    with writing_as(SERVICE):
        await world.cache.apply(body("Deployment", 1, "d"), "m")
    world.watch.saw("Deployment", "ADDED", body("Deployment", 1, "d"))
    owners = [{"kind": "RerankerService", "name": name, "uid": name} for name in ("a", "b")]
    world.watch.saw(
        "RerankerEngine", "ADDED",
        body("RerankerEngine", 2, "tiny", labels={}, ownerReferences=owners[:1]),
    )  # fmt: skip
    assert world.due() == [ENGINE, Key("RerankerService", "shop", "a")]
    world.watch.saw(
        "RerankerEngine", "MODIFIED",
        body("RerankerEngine", 3, "tiny", labels={}, ownerReferences=owners),
    )  # fmt: skip
    world.now += 1
    assert world.due() == []


def test_news_that_a_write_has_overtaken_are_news_all_the_same(world: World) -> None:
    async def write() -> None:
        with writing_as(SERVICE):
            await world.cache.apply(body("RerankerEngine", 5, "tiny", labels={}), "m")

    asyncio.run(write())
    world.watch.saw("RerankerEngine", "MODIFIED", body("RerankerEngine", 4, "tiny", labels={}))
    assert world.due() == [ENGINE]


def test_what_is_listed_waits_in_the_background(world: World) -> None:
    world.watch.saw("RerankerService", None, body("RerankerService", 1, "old", labels={}))
    world.watch.saw("RerankerService", "ADDED", body("RerankerService", 2, "new", labels={}))
    assert [key.name for key in world.due()] == ["new", "old"]
    assert len(world.fleet.services) == 2


async def test_a_second_list_of_kopfs_has_us_look_for_what_vanished(world: World) -> None:
    world.live.away = 1
    world.watch.saw("RerankerService", None, body("RerankerService", 1, "rank", labels={}))
    world.watch.saw("Deployment", None, body("Deployment", 2, "d"))
    world.now += 300
    world.watch.saw("Deployment", "MODIFIED", body("Deployment", 3, "d"))
    world.due()
    task = asyncio.create_task(world.watch.run())
    for _ in range(20):
        await asyncio.sleep(0)
    assert world.live.lists == [], "the first lists are the start"
    world.now += 300
    for name in ("p", "q"):
        world.watch.saw("Pod", None, body("Pod", 4, name))
    world.watch.saw("Deployment", None, body("Deployment", 5, "e"))
    for _ in range(50):
        await asyncio.sleep(0)
    assert world.live.lists == ["Pod", "Deployment", "Pod"], "the one that failed comes again"
    world.now += 300
    world.watch.saw("RerankerService", None, body("RerankerService", 6, "other", labels={}))
    for _ in range(50):
        await asyncio.sleep(0)
    assert world.live.lists[3:] == ["RerankerService"]
    assert not world.fleet.services
    assert SERVICE in world.due()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_namespace_that_is_gone_does_not_hide_what_vanished_elsewhere() -> None:
    world = World("gone", "shop")
    world.live.forbidden = "gone"
    rank = body("RerankerService", 1, "rank", labels={})
    world.watch.saw("RerankerService", None, rank)
    world.now += 300
    world.watch.saw("RerankerService", None, body("RerankerService", 2, "other", labels={}))
    world.due()
    task = asyncio.create_task(world.watch.run())
    for _ in range(50):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert world.live.lists == ["RerankerService"]
    assert SERVICE in world.due()
