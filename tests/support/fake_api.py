"""As much of an API server as the operator needs to start: everything is there, nothing is in it.

What the test wants to be otherwise it says by `trouble`: asked of each list and watch, with the
plural, the namespace and whether it is a watch; what it returns is the answer.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from reranker_operator.api.meta import OWNED, RERANKER_ENGINE, RERANKER_SERVICE, Resource

Trouble = Callable[[str, str | None, bool], web.Response | None]
_VERBS = ["get", "list", "watch", "patch", "create", "delete"]


def status(code: int, message: str) -> web.Response:
    """A refusal."""
    return web.json_response({"kind": "Status", "code": code, "message": message}, status=code)


def watch_error(code: int, message: str) -> web.Response:
    """A watch that begins, and tells of an error."""
    event = {"type": "ERROR", "object": {"kind": "Status", "message": message, "code": code}}
    return web.Response(text=json.dumps(event) + "\n", content_type="application/json")


class FakeApi:
    """Lists are empty; `send` has the next event of a watch."""

    def __init__(self, trouble: Trouble = lambda *_: None) -> None:
        self.trouble = trouble
        self.url = ""
        self.lease: dict[str, Any] = {}
        #: Lists and watches by plural and namespace.
        self.asked: list[tuple[str, str | None, bool]] = []
        self._watches: dict[tuple[str, str | None], asyncio.Queue[dict[str, Any]]] = {}

    def send(self, plural: str, namespace: str | None, kind: str, body: dict[str, Any]) -> None:
        """To the watch that is open, or to the next one."""
        self._queue(plural, namespace).put_nowait({"type": kind, "object": body})

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """All there is."""
        path = request.path.strip("/").split("/")
        if "leases" in path:
            return await self._answer_lease(request)
        if (found := _discovery(path)) is not None:
            return web.json_response(found)
        namespace = path[path.index("namespaces") + 1] if "namespaces" in path else None
        watch = request.query.get("watch") == "true"
        self.asked.append((path[-1], namespace, watch))
        if (trouble := self.trouble(path[-1], namespace, watch)) is not None:
            return trouble
        if not watch:
            return web.json_response({"items": [], "metadata": {"resourceVersion": "1"}})
        return await self._stream(request, self._queue(path[-1], namespace))

    async def _stream(
        self, request: web.Request, events: "asyncio.Queue[dict[str, Any]]"
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        while True:
            await response.write(json.dumps(await events.get()).encode() + b"\n")

    async def _answer_lease(self, request: web.Request) -> web.Response:
        if request.method == "GET":
            return web.json_response(self.lease) if self.lease else status(404, "no such Lease")
        self.lease = await request.json()
        self.lease["metadata"]["resourceVersion"] = str(time.time_ns())
        return web.json_response(self.lease)

    def _queue(self, plural: str, namespace: str | None) -> "asyncio.Queue[dict[str, Any]]":
        return self._watches.setdefault((plural, namespace), asyncio.Queue())


@asynccontextmanager
async def fake_api(trouble: Trouble = lambda *_: None) -> AsyncIterator[FakeApi]:
    """On a free port of the loopback."""
    api = FakeApi(trouble)
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", api.answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    api.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield api
    finally:
        await runner.cleanup()


def _discovery(path: list[str]) -> dict[str, Any] | None:
    groups: dict[str, tuple[str, list[dict[str, Any]]]] = {
        "apiextensions.k8s.io": ("v1", [_entry("customresourcedefinitions", "X", False)]),
        "": ("v1", [_entry("namespaces", "Namespace", False)]),
    }
    for kind in (RERANKER_SERVICE, RERANKER_ENGINE, *OWNED):
        groups.setdefault(kind.group, (kind.version, []))[1].append(_entry_of(kind))
    if path == ["api"]:
        return {"versions": ["v1"]}
    if path == ["apis"]:
        return {"groups": [_group(name, version) for name, (version, _) in groups.items() if name]}
    name = "" if path[0] == "api" else path[1]
    if name not in groups or len(path) != (2 if path[0] == "api" else 3):
        return None
    return {"kind": "APIResourceList", "resources": groups[name][1]}


def _group(name: str, version: str) -> dict[str, Any]:
    served = {"groupVersion": f"{name}/{version}", "version": version}
    return {"name": name, "versions": [served], "preferredVersion": served}


def _entry_of(kind: Resource) -> dict[str, Any]:
    return _entry(kind.plural, kind.kind, kind.namespaced)


def _entry(plural: str, kind: str, namespaced: bool) -> dict[str, Any]:
    names = {"name": plural, "kind": kind, "singularName": kind.lower()}
    return names | {"namespaced": namespaced, "verbs": _VERBS, "shortNames": [], "categories": []}
