"""/healthz, /readyz and /metrics: facts of our own, not only that the process runs."""

import asyncio
from dataclasses import dataclass

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from reranker_operator.runtime.metrics import Metrics
from reranker_operator.runtime.queue import WorkQueue
from reranker_operator.runtime.resync import Resync

#: A key that nobody took for so long means that the workers hang.
_STUCK_SECONDS = 600.0


@dataclass
class Health:
    """What the probes look at."""

    queue: WorkQueue
    resync: Resync
    metrics: Metrics
    resync_seconds: float
    leading_since: float | None = None

    def problem(self) -> str | None:
        """Why the process should be restarted, or None. A standby has nothing to prove."""
        if self.leading_since is None:
            return None
        now = asyncio.get_running_loop().time()
        last = self.resync.last_finished or self.leading_since
        if now - last > 3 * self.resync_seconds:
            return f"no resync has finished for {now - last:.0f} s"
        if self.queue.oldest_age() > _STUCK_SECONDS:
            return f"a key has waited for {self.queue.oldest_age():.0f} s"
        return None


def application(health: Health) -> web.Application:
    """The three routes."""

    async def healthz(_: web.Request) -> web.Response:
        problem = health.problem()
        return web.Response(text=problem or "ok", status=500 if problem else 200)

    async def readyz(_: web.Request) -> web.Response:
        return web.Response(text="leader" if health.leading_since is not None else "standby")

    async def metrics(_: web.Request) -> web.Response:
        health.metrics.queue_length.set(len(health.queue))
        body = generate_latest(health.metrics.registry)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})

    app = web.Application()
    app.add_routes(
        [web.get("/healthz", healthz), web.get("/readyz", readyz), web.get("/metrics", metrics)]
    )
    return app


async def serve(health: Health, port: int) -> web.AppRunner:
    """Listen on all addresses; the caller cleans the runner up."""
    runner = web.AppRunner(application(health), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, port=port).start()
    return runner
