"""An API client that tells of every request: what it was for, how it ended, how long it took.

It stands where all requests of the operator pass, those for the Lease included. Only kopf's
watches have connections of their own.
"""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from kubernetes.aio.client.api_client import ApiClient
from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.client.exceptions import ApiException
from kubernetes.aio.client.rest import RESTResponse

from reranker_operator.api.meta import RESOURCES

#: The API server may lie below a path of its own, behind a proxy.
_PATH = re.compile(
    r"/(?:api/v1|apis/[^/]+/[^/]+)(?:/namespaces/[^/]+(?=/))?"
    r"/(?P<plural>[^/]+)(?:/(?P<name>[^/]+))?(?:/(?P<sub>[^/]+))?$"
)
_PLURALS = {resource.plural: kind for kind, resource in RESOURCES.items()} | {"leases": "Lease"}
_VERBS = {"POST": "create", "PUT": "update", "DELETE": "delete"}


@dataclass(frozen=True)
class ApiCall:
    """One request. Everything but the seconds is of a small set of words."""

    verb: str
    resource: str
    kind: str
    status: str
    seconds: float

    @property
    def wrote(self) -> bool:
        """The server has done something."""
        return self.verb not in ("get", "list", "watch") and self.status == "2xx"


class ObservedApiClient(ApiClient):
    """Calls `observe` after each request, also after those without an answer."""

    def __init__(
        self, observe: Callable[[ApiCall], None], configuration: Configuration | None = None
    ) -> None:
        configuration = configuration or Configuration.get_default_copy()
        if not _is_proxied(configuration.host):
            # Else each request reads the environment and a .netrc once more, in a thread.
            configuration.client_session_kwargs = {"trust_env": False}
        super().__init__(configuration)
        self._observe = observe

    async def call_api(
        self,
        method: str,
        url: str,
        header_params: dict[str, str] | None = None,
        *rest: Any,
        **more: Any,
    ) -> RESTResponse:
        """As the base class; the time is that until the head of the answer."""
        started, status = time.perf_counter(), "none"
        try:
            response = await super().call_api(method, url, header_params, *rest, **more)
            status = status_class(response.status)
        except ApiException as error:
            status = status_class(error.status)
            raise
        finally:
            seconds = time.perf_counter() - started
            content_type = (header_params or {}).get("Content-Type", "")
            self._observe(describe(method, url, content_type, status, seconds))
        return response


def _is_proxied(host: str) -> bool:
    """Whether the environment names a proxy on the way to this server."""
    parts = urlsplit(host)
    return parts.scheme in getproxies() and not proxy_bypass(parts.hostname or "")


def describe(method: str, url: str, content_type: str, status: str, seconds: float) -> ApiCall:
    """What a request was for, read from its method and path as an audit log would."""
    found = _PATH.search(urlsplit(url).path)
    plural, name, subresource = found.group("plural", "name", "sub") if found else ("", "", "")
    kind = _PLURALS.get(plural)
    if method == "GET" and not name:
        verb = "watch" if "watch=true" in urlsplit(url).query else "list"
    elif method == "GET":
        verb = "get"
    elif method == "PATCH":
        verb = "apply" if "apply-patch" in content_type else "patch"
    else:
        verb = _VERBS.get(method, "other")
    if kind is None:
        return ApiCall(verb, "other", "other", status, seconds)
    resource = f"{plural}/status" if subresource == "status" else plural
    return ApiCall(verb, resource, kind, status, seconds)


def status_class(status: int | None) -> str:
    """`2xx` to `5xx`; too many requests by themselves, since they are no mistake of ours."""
    if status == 429:
        return "429"
    return f"{status // 100}xx" if status and 100 <= status < 600 else "none"
