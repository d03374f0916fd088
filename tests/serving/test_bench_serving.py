"""What bench/serving measures with: the same work for everybody, and no excuse for the late."""

import asyncio
import sys
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

sys.path.insert(0, str(Path(__file__).parents[2] / "bench/serving"))

from load import Target, closed, poisson
from soak import Soak, verdict
from workloads import requests


class Counted:
    """A server that counts bodies, and takes its time."""

    def __init__(self) -> None:
        self.bodies: Counter[bytes] = Counter()
        self.seconds = 0.0
        self.one_at_a_time = asyncio.Lock()
        self.url = ""

    async def answer(self, request: web.Request) -> web.Response:
        async with self.one_at_a_time:
            self.bodies[await request.read()] += 1
            await asyncio.sleep(self.seconds)
        return web.Response()


@pytest.fixture
async def server() -> AsyncIterator[Counted]:
    counted = Counted()
    app = web.Application()
    app.router.add_post("/", counted.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    counted.url = f"http://127.0.0.1:{runner.addresses[0][1]}/"
    yield counted
    await runner.cleanup()


async def test_a_closed_loop_sends_each_body_equally_often(server: Counted) -> None:
    bodies = [b"%d" % at for at in range(7)]
    outcome = await closed(Target(server.url, bodies, range(7)), clients=3, seconds=0)
    # The last one once more, before the clock starts.
    assert server.bodies - Counter([bodies[-1]]) == Counter(bodies)
    assert outcome.pairs == sum(range(7))
    server.bodies.clear()
    outcome = await closed(Target(server.url, bodies, range(7)), clients=3, seconds=0.2)
    (times,) = set((server.bodies - Counter([bodies[-1]])).values())
    assert len(outcome.answered) == 7 * times
    assert outcome.wall >= 0.2
    server.bodies.clear()
    await closed(Target(server.url, bodies, range(7), lap=3), clients=2, seconds=0)
    assert server.bodies - Counter([bodies[-1]]) == Counter(bodies[:3])


async def test_a_closed_loop_ends_with_the_first_failure() -> None:
    outcome = await closed(Target("http://127.0.0.1:1", [b""], [1]), clients=3, seconds=60)
    assert 1 <= outcome.failed.total() <= 3


async def test_an_open_loop_counts_from_when_a_request_was_due(server: Counted) -> None:
    server.seconds = 0.05
    outcome = await poisson(Target(server.url, [b""], [1]), rate=1000, count=10)
    assert len(outcome.answered) == 10
    # One after the other: the last one waited for all before it.
    assert max(outcome.answered) > 9 * server.seconds


@pytest.mark.parametrize("leak", [0.0, 2e-3])
def test_a_soak_tells_a_leak_from_a_warm_up(leak: float) -> None:
    soak = Soak()
    for second in range(600):
        warm = min(second, 60)
        soak.looks.append((second, 200 * second, 100 + warm + leak * 200 * second, 30))
    found = verdict(soak)
    assert found.mib_per_100k_requests == pytest.approx(leak * 1e5, abs=0.01)
    assert found.mib_per_hour == pytest.approx(leak * 200 * 3600, abs=0.1)
    assert (found.growth_mib > 8) == (leak > 0)


def test_no_two_pairs_of_a_workload_are_equal() -> None:
    for workload in ("W1", "W2", "W3", "W4"):
        asked = requests(workload, 3)
        passages = [passage for one in asked for passage in one.passages]
        assert len(set(passages)) >= len(passages) - 2
        assert asked == requests(workload, 3)
