"""A small client of the API server: JSON in and out, watches as streams."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any

import httpx

Json = dict[str, Any]
_TIMEOUT = 60.0

_ROOTS = {
    "rerankerservices": "/apis/reranker.dev/v1alpha1",
    "nimservices": "/apis/apps.nvidia.com/v1alpha1",
    "rerankerengines": "/apis/reranker.dev/v1alpha1",
    "deployments": "/apis/apps/v1",
    "replicasets": "/apis/apps/v1",
    "customresourcedefinitions": "/apis/apiextensions.k8s.io/v1",
    "validatingwebhookconfigurations": "/apis/admissionregistration.k8s.io/v1",
}


class Api:
    """Calls with the rights of an administrator."""

    def __init__(self, server: str, token: str) -> None:
        headers = {"Authorization": f"Bearer {token}"}
        # The certificate is the API server's own and changes with each start; it is on loopback.
        limits = httpx.Limits(max_connections=32)
        self._client = httpx.AsyncClient(
            base_url=server,
            headers=headers,
            verify=False,  # noqa: S501 - see above
            timeout=_TIMEOUT,
            limits=limits,
        )

    async def close(self) -> None:
        await self._client.aclose()

    async def get(self, plural: str, namespace: str | None, name: str) -> Json | None:
        answer = await self._client.get(path(plural, namespace, name))
        if answer.status_code == 404:
            return None
        return _json(answer)

    async def need(self, plural: str, namespace: str | None, name: str) -> Json:
        if (found := await self.get(plural, namespace, name)) is None:
            raise RuntimeError(f"{plural} {name} is not there")
        return found

    async def list(self, plural: str, namespace: str | None = None, selector: str = "") -> Any:
        """All objects, page by page."""
        items: Any = []
        query = {"limit": "500"} | ({"labelSelector": selector} if selector else {})
        while True:
            page = _json(await self._client.get(path(plural, namespace), params=query))
            items += page["items"]
            if not (token := page["metadata"].get("continue")):
                return items
            query["continue"] = token

    async def create(self, plural: str, body: Json) -> Json:
        where = path(plural, body["metadata"].get("namespace"))
        return _json(await self._client.post(where, json=body))

    async def patch(self, plural: str, body: Json, *, subresource: str = "") -> Json:
        """A strategic merge patch, a merge patch for our own kinds and subresources."""
        meta = body["metadata"]
        kind = "merge-patch" if plural.startswith("reranker") else "strategic-merge-patch"
        where = path(plural, meta.get("namespace"), meta["name"]) + subresource
        headers = {"Content-Type": f"application/{kind}+json"}
        answer = await self._client.patch(
            where,
            content=json.dumps(body),
            headers=headers,
            params={"fieldManager": "kubectl-edit"},
        )
        return _json(answer)

    async def delete(self, plural: str, namespace: str | None, name: str = "") -> None:
        """One object, or all of a namespace."""
        where = path(plural, namespace, name or None)
        _json(await self._client.delete(where, params={"propagationPolicy": "Background"}))

    async def ready(self) -> bool:
        try:
            return (await self._client.get("/readyz")).status_code == 200
        except httpx.HTTPError:
            return False

    async def watch(self, plural: str) -> AsyncIterator[Json]:
        """Events from now on, until the caller stops."""
        start = _json(await self._client.get(path(plural, None), params={"limit": "1"}))
        query = {"watch": "true", "resourceVersion": start["metadata"]["resourceVersion"]}
        where = path(plural, None)
        async with self._client.stream("GET", where, params=query, timeout=None) as stream:
            async for line in stream.aiter_lines():
                if line:
                    yield json.loads(line)


def path(plural: str, namespace: str | None, name: str | None = None) -> str:
    """Where a kind, or one object, is in the API."""
    scope = f"/namespaces/{namespace}" if namespace else ""
    return f"{_ROOTS.get(plural, '/api/v1')}{scope}/{plural}" + (f"/{name}" if name else "")


async def in_parallel(calls: Iterable[Callable[[], Awaitable[Any]]], width: int = 8) -> None:
    """All calls, so many at a time."""
    left = iter(calls)

    async def work() -> None:
        for call in left:
            await call()

    async with asyncio.TaskGroup() as group:
        for _ in range(width):
            group.create_task(work())


def _json(answer: httpx.Response) -> Json:
    if answer.status_code >= 300:
        raise RuntimeError(f"{answer.request.method} {answer.request.url}: {answer.text[:400]}")
    found: Json = answer.json()
    return found
