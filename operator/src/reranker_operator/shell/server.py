"""/healthz, /readyz and /metrics.

Whoever reaches the port may ask, as often as they like: what that costs is bounded, since the loop
that answers also renews the Lease. The text of the metrics, 1.6 MB with a thousand services, is
made by a thread, once a second at most, for all who ask; few get it at the same time, and it is
taken in time or not at all. Of too many connections the oldest makes room, so that a probe, which
lasts for a moment, always has one.
"""

import asyncio
from collections.abc import Iterable, Iterator

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from reranker_operator.runtime.health import Health

#: Seconds for which a text is good enough.
_FRESH_SECONDS = 1.0
#: Answers with metrics that are sent at the same time; each is in memory as long as it is.
_MOST_TEXTS = 8
#: Seconds for a client to take one.
_SEND_SECONDS = 5.0
_PIECE_BYTES = 64 << 10
_MOST_CONNECTIONS = 128
#: Seconds; at the end nobody waits for who does not read.
_SHUTDOWN_SECONDS = 0.5


class _Collected(Collector):
    """What was collected, for the thread that makes a text of it."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = list(families)

    def collect(self) -> Iterator[Metric]:
        return iter(self._families)


class Page:
    """The metrics as text, made anew when the last one is old."""

    def __init__(self, registry: CollectorRegistry, fresh: float = _FRESH_SECONDS) -> None:
        self._registry = registry
        self._fresh = fresh
        self._text = b""
        self._until = float("-inf")
        self._making: asyncio.Task[None] | None = None

    async def text(self) -> bytes:
        """The same for all who ask at about the same time."""
        if self._making is None and asyncio.get_running_loop().time() >= self._until:
            self._making = asyncio.create_task(self._make())
        if self._making is not None:
            # Whoever hangs up must not end it for the others.
            await asyncio.shield(self._making)
        return self._text

    async def _make(self) -> None:
        try:
            # On the loop, which all that is asked here belongs to.
            collected = _Collected(self._registry.collect())
            self._text = await asyncio.to_thread(generate_latest, collected)
            # From its end: what takes long is not made all the time.
            self._until = asyncio.get_running_loop().time() + self._fresh
        finally:
            self._making = None


def application(health: Health, registry: CollectorRegistry) -> web.Application:
    """The three routes."""
    page, places = Page(registry), asyncio.Semaphore(_MOST_TEXTS)

    async def healthz(_: web.Request) -> web.Response:
        problem = health.problem()
        return web.Response(text=problem or "ok", status=500 if problem else 200)

    async def readyz(_: web.Request) -> web.Response:
        if waits := health.unready():
            return web.Response(text=waits, status=503)
        return web.Response(text="leader" if health.leading else "standby")

    async def metrics(request: web.Request) -> web.StreamResponse:
        async with places:
            return await _send(request, await page.text())

    app = web.Application()
    app.add_routes(
        [web.get("/healthz", healthz), web.get("/readyz", readyz), web.get("/metrics", metrics)]
    )
    return app


async def _send(request: web.Request, text: bytes) -> web.StreamResponse:
    """Piece by piece, as the client takes them."""
    response = web.StreamResponse(headers={"Content-Type": CONTENT_TYPE_LATEST})
    response.content_length = len(text)
    try:
        async with asyncio.timeout(_SEND_SECONDS):
            await response.prepare(request)
            # Without a body for HEAD.
            for start in range(0, len(text) if request.method == "GET" else 0, _PIECE_BYTES):
                await response.write(text[start : start + _PIECE_BYTES])
            await response.write_eof()
    except ConnectionError:
        # The client has gone, or its connection has made room.
        pass
    except TimeoutError:
        if request.transport is not None:
            request.transport.abort()
    return response


class _Site(web.BaseSite):
    """Listens on all addresses."""

    def __init__(self, runner: web.AppRunner, port: int) -> None:
        super().__init__(runner)
        self._port = port

    @property
    def name(self) -> str:
        return f"http://:{self._port}"

    async def start(self) -> None:
        await super().start()
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._connect, port=self._port)

    def _connect(self) -> asyncio.Protocol:
        server = self._runner.server
        assert server is not None  # noqa: S101 - the runner is set up before its sites
        transports = [entry.transport for entry in server.connections]
        there = [entry for entry in transports if entry is not None and not entry.is_closing()]
        for transport in there[: max(0, len(there) + 1 - _MOST_CONNECTIONS)]:
            transport.abort()
        return server()


async def serve(health: Health, registry: CollectorRegistry, port: int) -> web.AppRunner:
    """Listen on all addresses; the caller cleans the runner up."""
    runner = web.AppRunner(
        application(health, registry), access_log=None, shutdown_timeout=_SHUTDOWN_SECONDS
    )
    await runner.setup()
    await _Site(runner, port).start()
    return runner
