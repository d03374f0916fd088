"""The cluster behind the kubeconfig: get, list and patch, plain JSON, errors in one line."""

import json
import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from kubectl_rr.errors import Forbidden, NotFound, RequestFailed, RrError, Unusable
from kubectl_rr.raw import Json, rows, text
from reranker_operator.api.meta import Resource

_TIMEOUT_SECONDS = (5, 30)
_PAGE = 500
_OWN_OBJECT = re.compile(r"^(<[^>]*>|\w+\(host=[^)]*\)): ")


@dataclass(frozen=True)
class Access:
    """Where to look, as kubectl's own options say it; `namespace` None is the context's."""

    kubeconfig: str | None = None
    context: str | None = None
    namespace: str | None = None
    all_namespaces: bool = False

    def options(self, namespace: str | None) -> list[str]:
        """The same options for a kubectl command."""
        given = {"-n": namespace, "--context": self.context, "--kubeconfig": self.kubeconfig}
        return [word for name, value in given.items() if value for word in (name, value)]


class Cluster:
    """Reads and patches objects. Raises RequestFailed with its kinds, or Unusable."""

    def __init__(self, client: Any, namespace: str) -> None:
        self._client = client
        self.namespace = namespace

    def get(self, resource: Resource, namespace: str, name: str) -> Json:
        """One object."""
        try:
            return self._call(_path(resource, namespace, name), {})
        except NotFound as error:
            raise NotFound(f"{error} in namespace {namespace!r}") from error

    def patch(self, resource: Resource, namespace: str, name: str, change: Json) -> Json:
        """Merge `change` into one object."""
        return self._call(_path(resource, namespace, name), {}, change)

    def list(
        self, resource: Resource, namespace: str | None, selector: str | None = None
    ) -> list[Json]:
        """All objects in a namespace, or everywhere."""
        query = {"limit": str(_PAGE)} | ({"labelSelector": selector} if selector else {})
        found: list[Json] = []
        while True:
            page = self._call(_path(resource, namespace), query)
            found += rows(page, "items")
            token = text(page, "metadata", "continue")
            if not token or token == query.get("continue"):
                return found
            query["continue"] = token

    def _call(self, path: str, query: dict[str, str], change: Json | None = None) -> Json:
        from kubernetes.client.exceptions import ApiException  # noqa: PLC0415 - slow to load
        from urllib3.exceptions import HTTPError  # noqa: PLC0415 - as above

        try:
            request = self._client.param_serialize(
                "GET" if change is None else "PATCH",
                path,
                query_params=list(query.items()),
                header_params={"Accept": "application/json"}
                | ({} if change is None else {"Content-Type": "application/merge-patch+json"}),
                body=change,
                auth_settings=["BearerToken"],
            )
            response = self._client.call_api(*request, _request_timeout=_TIMEOUT_SECONDS)
            data: bytes = response.read()
        except (ApiException, HTTPError, OSError) as error:
            raise Unusable(f"{self._host()} does not answer: {_reason(error)}") from error
        if response.status < 300:
            return _object(data, self._host())
        raise _refusal(response.status, data)

    def _host(self) -> str:
        return str(self._client.configuration.host)


def connect(access: Access) -> Cluster:
    """The cluster of the kubeconfig. Raises Unusable."""
    from kubernetes.client import Configuration  # noqa: PLC0415 - slow to load
    from kubernetes.config import kube_config  # noqa: PLC0415 - as above

    library: Any = kube_config  # untyped
    configuration = Configuration()
    # Another try is the user's to make; the library would wait, and warn on the terminal.
    configuration.retries = False
    where = access.kubeconfig or str(library.KUBE_CONFIG_DEFAULT_LOCATION)
    try:
        client = library.new_client_from_config(
            config_file=where, context=access.context, client_configuration=configuration
        )
        merged = library.KubeConfigMerger(where).config
        context = library.KubeConfigLoader(merged, active_context=access.context).current_context
        namespace = context["context"].get("namespace")
    except Exception as error:  # whatever is wrong in a file that the user wrote
        raise Unusable(f"no usable kubeconfig ({where}): {_reason(error)}") from error
    return Cluster(client, access.namespace or namespace or "default")


def _path(resource: Resource, namespace: str | None, name: str | None = None) -> str:
    root = f"/apis/{resource.group}/{resource.version}" if resource.group else "/api/v1"
    scope = f"/namespaces/{quote(namespace, safe='')}" if namespace else ""
    return f"{root}{scope}/{resource.plural}" + (f"/{quote(name, safe='')}" if name else "")


def _object(data: bytes, host: str) -> dict[str, Any]:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise Unusable(f"{host} does not answer like a Kubernetes API server")
    return found


def _refusal(status: int, data: bytes) -> RrError:
    try:
        answer = json.loads(data)
    except (ValueError, RecursionError):
        answer = {}
    message = text(answer, "message") or f"the API server answered {status}"
    if status == 401:
        return Unusable(f"the cluster refused the credentials: {message}")
    if status == 403:
        return Forbidden(message)
    if status == 404 and text(answer, "details", "name"):
        return NotFound(message)
    if status == 404:
        return Unusable("the cluster knows no RerankerServices: install the operator's CRDs first")
    return RequestFailed(message)


def _reason(error: BaseException) -> str:
    """The cause in few words: urllib3 wraps it several times, and names its own objects."""
    inner = getattr(error, "reason", None)
    while isinstance(inner, BaseException):
        error, inner = inner, getattr(inner, "reason", None)
    return _OWN_OBJECT.sub("", str(error)) or type(error).__name__
