"""The Cluster protocol over `kubernetes.aio`: plain JSON in and out.

The client brings connection handling, TLS and token refresh; its typed models are not used, since
server-side apply wants exactly the fields we own and nothing filled in.
"""

from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any
from urllib.parse import quote

import aiohttp
import orjson
from kubernetes.aio.client.api_client import ApiClient
from kubernetes.aio.client.exceptions import ApiException

from reranker_operator.adapters.cluster import Items, Json
from reranker_operator.api.meta import RESOURCES, Resource
from reranker_operator.errors import (
    Conflict,
    Deposed,
    Expired,
    Forbidden,
    NamespaceTerminating,
    NotFound,
    OperatorError,
    Rejected,
    Unavailable,
)
from reranker_operator.names import MANAGER

#: Longer than any admission webhook may take; a read has nobody to wait for.
_WRITE = aiohttp.ClientTimeout(total=35, sock_connect=5)
_READ = aiohttp.ClientTimeout(total=15, sock_connect=5)
#: A page of pods is tens of megabytes once it is parsed.
_PAGE = 100
_APPLY = "application/apply-patch+yaml"
_MERGE = "application/merge-patch+json"
_JSON_PATCH = "application/json-patch+json"
_ERRORS: Mapping[int, type[OperatorError]] = {404: NotFound, 409: Conflict, 410: Expired}


