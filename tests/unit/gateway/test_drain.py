"""Leaving without a failed request."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reranker_gateway.drain import Drain, Phase


async def test_waits_for_the_last_answer(eventually: Callable[..., Any]) -> None:
    drain = Drain(delay_seconds=0, timeout_seconds=100)
    drain.enter()
    drain.enter()
    run = asyncio.create_task(drain.run())
    assert not drain.parting.is_set()
    await eventually(lambda: drain.phase is Phase.CLOSED)
    assert drain.parting.is_set()
    assert 0 < drain.remaining <= 100
    drain.leave()
    await asyncio.sleep(0)
    assert not run.done()
    drain.leave()
    assert await run


async def test_the_total_is_bounded() -> None:
    drain = Drain(delay_seconds=100, timeout_seconds=0)
    drain.enter()
    assert not await drain.run()


async def test_a_second_signal_ends_the_delay() -> None:
    drain = Drain(delay_seconds=100, timeout_seconds=100)
    run = asyncio.create_task(drain.run())
    await asyncio.sleep(0)
    assert drain.phase is Phase.LEAVING
    drain.hurry()
    assert await run


async def test_a_second_signal_ends_the_wait_for_requests_in_progress(
    eventually: Callable[..., Any],
) -> None:
    drain = Drain(delay_seconds=0, timeout_seconds=100)
    drain.enter()
    run = asyncio.create_task(drain.run())
    await eventually(lambda: drain.phase is Phase.CLOSED)
    drain.hurry()
    async with asyncio.timeout(5):
        assert not await run


async def test_it_serves_on_while_somebody_comes_anew() -> None:
    """As the only pod of a service is asked until its successor is ready."""
    loop = asyncio.get_running_loop()
    drain = Drain(delay_seconds=0.1, timeout_seconds=100)
    begun = loop.time()
    run = asyncio.create_task(drain.run())
    await asyncio.sleep(0.05)
    drain.note()
    await drain.delayed.wait()
    assert drain.phase is Phase.LEAVING
    await drain.parting.wait()
    assert loop.time() - begun > 2
    assert await run


@pytest.mark.parametrize("peer", ["ipv4:10.0.0.1:1", None])
async def test_who_stays_on_a_connection_does_not_delay_the_end(peer: str | None) -> None:
    """Over gRPC they can't be sent away with an answer; over HTTP they have been by then."""
    loop = asyncio.get_running_loop()
    drain = Drain(delay_seconds=0.1, timeout_seconds=4)
    begun = loop.time()
    run = asyncio.create_task(drain.run())
    await asyncio.sleep(0)
    drain.note(peer)
    await drain.parting.wait()
    parted = loop.time() - begun
    assert await run
    # Or three quarters of the time: some of it is for what is in progress.
    assert (parted < 1.5) is (peer is not None)


async def test_who_has_no_key_does_not_delay_the_end(
    gateway_of: Callable[..., Any],
    client_of: Callable[..., Any],
    body: Callable[..., Any],
    tmp_path: Path,
) -> None:
    keys = tmp_path / "keys"
    keys.mkdir()
    (keys / "one").write_text("secret-key")
    loop = asyncio.get_running_loop()
    gateway = gateway_of(api_keys_dir=keys, drain_delay_seconds=0.1)
    begun = loop.time()
    run = asyncio.create_task(gateway.drain.run())
    await asyncio.sleep(0)
    async with client_of(gateway) as client:
        assert (await client.post("/v1/ranking", json=body())).status_code == 401
    await gateway.drain.parting.wait()
    assert loop.time() - begun < 1.5
    assert await run


async def test_what_callers_see(
    gateway_of: Callable[..., Any],
    client_of: Callable[..., Any],
    engine: Any,
    body: Callable[..., Any],
    eventually: Callable[..., Any],
) -> None:
    gateway = gateway_of()
    async with client_of(gateway) as client:
        assert "connection" not in (await client.post("/v1/ranking", json=body())).headers
        gateway.drain.phase = Phase.LEAVING
        assert (await client.get("/v1/health/ready")).status_code == 503
        assert (await client.get("/v1/health/ready?leaving=ready")).status_code == 200
        assert (await client.get("/v1/health/live")).status_code == 200
        served = await client.post("/v1/ranking", json=body())
        assert (served.status_code, served.headers["connection"]) == (200, "close")

        engine.open.clear()
        running = asyncio.create_task(client.post("/v1/ranking", json=body()))
        await eventually(lambda: len(engine.batches) == 3)
        gateway.drain.phase = Phase.CLOSED
        assert (await client.get("/v1/health/ready?leaving=ready")).status_code == 503
        refused = await client.post("/v1/ranking", json=body())
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        assert gateway.drain.active == 1
        engine.open.set()
        assert (await running).status_code == 200
        assert gateway.drain.active == 0
