"""Metadata of objects, never their contents: what is asked for is PartialObjectMetadata.

So the contents of a Secret never reach this process, even where RBAC, which knows no such
difference, would allow it. kopf can't ask for this form; hence a small watch of our own.
"""

import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any, Literal, NamedTuple, Protocol

import aiohttp
from aiohttp.http_exceptions import HttpProcessingError
from kubernetes.aio.client.api_client import ApiClient
from kubernetes.aio.client.exceptions import ApiException
from kubernetes.aio.client.rest import RESTResponse

from reranker_operator.adapters.cluster import Json
from reranker_operator.adapters.kubernetes import error_of, path_of
from reranker_operator.api.meta import Resource
from reranker_operator.errors import Unavailable

#: No other form is accepted: rather no answer than one with contents.
_FORM = "application/json;as={};g=meta.k8s.io;v=v1"
#: Annotations may have 256 KiB, so a page of many objects may be large.
_PAGE = 250
_TIMEOUT_SECONDS = 30
#: The server ends a watch by itself after this long, and sends bookmarks about every minute.
_WATCH_SECONDS = 300
_SILENCE_SECONDS = 120


_FAILURES = (
    ApiException,
    aiohttp.ClientError,
    # A line that is too long for any object.
    HttpProcessingError,
    TimeoutError,
    OSError,
    # Not JSON, or not of objects.
    ValueError,
    KeyError,
    TypeError,
)


class Metadata(NamedTuple):
    """What is kept of one object. `version` is its resourceVersion."""

    namespace: str
    name: str
    uid: str
    version: int


class Change(NamedTuple):
    """One event of a watch; a bookmark only tells how far the watch has come."""

    kind: Literal["ADDED", "MODIFIED", "DELETED", "BOOKMARK"]
    found: Metadata


class MetadataApi(Protocol):
    """All calls raise the errors of `reranker_operator.errors`."""

    async def get(self, resource: Resource, namespace: str, name: str) -> Metadata:
        """One object. Raises NotFound."""

    async def list(self, resource: Resource, namespace: str | None) -> tuple[list[Metadata], int]:
        """All objects, and the version from which to watch on."""

    def watch(
        self, resource: Resource, namespace: str | None, version: int
    ) -> AsyncIterator[Change]:
        """What happens after that version, until the server ends it. Raises Expired."""


class KubernetesMetadata:
    """A real cluster's."""

    def __init__(self, client: ApiClient) -> None:
        self._client = client

    async def get(self, resource: Resource, namespace: str, name: str) -> Metadata:
        """One object. Raises NotFound."""
        path = path_of(resource, namespace, name)
        found = await self._read(path, {}, "")
        with _translated(path):
            return _metadata(found)

    async def list(self, resource: Resource, namespace: str | None) -> tuple[list[Metadata], int]:
        """All objects, and the version from which to watch on."""
        path, query = path_of(resource, namespace), {"limit": str(_PAGE)}
        found: list[Metadata] = []
        while True:
            page = await self._read(path, query, "List")
            with _translated(path):
                found += map(_metadata, page.get("items", []))
                meta = page["metadata"]
                token = meta.get("continue")
                if not token:
                    return found, int(meta["resourceVersion"])
            query["continue"] = token

    async def watch(
        self, resource: Resource, namespace: str | None, version: int
    ) -> AsyncIterator[Change]:
        """What happens after that version, until the server ends it. Raises Expired."""
        path = path_of(resource, namespace)
        query = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": str(version),
            "timeoutSeconds": str(_WATCH_SECONDS),
        }
        limits = aiohttp.ClientTimeout(total=None, connect=10, sock_read=_SILENCE_SECONDS)
        response = await self._call(path, query, "", limits)
        stream = response.response
        try:
            while line := await _next_line(stream, path):
                yield _change(path, line)
        finally:
            # Else the connection would wait for the rest of the answer.
            stream.close()

    async def _read(self, path: str, query: dict[str, str], form: str) -> Json:
        limits = aiohttp.ClientTimeout(total=_TIMEOUT_SECONDS)
        response = await self._call(path, query, form, limits)
        with _translated(path):
            found: Json = json.loads(await response.response.read())
        return found

    async def _call(
        self, path: str, query: dict[str, str], form: str, limits: aiohttp.ClientTimeout
    ) -> RESTResponse:
        """The answer's head; its body is still to be read."""
        accept = _FORM.format(f"PartialObjectMetadata{form}")
        with _translated(path):
            request = await self._client.param_serialize(
                "GET",
                path,
                query_params=list(query.items()),
                header_params={"Accept": accept},
                auth_settings=["BearerToken"],
            )
            response = await self._client.call_api(*request, _request_timeout=limits)
            if response.status < 300:
                return response
            data: bytes = await response.response.read()
        raise error_of("GET", path, response.status, data, response.headers)


@contextlib.contextmanager
def _translated(path: str) -> Any:
    try:
        yield
    except _FAILURES as error:
        raise Unavailable(f"GET {path}: {type(error).__name__}") from error


async def _next_line(stream: aiohttp.ClientResponse, path: str) -> bytes:
    """Empty at the end."""
    with _translated(path):
        return await stream.content.readline()


def _change(path: str, line: bytes) -> Change:
    with _translated(path):
        event = json.loads(line)
        if event["type"] != "ERROR":
            return Change(event["type"], _metadata(event["object"]))
        status, code = json.dumps(event["object"]).encode(), int(event["object"].get("code", 500))
    raise error_of("GET", path, code, status, {})


def _metadata(entry: Json) -> Metadata:
    meta = entry["metadata"]
    return Metadata(
        meta.get("namespace", ""),
        meta.get("name", ""),
        meta.get("uid", ""),
        int(meta["resourceVersion"]),
    )
