"""The Lease: nobody answers, somebody else has it, or this process has slept too long."""

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from kubernetes.aio.client.api_client import ApiClient
from kubernetes.aio.client.configuration import Configuration
from support.api_server import cluster_behind

from reranker_operator.errors import Deposed
from reranker_operator.runtime import leader as module
from reranker_operator.runtime.leader import Leader

_PATH = "/apis/coordination.k8s.io/v1/namespaces/sys/leases"


class _Leases:
    """The API server's part: one Lease, kept as it was sent."""

    def __init__(self) -> None:
        self.lease: dict[str, Any] | None = None
        self.answers = asyncio.Event()
        self.answers.set()

    async def get(self, _: web.Request) -> web.Response:
        await self.answers.wait()
        if self.lease is None:
            return web.json_response({"code": 404}, status=404)
        return web.json_response(self.lease)

    async def put(self, request: web.Request) -> web.Response:
        self.lease = json.loads(await request.read())
        return web.json_response(self.lease, status=200)

    def held_by_another(self, seconds: int) -> None:
        """Somebody has it, who will not renew it."""
        stamp = "2026-01-05T12:00:00.000000Z"
        spec: dict[str, Any] = {"holderIdentity": "another", "leaseDurationSeconds": seconds}
        spec |= {"acquireTime": stamp, "renewTime": stamp}
        self.lease = {"metadata": {"name": "lease", "resourceVersion": "1"}, "spec": spec}

    def give_to(self, holder: str) -> None:
        assert self.lease is not None
        self.lease["spec"]["holderIdentity"] = holder


@asynccontextmanager
async def _leader(leases: _Leases, seconds: int = 5) -> AsyncIterator[Leader]:
    app = web.Application()
    app.add_routes(
        [
            web.get(_PATH + "/lease", leases.get),
            web.put(_PATH + "/lease", leases.put),
            web.post(_PATH, leases.put),
        ]
    )
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host = f"http://127.0.0.1:{runner.addresses[0][1]}"
    async with ApiClient(Configuration(host=host)) as client:
        yield Leader(client, name="lease", namespace="sys", identity="me", seconds=seconds)
    await runner.cleanup()


async def test_a_lease_that_can_not_be_given_back_does_not_keep_the_process_from_its_end(
    caplog: pytest.LogCaptureFixture,
) -> None:
    nobody = Configuration(host="http://127.0.0.1:1")
    async with ApiClient(nobody) as client:
        leader = Leader(client, name="lease", namespace="sys", identity="me", seconds=15)
        with caplog.at_level(logging.WARNING):
            await leader.release()
        assert "the Lease could not be given back" in caplog.text
        assert leader.lease_seen() is None
        assert not leader.holds()


async def test_who_finds_another_holder_ends_its_work_at_once() -> None:
    leases, leading, ended = _Leases(), asyncio.Event(), asyncio.Event()

    async def lead() -> None:
        leading.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with _leader(leases) as leader:
        running = asyncio.create_task(leader.run(lead))
        await leading.wait()
        assert leader.holds()
        leases.give_to("another")
        await running
        assert ended.is_set()
        await leader.release()
    assert leases.lease is not None
    assert leases.lease["spec"]["holderIdentity"] == "another"


async def test_a_lease_whose_renewals_hang_is_lost_in_time() -> None:
    leases, leading = _Leases(), asyncio.Event()

    async def lead() -> None:
        leading.set()

    async with _leader(leases) as leader:
        running = asyncio.create_task(leader.run(lead))
        await leading.wait()
        leases.answers.clear()
        await running
        assert not leader.holds()
        leases.answers.set()


async def test_who_has_slept_too_long_does_not_think_it_holds_the_lease(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    leading = asyncio.Event()

    async def lead() -> None:
        leading.set()

    async with _leader(_Leases()) as leader:
        running = asyncio.create_task(leader.run(lead))
        await leading.wait()
        now = asyncio.get_running_loop().time()
        for passed, holds in ((1.0, True), (3.5, False)):
            monkeypatch.setattr(module, "_now", lambda at=now + passed: at)
            assert leader.holds() is holds
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


@pytest.mark.parametrize("step", [3600.0, -3600.0], ids=["forth", "back"])
async def test_a_standby_waits_as_long_as_it_should_though_its_clock_steps(
    monkeypatch: pytest.MonkeyPatch, step: float
) -> None:
    leases, leading = _Leases(), asyncio.Event()
    leases.held_by_another(3)

    async def lead() -> None:
        leading.set()

    async with _leader(leases, seconds=3) as leader:
        began = asyncio.get_running_loop().time()
        running = asyncio.create_task(leader.run(lead))
        await asyncio.sleep(1.5)
        assert leader.lease_seen() is not None
        right = time.time
        monkeypatch.setattr(time, "time", lambda: right() + step)
        async with asyncio.timeout(10):
            await leading.wait()
        assert asyncio.get_running_loop().time() - began >= 3
        assert leader.holds()
        monkeypatch.undo()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


@pytest.mark.parametrize("step", [60.0, -60.0], ids=["forth", "back"])
async def test_a_clock_that_steps_during_a_call_makes_nobody_take_the_lease(
    monkeypatch: pytest.MonkeyPatch, step: float
) -> None:
    leases, leading = _Leases(), asyncio.Event()
    leases.held_by_another(15)
    leases.answers.clear()

    async def lead() -> None:
        leading.set()

    async with _leader(leases, seconds=15) as leader:
        running = asyncio.create_task(leader.run(lead))
        await asyncio.sleep(0.5)
        right = time.time
        monkeypatch.setattr(time, "time", lambda: right() + step)
        leases.answers.set()
        await asyncio.sleep(3)
        assert leases.lease is not None
        assert leases.lease["spec"]["holderIdentity"] == "another"
        assert not leading.is_set()
        monkeypatch.undo()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_nothing_is_sent_by_who_may_not_write() -> None:
    asked: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        asked.append(request.method)
        return web.json_response({"items": []})

    body = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "x", "namespace": "y"}}
    routes = [web.route("*", "/{path:.*}", answer)]
    async with cluster_behind(routes, may_write=lambda: False) as fenced:
        with pytest.raises(Deposed, match="Lease"):
            await fenced.create(body)
        with pytest.raises(Deposed, match="Lease"):
            await fenced.apply(body, "me")
    assert asked == []