class KubernetesCluster:
    """A real cluster; also its Discovery.

    `may_write` is asked right before each write; where it says no, Deposed is raised.
    """

    def __init__(self, client: ApiClient, may_write: Callable[[], bool] = lambda: True) -> None:
        self._client = client
        self._may_write = may_write

    async def get(self, resource: Resource, namespace: str, name: str) -> Json:
        return await self._call("GET", path_of(resource, namespace, name))

    async def list(
        self,
        resource: Resource,
        namespace: str | None,
        selector: Mapping[str, str] | None = None,
        *,
        fields: Mapping[str, str] | None = None,
    ) -> Items:
        return [
            item async for page in self._pages(resource, namespace, selector, fields)
            for item in page
        ]  # fmt: skip

    async def pages(
        self,
        resource: Resource,
        namespace: str | None,
        selector: Mapping[str, str] | None = None,
    ) -> AsyncIterator[Items]:
        async for page in self._pages(resource, namespace, selector, None):
            yield page

    async def _pages(
        self,
        resource: Resource,
        namespace: str | None,
        selector: Mapping[str, str] | None,
        fields: Mapping[str, str] | None,
    ) -> AsyncIterator[Items]:
        query = {"limit": str(_PAGE)}
        for name, wanted in (("labelSelector", selector), ("fieldSelector", fields)):
            if wanted:
                query[name] = ",".join(f"{key}={value}" for key, value in wanted.items())
        while True:
            page = await self._call("GET", path_of(resource, namespace), query)
            # Entries of a list leave out what they are.
            what = {"apiVersion": resource.api_version, "kind": resource.kind}
            yield [entry | what for entry in page.get("items", [])]
            token = page.get("metadata", {}).get("continue")
            if not token:
                return
            query["continue"] = token

    async def apply(self, manifest: Json, manager: str) -> Json:
        return await self._apply(manifest, manager, "")

    async def apply_status(self, manifest: Json, manager: str) -> Json:
        return await self._apply(manifest, manager, "/status")

    async def create(self, manifest: Json) -> Json:
        resource, namespace = RESOURCES[manifest["kind"]], manifest["metadata"]["namespace"]
        query = {"fieldManager": MANAGER}
        return await self._call("POST", path_of(resource, namespace), query, manifest)

    async def merge_patch(self, resource: Resource, namespace: str, name: str, patch: Json) -> Json:
        query = {"fieldManager": MANAGER}
        return await self._call("PATCH", path_of(resource, namespace, name), query, patch, _MERGE)

    async def scale(self, resource: Resource, namespace: str, name: str, replicas: int) -> None:
        path = path_of(resource, namespace, name) + "/scale"
        patch: Json = {"spec": {"replicas": replicas}}
        await self._call("PATCH", path, {"fieldManager": MANAGER}, patch, _MERGE)

    async def json_patch(self, resource: Resource, namespace: str, name: str, patch: Items) -> Json:
        query = {"fieldManager": MANAGER}
        path = path_of(resource, namespace, name)
        return await self._call("PATCH", path, query, patch, _JSON_PATCH)

    async def delete(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        uid: str | None = None,
        version: str | None = None,
    ) -> None:
        body: Json = {"propagationPolicy": "Background"}
        expected = {"uid": uid, "resourceVersion": version}
        if given := {key: value for key, value in expected.items() if value is not None}:
            body["preconditions"] = given
        try:
            await self._call("DELETE", path_of(resource, namespace, name), body=body)
        except (NotFound, Conflict):
            # Gone, or not the object that was seen: what it is now is for the next plan.
            return

    async def serves(self, resource: Resource) -> bool:
        """Asked of the group's version itself: discovery of all groups is large."""
        try:
            found = await self._call("GET", f"/apis/{resource.group}/{resource.version}")
        except NotFound:
            return False
        return any(entry.get("name") == resource.plural for entry in found.get("resources", []))

    async def _apply(self, manifest: Json, manager: str, subresource: str) -> Json:
        resource, meta = RESOURCES[manifest["kind"]], manifest["metadata"]
        path = path_of(resource, meta["namespace"], meta["name"]) + subresource
        query = {"fieldManager": manager, "force": "true"}
        return await self._call("PATCH", path, query, manifest, _APPLY)

    async def _call(
        self,
        method: str,
        path: str,
        query: dict[str, str] | None = None,
        body: Json | Items | None = None,
        content_type: str = "application/json",
    ) -> Json:
        headers = {"Accept": "application/json", "Content-Type": content_type}
        try:
            request = await self._client.param_serialize(
                method,
                path,
                query_params=list((query or {}).items()),
                header_params=headers,
                body=body,
                auth_settings=["BearerToken"],
            )
            timeout = _READ if method == "GET" else _WRITE
            if method != "GET" and not self._may_write():
                raise Deposed(f"{method} {path}: not sent, the Lease is not surely held any more")
            response = await self._client.call_api(*request, _request_timeout=timeout)
            data: bytes = await response.response.read()
        except (ApiException, aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Unavailable(f"{method} {path}: {type(error).__name__}") from error
        if response.status < 300:
            result: Json = orjson.loads(data)
            return result
        raise error_of(method, path, response.status, data, response.headers)


def path_of(resource: Resource, namespace: str | None, name: str | None = None) -> str:
    """Where objects of a kind, or one of them, are found below the API server's address."""
    root = f"/apis/{resource.group}/{resource.version}" if resource.group else "/api/v1"
    scope = f"/namespaces/{_segment(namespace)}" if namespace and resource.namespaced else ""
    return f"{root}{scope}/{resource.plural}" + (f"/{_segment(name)}" if name else "")


def _segment(name: str) -> str:
    """One part of a path: a name that came from a spec must never lead to another object."""
    if name in (".", ".."):
        raise Rejected(f"'{name}' is no name of an object")
    return quote(name, safe="")


def error_of(
    method: str, path: str, status: int, data: bytes, headers: Mapping[str, Any]
) -> OperatorError:
    """What an answer other than success means."""
    try:
        answer = orjson.loads(data)
    except ValueError:
        answer = {}
    if not isinstance(answer, dict):
        answer = {}
    text = f"{method} {path}: {status} {str(answer.get('message', ''))[:600]}".strip()
    if status in _ERRORS:
        return _ERRORS[status](text)
    if status in (401, 403):
        causes = (answer.get("details") or {}).get("causes") or []
        if any(cause.get("reason") == "NamespaceTerminating" for cause in causes):
            return NamespaceTerminating(text)
        return Forbidden(text)
    # To server-side apply a field that the kind does not have, or an entry that is there twice, is
    # an error of its own making; it would stay one however often it is tried.
    if status in (400, 422) or (status == 500 and "failed to create typed patch object" in text):
        return Rejected(text)
    return Unavailable(text, _seconds(headers.get("Retry-After")))


def _seconds(value: str | None) -> float | None:
    return float(value) if value and value.isdigit() else None
