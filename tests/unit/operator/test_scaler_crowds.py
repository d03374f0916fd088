"""Many who ask the external scaler: nobody is kept out by others, and nothing is kept for them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from support.waiting import until

from reranker_operator.shell.crowd import Crowd, FullError
from reranker_operator.shell.scaler import _MOST_OF_A_KIND

from .test_scaler import Keda, Scene, answering, reference, refused


class Stuck(Scene):
    """Its API server answers when the test lets it."""

    def __init__(self) -> None:
        super().__init__()
        self.goes_on = asyncio.Event()
        self.under_way = 0

    async def get(self, *asked: Any) -> Any:
        self.under_way += 1
        try:
            await self.goes_on.wait()
        finally:
            self.under_way -= 1
        return await super().get(*asked)

    async def nap(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


@asynccontextmanager
async def client(port: int, address: str = "127.0.0.1") -> AsyncIterator[Keda]:
    """One that comes from `address`."""

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        local = (address, 0)
        there, back = await asyncio.open_connection("127.0.0.1", port, local_addr=local)
        await asyncio.gather(_copy(reader, back), _copy(there, writer))

    way = await asyncio.start_server(carry, "127.0.0.1", 0)
    target = f"127.0.0.1:{way.sockets[0].getsockname()[1]}"
    options = [("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(target, options) as channel:
        yield Keda(channel)
    way.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()


async def open_streams(keda: Keda, count: int) -> list[Any]:
    streams = [keda.stream() for _ in range(count)]
    async with asyncio.timeout(20):
        await asyncio.gather(*(stream.read() for stream in streams))
    return streams


async def test_streams_keep_nobody_from_asking() -> None:
    scene = Stuck()
    scene.goes_on.set()
    async with answering(scene) as (_, port), client(port) as keda:
        await open_streams(keda, _MOST_OF_A_KIND)
        assert await keda.active() is False
        # Nor may one who has all of them have more.
        error = await refused(keda.stream().read())
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "512 streams" in error.details()


async def test_a_stream_that_is_given_up_makes_room() -> None:
    scene = Stuck()
    scene.goes_on.set()
    async with answering(scene) as (scaler, port), client(port) as keda:
        for stream in await open_streams(keda, 20):
            stream.cancel()
        await until(lambda: scaler._streams.size == 0)


async def test_who_has_all_streams_makes_room_for_somebody_else() -> None:
    scene = Stuck()
    scene.goes_on.set()
    async with (
        answering(scene) as (scaler, port),
        client(port, "127.0.0.2") as flood,
        client(port) as keda,
    ):
        theirs = await open_streams(flood, _MOST_OF_A_KIND)
        await open_streams(keda, 3)
        await until(lambda: sum(stream.done() for stream in theirs) == 3)
        ended = next(stream for stream in theirs if stream.done())
        assert "make room" in await ended.details()
        assert scaler._streams.size == _MOST_OF_A_KIND


async def test_questions_of_one_that_hang_keep_no_other_from_asking() -> None:
    scene = Stuck()
    async with (
        answering(scene) as (scaler, port),
        client(port, "127.0.0.2") as flood,
        client(port) as keda,
    ):
        theirs = [asyncio.ensure_future(flood.active()) for _ in range(_MOST_OF_A_KIND)]
        await until(lambda: scaler._calls.size == _MOST_OF_A_KIND)
        asked = asyncio.ensure_future(keda.active())
        await until(lambda: any(one.done() for one in theirs))
        scene.goes_on.set()
        assert await asked is False
        await asyncio.gather(*theirs, return_exceptions=True)


async def test_nothing_is_left_of_questions_that_nobody_waits_for() -> None:
    scene = Stuck()
    async with answering(scene) as (scaler, port), client(port) as keda:
        before = len(asyncio.all_tasks())
        for round_ in range(4):
            asked = [
                keda._call("IsActive", reference(namespace=f"n{round_}-{number}"), _Answer)
                for number in range(300)
            ]
            await until(lambda: len(scaler._asked) >= 300)
            for call in asked:
                call.cancel()
            await until(lambda: not scaler._asked)
        await until(lambda: scene.under_way == 0)
        await until(lambda: len(asyncio.all_tasks()) <= before + 5)


async def test_what_others_still_wait_for_goes_on() -> None:
    scene = Stuck()
    async with answering(scene) as (scaler, port), client(port) as keda:
        gone = keda._call("IsActive", reference(), _Answer)
        stays = asyncio.ensure_future(keda.active())
        await until(lambda: scaler._calls.size == 2)
        gone.cancel()
        await until(lambda: scaler._calls.size == 1)
        scene.goes_on.set()
        assert await stays is False
        assert scene.questions == 2


class _Answer:
    FromString = bytes


async def test_places_are_shared_out_between_callers() -> None:
    crowd, end = Crowd(6), asyncio.Event()

    async def call(peer: str) -> None:
        with crowd.place(peer):
            await end.wait()

    async def came(peer: str) -> "asyncio.Task[None]":
        task = asyncio.create_task(call(peer))
        await asyncio.sleep(0)
        return task

    first = [await came(f"ipv4:1.1.1.1:{port}") for port in range(6)]
    with pytest.raises(FullError):
        await call("ipv4:1.1.1.1:99")
    second = [await came("ipv6:%5B::1%5D:7") for _ in range(3)]
    await asyncio.sleep(0)
    assert [task.done() for task in first] == [True] * 3 + [False] * 3
    assert isinstance(first[0].exception(), FullError)
    # As many each: nobody takes any more of the other.
    with pytest.raises(FullError):
        await call("ipv6:%5B::1%5D:8")
    third = await came("ipv4:2.2.2.2:1")
    await asyncio.sleep(0)
    assert sum(task.done() for task in (*first, *second)) == 4
    end.set()
    await asyncio.gather(*first, *second, third, return_exceptions=True)
    assert crowd.size == 0
