"""What the probes say, on a clock that only the test moves."""

from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer
from prometheus_client import CollectorRegistry

from reranker_operator.api.meta import RERANKER_SERVICE, Resource
from reranker_operator.errors import Unavailable
from reranker_operator.runtime.collectors import ReplicaCollector
from reranker_operator.runtime.fleet import Fleet
from reranker_operator.runtime.health import Health
from reranker_operator.runtime.lag import LoopLag
from reranker_operator.runtime.queue import WorkQueue
from reranker_operator.runtime.resync import Resync
from reranker_operator.shell.server import application

LEASE_SECONDS, RESYNC_SECONDS = 15, 600


class World:
    """A replica, and all that its probes look at."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.names = ["a", "b"]
        self.lease_seen: float | None = None
        self.available = True
        self.queue = WorkQueue(clock=self.clock, jitter=lambda: 1.0)
        self.lag = LoopLag(self.clock)
        self.resync = Resync(
            self, self.queue, Fleet(), (), seconds=RESYNC_SECONDS, clock=self.clock  # type: ignore[arg-type]
        )  # fmt: skip
        self.health = Health(
            self.queue,
            self.resync,
            self.lag,
            clock=self.clock,
            lease_seconds=LEASE_SECONDS,
            lease_seen=lambda: self.lease_seen,
        )

    def clock(self) -> float:
        return self.now

    async def list(self, resource: Resource, *_: object) -> list[dict[str, Any]]:
        if not self.available:
            raise Unavailable("away")
        names = self.names if resource == RERANKER_SERVICE else []
        return [{"metadata": {"namespace": "shop", "name": name}} for name in names]

    async def relist(self, namespace: str | None) -> tuple[dict[str, Any], ...]:
        return ()

    async def work(self) -> None:
        key = await self.queue.get()
        assert key is not None
        self.queue.done(key)


@pytest.fixture
def world() -> World:
    return World()


async def test_a_leader_without_a_resync_is_restarted(world: World) -> None:
    assert world.health.problem() is None
    world.now += 10 * RESYNC_SECONDS
    assert world.health.problem() is None, "a standby lists nothing"
    world.health.begin_to_lead()
    world.names = []
    await world.resync.once()
    world.now += 3 * RESYNC_SECONDS
    world.available = False
    with pytest.raises(Unavailable):
        await world.resync.once()
    assert world.health.problem() is None
    world.now += 1
    assert world.health.problem() == "no resync has finished for 1801 s"
    world.available = True
    await world.resync.once()
    assert world.health.problem() is None


async def test_workers_that_hang_are_found_and_a_long_queue_is_not(world: World) -> None:
    world.health.begin_to_lead()
    world.names = [str(number) for number in range(5)]
    await world.resync.once()
    for _ in range(4):
        world.now += 400
        await world.work()
    assert world.queue.oldest_age() == 1600
    assert world.health.problem() is None
    world.now += 601
    await world.resync.once()
    assert world.health.problem() == "no key was worked on for 601 s"
    await world.queue.get()
    assert world.health.problem() is None
    world.now += 1801
    await world.resync.once()
    assert world.queue.longest_work() == 1801
    assert world.health.problem() == "no key was worked on for 1801 s"
    world.queue.close()


async def test_one_worker_that_hangs_is_found_beside_others(world: World) -> None:
    world.health.begin_to_lead()
    await world.resync.once()
    await world.queue.get()
    world.now += 1801
    await world.resync.once()
    await world.work()
    assert world.health.problem() == "a worker has been on the same key for 1801 s"


def test_a_late_event_loop(world: World) -> None:
    assert world.lag.worst() == world.lag.now() == 0
    for late in (0.5, 31.0, 0.25):
        world.lag.expect()
        world.now += 1 + late
        world.lag.arrived()
    assert (world.lag.now(), world.lag.worst()) == (0.25, 31.0)
    assert world.health.problem() is None, "it has recovered"
    world.lag.expect()
    world.now += 1 + 40
    assert world.health.problem() == "the event loop is 40 s late"
    world.now += 60
    world.lag.arrived()
    assert world.lag.worst() == 100, "what is over for a minute is forgotten"


def test_a_standby_is_ready_while_it_sees_the_lease(world: World) -> None:
    assert world.health.unready() == "standby: the Lease can't be read"
    world.lease_seen = world.now
    assert world.health.unready() is None
    world.now += 2 * LEASE_SECONDS + 1
    assert world.health.unready() == "standby: the Lease can't be read"


async def test_a_leader_is_ready_when_its_first_list_is_worked_off(world: World) -> None:
    world.health.begin_to_lead()
    assert world.health.unready() == "leader: the first list is not there yet"
    await world.resync.once()
    assert world.health.unready() == "leader: the first list is being worked off"
    await world.work()
    key = await world.queue.get()
    assert key is not None
    world.queue.retry(key)
    world.queue.add(key)
    assert world.health.unready() is not None
    world.queue.done(key)
    assert world.health.unready() is None, "looked at, if without success"
    world.names = ["c"]
    await world.resync.once()
    assert world.health.unready() is None, "only the first list counts"


async def test_the_routes(world: World) -> None:
    registry = CollectorRegistry()
    registry.register(ReplicaCollector(world.health))
    async with TestClient(TestServer(application(world.health, registry))) as client:

        async def get(path: str) -> tuple[int, str]:
            async with client.get(path) as response:
                return response.status, await response.text()

        assert await get("/healthz") == (200, "ok")
        assert await get("/readyz") == (503, "standby: the Lease can't be read")
        world.lease_seen = world.now
        assert await get("/readyz") == (200, "standby")
        world.health.begin_to_lead()
        assert "\nreranker_operator_leader 1.0\n" in (await get("/metrics"))[1]
        await world.resync.once()
        for _ in world.names:
            await world.work()
        assert await get("/readyz") == (200, "leader")
        world.now += 3 * RESYNC_SECONDS + 1
        assert (await get("/healthz"))[0] == 500
