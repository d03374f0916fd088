"""The operator's client against an HTTP server of the test."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from aiohttp import web
from kubernetes.aio.client.api_client import ApiClient
from kubernetes.aio.client.configuration import Configuration

from reranker_operator.adapters.kubernetes import KubernetesCluster


@asynccontextmanager
async def cluster_behind(
    routes: Sequence[web.RouteDef], may_write: Callable[[], bool] = lambda: True
) -> AsyncIterator[KubernetesCluster]:
    """A cluster whose API server answers by `routes`, on a free port of the loopback."""
    app = web.Application()
    app.add_routes(routes)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    async with ApiClient(Configuration(host=f"http://127.0.0.1:{port}")) as client:
        yield KubernetesCluster(client, may_write)
    await runner.cleanup()
