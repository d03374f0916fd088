"""Two gateways behind one address, of which one ends: nobody notices."""

import asyncio
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from support.balancer import Balancer
from support.traffic import Count, Question, Traffic

Start = Callable[..., Any]
QUESTIONS = [Question("demo", "a", ("b", "d d", "c")), Question("demo", "c c", ("d",) * 7)]
#: The fake Triton scores a pair by the sum of its ids.
KNOWN = {QUESTIONS[0]: [(5.0, 12.0, 6.0)], QUESTIONS[1]: [(13.0,) * 7]}


@asynccontextmanager
async def behind_one_address(*gateways: Any) -> AsyncIterator[tuple[Balancer, Balancer]]:
    """Balancers of HTTP and of gRPC."""
    http, grpc = Balancer(), Balancer()
    http.endpoints = [gateway.port for gateway in gateways]
    grpc.endpoints = [gateway.grpc_port for gateway in gateways]
    await http.start()
    await grpc.start()
    try:
        yield http, grpc
    finally:
        await http.stop()
        await grpc.stop()


async def traffic_at(http: Balancer, grpc: Balancer, meanwhile: Callable[[], Any]) -> Count:
    traffic = Traffic("127.0.0.1", QUESTIONS, per_second=30,
                      http_port=http.port, grpc_port=grpc.port)  # fmt: skip
    with traffic:
        await meanwhile()
        traffic.stop()
        # Not by the end of the block: that would stop this loop, and with it the balancers.
        while traffic.is_running:  # noqa: ASYNC110 (another thread)
            await asyncio.sleep(0.05)
    return Count(traffic.sent, KNOWN)


async def test_a_gateway_that_ends_loses_nothing(start_gateway: Start, triton: Any) -> None:
    await triton.start()
    first = await start_gateway(DRAIN_DELAY_SECONDS=1, LOG_LEVEL="WARNING")
    second = await start_gateway(DRAIN_DELAY_SECONDS=1, LOG_LEVEL="WARNING")
    for gateway in (first, second):
        await gateway.until_ready()

    async with behind_one_address(first, second) as (http, grpc):

        async def end_one() -> None:
            await asyncio.sleep(1)
            first.process.send_signal(signal.SIGTERM)
            # As long as it takes the endpoints to move.
            await asyncio.sleep(0.5)
            http.endpoints, grpc.endpoints = [second.port], [second.grpc_port]
            assert await first.process.wait() == 0
            await asyncio.sleep(0.5)

        count = await traffic_at(http, grpc, end_one)
    assert (count.failures, count.refusals) == ([], [])
    assert count.ok > 30


async def test_the_only_gateway_serves_until_its_successor_does(
    start_gateway: Start, triton: Any
) -> None:
    """Endpoints that end are used while there is no other: so is the pod that is drained."""
    await triton.start()
    first = await start_gateway(DRAIN_DELAY_SECONDS=1, LOG_LEVEL="WARNING")
    await first.until_ready()

    async with behind_one_address(first) as (http, grpc):

        async def replace() -> None:
            await asyncio.sleep(0.5)
            first.process.send_signal(signal.SIGTERM)
            await asyncio.sleep(3)
            second = await start_gateway(LOG_LEVEL="WARNING")
            await second.until_ready()
            http.endpoints, grpc.endpoints = [second.port], [second.grpc_port]
            assert await first.process.wait() == 0

        count = await traffic_at(http, grpc, replace)
    assert (count.failures, count.refusals) == ([], [])
    assert count.ok > 90
