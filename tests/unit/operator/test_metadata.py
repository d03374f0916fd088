"""Metadata over HTTP: only that form is asked for, and every odd answer has its error."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web
from kubernetes.aio.client.api_client import ApiClient
from kubernetes.aio.client.configuration import Configuration

from reranker_operator.adapters.kubernetes import error_of
from reranker_operator.adapters.metadata import Change, KubernetesMetadata, Metadata
from reranker_operator.api.meta import CONFIG_MAP, SECRET
from reranker_operator.errors import Expired, Forbidden, NotFound, Rejected, Unavailable

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def _entry(name: str, version: int) -> dict[str, Any]:
    meta = {"namespace": "shop", "name": name, "uid": f"u-{name}", "resourceVersion": str(version)}
    return {"kind": "PartialObjectMetadata", "metadata": meta}


class Server:
    """Answers with the next of `answers`, and keeps what was asked."""

    def __init__(self) -> None:
        self.answers: list[Handler] = []
        self.requests: list[web.Request] = []

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        return await self.answers.pop(0)(request)


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    server = Server()
    app = web.Application()
    app.router.add_get("/{path:.*}", server.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server.address = f"http://127.0.0.1:{runner.addresses[0][1]}"  # type: ignore[attr-defined]
    yield server
    await runner.cleanup()


@pytest.fixture
async def api(server: Server) -> AsyncIterator[KubernetesMetadata]:
    configuration = Configuration()
    configuration.host = server.address  # type: ignore[attr-defined]
    async with ApiClient(configuration) as client:
        yield KubernetesMetadata(client)


def _json(body: dict[str, Any], status: int = 200) -> Handler:
    async def answer(_: web.Request) -> web.StreamResponse:
        return web.json_response(body, status=status)

    return answer


def _lines(*events: dict[str, Any] | str) -> Handler:
    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for event in events:
            text = event if isinstance(event, str) else json.dumps(event)
            # In two pieces: a line is not a packet.
            await response.write(text[:5].encode())
            await response.write(f"{text[5:]}\n".encode())
        return response

    return answer


async def _watch(api: KubernetesMetadata, version: int = 7) -> list[Change]:
    return [change async for change in api.watch(SECRET, "shop", version)]


async def test_nothing_but_metadata_is_accepted(server: Server, api: KubernetesMetadata) -> None:
    server.answers = [
        _json(_entry("a", 1)),
        _json({"metadata": {"resourceVersion": "9"}, "items": []}),
        _lines(),
    ]
    await api.get(SECRET, "shop", "a")
    await api.list(SECRET, None)
    await _watch(api)
    paths = [request.path for request in server.requests]
    assert paths == [
        "/api/v1/namespaces/shop/secrets/a",
        "/api/v1/secrets",
        "/api/v1/namespaces/shop/secrets",
    ]
    forms = [request.headers["Accept"] for request in server.requests]
    assert forms == [
        "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1",
        "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1",
        "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1",
    ]
    query = server.requests[2].query
    assert (query["resourceVersion"], query["watch"]) == ("7", "true")


async def test_lists_come_in_pages(server: Server, api: KubernetesMetadata) -> None:
    server.answers = [
        _json({"metadata": {"resourceVersion": "9", "continue": "t"}, "items": [_entry("a", 1)]}),
        _json({"metadata": {"resourceVersion": "9"}, "items": [_entry("b", 2)]}),
    ]
    found, version = await api.list(CONFIG_MAP, "shop")
    assert found == [Metadata("shop", "a", "u-a", 1), Metadata("shop", "b", "u-b", 2)]
    assert version == 9
    assert server.requests[1].query["continue"] == "t"


async def test_events_of_any_size_come_one_by_one(server: Server, api: KubernetesMetadata) -> None:
    large = _entry("b", 11)
    large["metadata"]["annotations"] = {"note": "x" * 400_000}
    server.answers = [
        _lines(
            {"type": "ADDED", "object": _entry("a", 10)},
            {"type": "MODIFIED", "object": large},
            {"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "20"}}},
        )
    ]
    assert await _watch(api) == [
        Change("ADDED", Metadata("shop", "a", "u-a", 10)),
        Change("MODIFIED", Metadata("shop", "b", "u-b", 11)),
        Change("BOOKMARK", Metadata("", "", "", 20)),
    ]


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (_lines({"type": "ERROR", "object": {"code": 410, "message": "too old"}}), Expired),
        (_lines({"type": "ERROR", "object": {"code": 500}}), Unavailable),
        (_lines("{half"), Unavailable),
        (_lines({"type": "ADDED", "object": {}}), Unavailable),
        (_lines("x" * 5_000_000), Unavailable),
        (_json({"message": "too old"}, 410), Expired),
        (_json({"message": "no"}, 403), Forbidden),
        (_json({}, 406), Unavailable),
    ],
)
async def test_odd_answers_to_a_watch(
    server: Server, api: KubernetesMetadata, answer: Handler, error: type[Exception]
) -> None:
    server.answers = [answer]
    with pytest.raises(error):
        await _watch(api)


async def test_odd_answers_to_a_question(server: Server, api: KubernetesMetadata) -> None:
    server.answers = [_json({"message": "no such"}, 404)]
    with pytest.raises(NotFound, match="no such"):
        await api.get(SECRET, "shop", "a")


def test_what_server_side_apply_can_not_type_is_refused_for_good() -> None:
    """The API server calls it an internal error; it is the spec's."""
    text = "failed to create typed patch object (...): .spec.template.spec.x: field not declared"
    assert isinstance(error_of("PATCH", "/x", 500, _message(text), {}), Rejected)
    assert isinstance(error_of("PATCH", "/x", 500, _message("etcd is away"), {}), Unavailable)


def _message(text: str) -> bytes:
    return json.dumps({"message": text}).encode()


async def test_a_watch_that_is_left_lets_its_connection_go(
    server: Server, api: KubernetesMetadata
) -> None:
    gone = asyncio.Event()

    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        event = {"type": "ADDED", "object": _entry("a", 10)}
        try:
            while True:
                await response.write(f"{json.dumps(event)}\n".encode())
                await asyncio.sleep(0.01)
        except ConnectionError:
            gone.set()
        return response

    server.answers = [endless]
    changes = api.watch(SECRET, None, 1)
    await anext(changes)
    await changes.aclose()  # type: ignore[attr-defined]
    await asyncio.wait_for(gone.wait(), 10)
