"""The Cluster protocol over `kubernetes.aio`: plain JSON in and out.

The client brings connection handling, TLS and token refresh; its typed models are not used, since
server-side apply wants exactly the fields we own and nothing filled in.
"""

import json
from collections.abc import Mapping
from typing import Any

import aiohttp
from kubernetes.aio.client.api_client import ApiClient
from kubernetes.aio.client.exceptions import ApiException

from reranker_operator.adapters.cluster import Json
from reranker_operator.api.meta import RESOURCES, Resource
from reranker_operator.errors import (
    Conflict,
    Forbidden,
    NamespaceTerminating,
    NotFound,
    OperatorError,
    Rejected,
    Unavailable,
)
from reranker_operator.names import MANAGER

_TIMEOUT_SECONDS = 30
_PAGE = 500
_APPLY = "application/apply-patch+yaml"
_MERGE = "application/merge-patch+json"


class KubernetesCluster:
    """A real cluster; also its Discovery."""

    def __init__(self, client: ApiClient) -> None:
        self._client = client

    async def get(self, resource: Resource, namespace: str, name: str) -> Json:
        return await self._call("GET", _path(resource, namespace, name))

    async def list(
        self,
        resource: Resource,
        namespace: str | None,
        selector: Mapping[str, str] | None = None,
        *,
        fields: Mapping[str, str] | None = None,
    ) -> list[Json]:
        query = {"limit": str(_PAGE)}
        for name, wanted in (("labelSelector", selector), ("fieldSelector", fields)):
            if wanted:
                query[name] = ",".join(f"{key}={value}" for key, value in wanted.items())
        items: list[Json] = []
        while True:
            page = await self._call("GET", _path(resource, namespace), query)
            items += page.get("items", [])
            token = page.get("metadata", {}).get("continue")
            if not token:
                return items
            query["continue"] = token

    async def apply(self, manifest: Json, manager: str) -> Json:
        return await self._apply(manifest, manager, "")

    async def apply_status(self, manifest: Json, manager: str) -> Json:
        return await self._apply(manifest, manager, "/status")

    async def create(self, manifest: Json) -> Json:
        resource, namespace = RESOURCES[manifest["kind"]], manifest["metadata"]["namespace"]
        query = {"fieldManager": MANAGER}
        return await self._call("POST", _path(resource, namespace), query, manifest)

    async def merge_patch(self, resource: Resource, namespace: str, name: str, patch: Json) -> Json:
        query = {"fieldManager": MANAGER}
        return await self._call("PATCH", _path(resource, namespace, name), query, patch, _MERGE)

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
            await self._call("DELETE", _path(resource, namespace, name), body=body)
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
        path = _path(resource, meta["namespace"], meta["name"]) + subresource
        query = {"fieldManager": manager, "force": "true"}
        return await self._call("PATCH", path, query, manifest, _APPLY)

    async def _call(
        self,
        method: str,
        path: str,
        query: dict[str, str] | None = None,
        body: Json | None = None,
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
            response = await self._client.call_api(*request, _request_timeout=_TIMEOUT_SECONDS)
            data: bytes = await response.response.read()
        except (ApiException, aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Unavailable(f"{method} {path}: {type(error).__name__}") from error
        if response.status < 300:
            result: Json = json.loads(data)
            return result
        raise _error(method, path, response.status, data, response.headers)


def _path(resource: Resource, namespace: str | None, name: str | None = None) -> str:
    root = f"/apis/{resource.group}/{resource.version}" if resource.group else "/api/v1"
    scope = f"/namespaces/{namespace}" if namespace and resource.namespaced else ""
    return f"{root}{scope}/{resource.plural}" + (f"/{name}" if name else "")


def _error(
    method: str, path: str, status: int, data: bytes, headers: Mapping[str, Any]
) -> OperatorError:
    try:
        answer = json.loads(data)
    except ValueError:
        answer = {}
    if not isinstance(answer, dict):
        answer = {}
    text = f"{method} {path}: {status} {str(answer.get('message', ''))[:600]}".strip()
    if status == 404:
        return NotFound(text)
    if status == 409:
        return Conflict(text)
    if status in (401, 403):
        causes = (answer.get("details") or {}).get("causes") or []
        if any(cause.get("reason") == "NamespaceTerminating" for cause in causes):
            return NamespaceTerminating(text)
        return Forbidden(text)
    if status in (400, 422):
        return Rejected(text)
    return Unavailable(text, _seconds(headers.get("Retry-After")))


def _seconds(value: str | None) -> float | None:
    return float(value) if value and value.isdigit() else None
