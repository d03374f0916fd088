"""The adapter against a server that answers as an API server does, or not at all."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from kubernetes.aio.client import Configuration
from kubernetes.aio.client.api_client import ApiClient

from reranker_operator.adapters import kubernetes as adapter
from reranker_operator.adapters.kubernetes import KubernetesCluster
from reranker_operator.api.meta import DEPLOYMENT, POD
from reranker_operator.errors import (
    Conflict,
    Forbidden,
    NamespaceTerminating,
    NotFound,
    OperatorError,
    Rejected,
    Unavailable,
)


class Server:
    """Keeps the requests; answers as it is told."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str, dict[str, str], str, str]] = []
        self.answers: list[web.Response] = []
        self.hangs = False

    async def handle(self, request: web.Request) -> web.Response:
        if self.hangs:
            await asyncio.sleep(3600)
        kind = request.headers.get("Content-Type", "")
        text = await request.text()
        self.requests.append((request.method, request.path, dict(request.query), kind, text))
        return self.answers.pop(0) if self.answers else web.json_response({})


@asynccontextmanager
async def _served() -> AsyncIterator[tuple[Server, KubernetesCluster]]:
    server, app = Server(), web.Application()
    app.router.add_route("*", "/{path:.*}", server.handle)
    async with TestServer(app) as running:
        configuration = Configuration(host=str(running.make_url("")).rstrip("/"))  # type: ignore[no-untyped-call]
        async with ApiClient(configuration) as client:
            yield server, KubernetesCluster(client)


def _refusal(status: int, **more: Any) -> web.Response:
    return web.json_response({"message": "no"} | more, status=status)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (_refusal(404), NotFound),
        (_refusal(409), Conflict),
        (_refusal(403), Forbidden),
        (
            _refusal(403, details={"causes": [{"reason": "NamespaceTerminating"}]}),
            NamespaceTerminating,
        ),
        (_refusal(422), Rejected),
        (_refusal(500), Unavailable),
        (_refusal(503), Unavailable),
        (web.Response(status=502, text="<html>"), Unavailable),
        (web.json_response([], status=500), Unavailable),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
async def test_refusals_in_our_own_words(answer: web.Response, error: type[OperatorError]) -> None:
    async with _served() as (server, cluster):
        server.answers = [answer]
        with pytest.raises(error) as caught:
            await cluster.get(DEPLOYMENT, "shop", "x")
        assert type(caught.value) is error


async def test_the_time_that_the_server_names() -> None:
    async with _served() as (server, cluster):
        server.answers = [
            web.json_response({}, status=429, headers={"Retry-After": "7"}),
            web.json_response({}, status=429),
        ]
        for expected in (7.0, None):
            with pytest.raises(Unavailable) as caught:
                await cluster.get(DEPLOYMENT, "shop", "x")
            assert caught.value.retry_after == expected


async def test_a_call_without_an_answer_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_READ", "_WRITE"):
        monkeypatch.setattr(adapter, name, aiohttp.ClientTimeout(total=0.05))
    async with _served() as (server, cluster):
        server.hangs = True
        with pytest.raises(Unavailable, match="TimeoutError"):
            await cluster.get(DEPLOYMENT, "shop", "x")
        with pytest.raises(Unavailable, match="TimeoutError"):
            await cluster.delete(DEPLOYMENT, "shop", "x")


async def test_a_list_comes_page_by_page_and_entries_say_what_they_are() -> None:
    async with _served() as (server, cluster):
        pages = [{"items": [{"a": 1}], "metadata": {"continue": "t"}}, {"items": [{"a": 2}]}]
        server.answers = [web.json_response(page) for page in pages]
        found = [page async for page in cluster.pages(POD, "shop", {"x": "y"})]
        what = {"apiVersion": "v1", "kind": "Pod"}
        assert found == [[{"a": 1} | what], [{"a": 2} | what]]
        first, second = (request[2] for request in server.requests)
        assert first["labelSelector"] == "x=y"
        assert (first.get("continue"), second["continue"]) == (None, "t")
        assert first["limit"] == second["limit"]


async def test_patches_are_what_they_are_called() -> None:
    async with _served() as (server, cluster):
        meta = {"name": "x", "namespace": "shop"}
        await cluster.apply({"kind": "Deployment", "metadata": meta}, "me")
        await cluster.json_patch(DEPLOYMENT, "shop", "x", [{"op": "remove", "path": "/a"}])
        await cluster.merge_patch(DEPLOYMENT, "shop", "x", {"a": None})
        kinds = [kind for _, _, _, kind, _ in server.requests]
        assert kinds == [
            "application/apply-patch+yaml",
            "application/json-patch+json",
            "application/merge-patch+json",
        ]
        assert server.requests[0][2] == {"fieldManager": "me", "force": "true"}
        assert server.requests[1][4] == '[{"op": "remove", "path": "/a"}]'
