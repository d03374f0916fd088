"""Which kinds a cluster has, asked of an API server's discovery."""

from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from support.api_server import cluster_behind

from reranker_operator.adapters.kubernetes import KubernetesCluster
from reranker_operator.api.meta import HTTP_ROUTE, SERVICE_MONITOR
from reranker_operator.errors import Unavailable


@pytest.fixture
async def cluster() -> AsyncIterator[KubernetesCluster]:
    """An API server that knows Gateways and not their routes, and is ill about monitors."""

    async def gateways(_: web.Request) -> web.Response:
        names = ("gateways", "httproutes/status")
        return web.json_response({"resources": [{"name": name} for name in names]})

    async def ill(_: web.Request) -> web.Response:
        return web.json_response({"message": "etcd is away"}, status=500)

    routes = [
        web.get("/apis/gateway.networking.k8s.io/v1", gateways),
        web.get("/apis/monitoring.coreos.com/v1", ill),
    ]
    async with cluster_behind(routes) as cluster:
        yield cluster


async def test_a_group_that_is_not_there_or_lacks_the_kind(cluster: KubernetesCluster) -> None:
    assert not await cluster.serves(HTTP_ROUTE)
    other = type(HTTP_ROUTE)("example.com", "v1", "things", "Thing")
    assert not await cluster.serves(other)
    gateways = type(HTTP_ROUTE)("gateway.networking.k8s.io", "v1", "gateways", "Gateway")
    assert await cluster.serves(gateways)


async def test_an_ill_api_server_is_not_a_missing_kind(cluster: KubernetesCluster) -> None:
    with pytest.raises(Unavailable):
        await cluster.serves(SERVICE_MONITOR)
