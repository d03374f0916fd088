"""A metrics API of Kubernetes that says what a test wants: the place of an adapter for Prometheus.

It runs in the test's process; the API server reaches it through an APIService, as it does an
adapter's.
"""

import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from support.certificates import issue
from support.control_plane import address_of_host
from support.kubectl import Json, Kubectl, eventually

#: When everything was measured; the HPA controller does not mind.
_WHEN = "2026-01-05T12:00:00Z"
_CUSTOM, _EXTERNAL = "custom.metrics.k8s.io", "external.metrics.k8s.io"
_VERSIONS = {_CUSTOM: "v1beta2", _EXTERNAL: "v1beta1"}


class Values:
    """What is told: of the pods by name, and of anything else by the metric's name."""

    def __init__(self) -> None:
        self.pods: dict[str, dict[str, str]] = {}
        self.external: dict[str, str] = {}
        self.asked: list[str] = []


def _answer(values: Values, path: str) -> Json | None:
    url = urlsplit(path)
    match unquote(url.path).strip("/").split("/"):
        case ["apis", group, version] if _VERSIONS.get(group) == version:
            about = {"kind": "APIResourceList", "apiVersion": "v1"}
            return about | {
                "groupVersion": f"{group}/{version}", "resources": _resources(values, group),
            }  # fmt: skip
        case ["apis", group, _, "namespaces", space, "pods", "*", metric] if group == _CUSTOM:
            values.asked.append(f"{metric} of {parse_qs(url.query)['labelSelector'][0]}")
            kind = {"kind": "Pod", "apiVersion": "v1", "namespace": space}
            return _listed(group, "MetricValueList", [
                {"describedObject": kind | {"name": pod}, "metric": {"name": metric},
                 "timestamp": _WHEN, "value": value}
                for pod, value in values.pods.get(metric, {}).items()
            ])  # fmt: skip
        case ["apis", group, _, "namespaces", _, metric] if group == _EXTERNAL:
            values.asked.append(metric)
            found = values.external.get(metric)
            about = {"metricName": metric, "metricLabels": {}, "timestamp": _WHEN}
            items = [] if found is None else [about | {"value": found}]
            return _listed(group, "ExternalMetricValueList", items)
    return None


def _resources(values: Values, group: str) -> list[Json]:
    if group == _EXTERNAL:
        kind, named = "ExternalMetricValueList", list(values.external)
    else:
        kind, named = "MetricValueList", [f"pods/{metric}" for metric in values.pods]
    return [
        {"name": name, "singularName": "", "namespaced": True, "kind": kind, "verbs": ["get"]}
        for name in named
    ]


def _listed(group: str, kind: str, items: list[Json]) -> Json:
    return {
        "kind": kind,
        "apiVersion": f"{group}/{_VERSIONS[group]}",
        "metadata": {},
        "items": items,
    }


@contextmanager
def _served(values: Values, folder: Path) -> Iterator[int]:
    issue(folder, "metrics")

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            found = _answer(values, self.path)
            body = json.dumps(found or {"kind": "Status", "code": 404}).encode()
            self.send_response(200 if found else 404)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            return

    server = ThreadingHTTPServer(("0.0.0.0", 0), Handler)  # noqa: S104 - the node comes from outside
    server.daemon_threads = True
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "tls.crt", folder / "tls.key")
    server.socket = context.wrap_socket(
        server.socket, server_side=True, do_handshake_on_connect=False
    )
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server.server_port
    server.shutdown()
    server.server_close()
    thread.join()


def endpoint(kubectl: Kubectl, name: str, port: int) -> None:
    """A Service that leads to a port of this process."""
    address = address_of_host()
    kubectl.apply({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
        "spec": {"ports": [{"port": 443, "targetPort": port}]},
    })  # fmt: skip
    kubectl.apply({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": name, "labels": {"kubernetes.io/service-name": name}},
        "ports": [{"port": port}], "endpoints": [{"addresses": [address]}],
    })  # fmt: skip


@contextmanager
def metrics_api(kubectl: Kubectl, folder: Path) -> Iterator[Values]:
    """Both metrics APIs of the cluster are this process's, in kubectl's namespace, for a while."""
    values = Values()
    with _served(values, folder) as port:
        endpoint(kubectl, "metrics", port)
        for group, version in _VERSIONS.items():
            api_service(kubectl, group, version, "metrics")
        try:
            yield values
        finally:
            for group, version in _VERSIONS.items():
                kubectl("delete", "apiservice", f"{version}.{group}", "--ignore-not-found")


def api_service(kubectl: Kubectl, group: str, version: str, service: str) -> None:
    """Lead this API to a Service, and wait until the API server reaches it."""
    name = f"{version}.{group}"
    kubectl.apply({
        "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": {"name": name},
        "spec": {
            "group": group, "version": version, "groupPriorityMinimum": 100, "versionPriority": 100,
            "insecureSkipTLSVerify": True,
            "service": {"namespace": kubectl.namespace, "name": service},
        },
    })  # fmt: skip

    def available() -> bool:
        conditions = kubectl.get("apiservice", name).get("status", {}).get("conditions", [])
        return any(one["type"] == "Available" and one["status"] == "True" for one in conditions)

    eventually(
        available, within=60, describe=lambda: str(kubectl.get("apiservice", name)["status"])
    )
