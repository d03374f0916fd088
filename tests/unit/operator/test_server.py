"""What anybody may ask of the operator costs it little, however many ask."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from reranker_operator.shell import server
from reranker_operator.shell.server import Page


class _Health:
    leading = True

    def problem(self) -> None:
        return None

    def unready(self) -> None:
        return None


class _Many(Collector):
    """So many series; knows how often it was asked, and by which thread."""

    def __init__(self, size: int = 1) -> None:
        self.size = size
        self.asked: list[int] = []

    def collect(self) -> Iterator[Metric]:
        self.asked.append(threading.get_ident())
        family = GaugeMetricFamily("of", "many", labels=["name"])
        for number in range(self.size):
            family.add_metric(["n" * 60 + str(number)], 1)
        yield family


def _registry(many: _Many) -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(many)
    many.asked.clear()
    return registry


@asynccontextmanager
async def _served(many: _Many) -> AsyncIterator[tuple[Any, int]]:
    health: Any = _Health()
    runner = await server.serve(health, _registry(many), 0)
    yield runner, next(address[1] for address in runner.addresses if "." in address[0])
    await runner.cleanup()
    # Both ends of all connections.
    await asyncio.sleep(0.1)


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    """More than the buffers of a connection take."""
    monkeypatch.setattr(server, "generate_latest", lambda _: b"x" * (20 << 20))


async def test_all_who_ask_at_the_same_time_get_the_same_text() -> None:
    many = _Many(2)
    page = Page(_registry(many), fresh=60)
    first = asyncio.create_task(page.text())
    await asyncio.sleep(0)
    first.cancel()
    texts = await asyncio.gather(*(page.text() for _ in range(100)), page.text())
    assert len(set(texts)) == 1
    assert texts[0].count(b"\nof{") == 2
    assert many.asked == [threading.get_ident()], "what belongs to the loop is read by the loop"


async def test_an_old_text_is_made_anew_and_an_error_is_not_kept() -> None:
    many = _Many()
    page = Page(_registry(many), fresh=0)
    many.collect, right = None, many.collect  # type: ignore[assignment, method-assign]
    for _ in range(2):
        with pytest.raises(TypeError):
            await page.text()
    many.collect = right  # type: ignore[method-assign]
    assert b"nnn0" in await page.text()
    many.size = 0
    assert b"nnn0" not in await page.text()


async def test_the_loop_goes_on_while_a_text_is_made() -> None:
    made, go_on = threading.Event(), threading.Event()

    def slow(collector: Collector) -> bytes:
        made.set()
        assert go_on.wait(20)
        return b"text"

    page = Page(_registry(_Many()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(server, "generate_latest", slow)
        asking = asyncio.create_task(page.text())
        await asyncio.to_thread(made.wait, 20)
        assert not asking.done()
        go_on.set()
        assert await asking == b"text"


@pytest.mark.usefixtures("large")
async def test_who_does_not_read_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_SEND_SECONDS", 0.2)
    monkeypatch.setattr(server, "_MOST_TEXTS", 1)
    async with _served(_Many()) as (_, port), asyncio.timeout(60):
        _, lazy = await asyncio.open_connection("127.0.0.1", port, limit=1)
        lazy.write(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        await asyncio.sleep(0.1)
        url = f"http://127.0.0.1:{port}/metrics"
        monkeypatch.setattr(server, "_SEND_SECONDS", 20)
        async with aiohttp.ClientSession() as client, client.get(url) as response:
            assert len(await response.read()) == response.content_length
        lazy.transport.abort()


@pytest.mark.usefixtures("large")
async def test_nobody_holds_the_end_up() -> None:
    async with _served(_Many()) as (runner, port):
        _, lazy = await asyncio.open_connection("127.0.0.1", port, limit=1)
        lazy.write(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        await asyncio.sleep(1)
        began = asyncio.get_running_loop().time()
        await runner.cleanup()
        assert asyncio.get_running_loop().time() - began < 4
        lazy.transport.abort()


async def test_of_too_many_connections_the_oldest_make_room() -> None:
    async with _served(_Many()) as (runner, port):
        idle = [await asyncio.open_connection("127.0.0.1", port) for _ in range(150)]
        async with aiohttp.ClientSession() as client:
            for path in ("healthz", "readyz", "metrics"):
                async with client.get(f"http://127.0.0.1:{port}/{path}") as response:
                    assert response.status == 200
        assert len(runner.server.connections) <= 128
        oldest, newest = idle[0][0], idle[-1][0]
        async with asyncio.timeout(20):
            assert await oldest.read() == b""
        assert not newest.at_eof()
        for _, writer in idle:
            writer.transport.abort()
