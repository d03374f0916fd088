"""/healthz, /readyz and /metrics."""

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from reranker_operator.runtime.health import Health


def application(health: Health, registry: CollectorRegistry) -> web.Application:
    """The three routes."""

    async def healthz(_: web.Request) -> web.Response:
        problem = health.problem()
        return web.Response(text=problem or "ok", status=500 if problem else 200)

    async def readyz(_: web.Request) -> web.Response:
        if waits := health.unready():
            return web.Response(text=waits, status=503)
        return web.Response(text="leader" if health.leading else "standby")

    async def metrics(_: web.Request) -> web.Response:
        body = generate_latest(registry)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})

    app = web.Application()
    app.add_routes(
        [web.get("/healthz", healthz), web.get("/readyz", readyz), web.get("/metrics", metrics)]
    )
    return app


async def serve(health: Health, registry: CollectorRegistry, port: int) -> web.AppRunner:
    """Listen on all addresses; the caller cleans the runner up."""
    runner = web.AppRunner(application(health, registry), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, port=port).start()
    return runner
