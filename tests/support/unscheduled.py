"""RerankerServices and their pods on a control plane without nodes: status is written by hand."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from reranker_contracts import metrics as names
from reranker_operator.api.v1alpha1 import RerankerService
from reranker_operator.core.replicas import may_sleep
from support.kubectl import Json, Kubectl

_PORT = 8002
#: Only Prometheus asks for it: the operator divides the tokens itself.
BACKLOG_SECONDS = "reranker_backlog_seconds"


def load_of(*, backlog: float = 0.0, busy: float = 0.0) -> dict[str, float]:
    """Metrics of a pod that does 100 tokens a second and was busy for this share of all time.

    `backlog` is in seconds.
    """
    return {
        names.READY: 1,
        names.TOKENS_PER_SECOND: 100,
        names.BACKLOG_TOKENS: 100 * backlog,
        BACKLOG_SECONDS: backlog,
        names.BUSY_SECONDS: busy,
    }


class Pods:
    """The pods of one service, each with an address of its own on loopback for its metrics."""

    def __init__(self, kubectl: Kubectl, service: str) -> None:
        self._kubectl, self.service = kubectl, service
        self._servers: dict[str, ThreadingHTTPServer] = {}
        self._counters = _Counters()
        #: Metrics of pods by name; None: it does not answer as it should.
        self.told: dict[str, dict[str, float] | None] = {}

    def make_service(self, **spec: Any) -> None:
        """One whose number of pods nobody has decided yet."""
        self._kubectl.apply(
            {
                "apiVersion": "reranker.dev/v1alpha1",
                "kind": "RerankerService",
                "metadata": {"name": self.service},
                "spec": {"model": {"source": "hf://org/model"}} | spec,
            }
        )

    def wanted(self) -> int:
        """Pods that the spec wants."""
        number: int = self._kubectl.get("rr", self.service)["spec"]["replicas"]
        return number

    def follow(self) -> int:
        """As operator and kubelet: as many pods as the spec wants, all of them ready.

        And one activator, where the operator would make activators.
        """
        wanted, selector = self.wanted(), f"reranker.dev/service={self.service}"
        self._patch("rr", self.service, {"replicas": wanted, "selector": selector})
        have = {pod["metadata"]["name"] for pod in self._kubectl.list("pods", selector)}
        activator = f"{self.service}-activator"
        want = {f"{self.service}-{number}" for number in range(wanted)}
        want |= {activator} if self._may_sleep() else set()
        for name in sorted(want - have):
            self.add(name, "activator" if name == activator else "serving")
        for name in sorted(have - want):
            self._kubectl("delete", "pod", name, "--force", "--grace-period=0")
        return wanted

    def _may_sleep(self) -> bool:
        raw = self._kubectl("get", "rr", self.service, "-o", "json", "--show-managed-fields")
        return may_sleep(RerankerService.model_validate_json(raw))

    def add(self, name: str, component: str) -> None:
        """A pod that no node has, and that runs all the same."""
        labels = {"reranker.dev/service": self.service, "app.kubernetes.io/component": component}
        owner = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "it", "uid": "it"}
        self._kubectl.apply(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": name, "labels": labels, "ownerReferences": [owner]},
                "spec": {
                    "schedulerName": "nobody",
                    "containers": [{"name": "gateway", "image": "none"}],
                },
            }
        )
        running = {"name": "gateway", "image": "none", "imageID": "", "ready": True,
                   "restartCount": 0, "state": {"running": {}}}  # fmt: skip
        address = self._serve(name)
        status = {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}],
                  "startTime": "2026-01-05T12:00:00Z", "containerStatuses": [running],
                  "conditions": [{"type": "Ready", "status": "True"}]}  # fmt: skip
        self._patch("pod", name, status)

    def clear(self) -> None:
        """Nothing of it is left."""
        kinds = ("rr", self.service, "--ignore-not-found")
        self._kubectl("delete", *kinds)
        selector = f"reranker.dev/service={self.service}"
        self._kubectl("delete", "pods", "-l", selector, "--force", "--grace-period=0")
        for server in self._servers.values():
            server.shutdown()
            server.server_close()
        self._servers.clear()

    def _patch(self, kind: str, name: str, status: Json) -> None:
        patch = json.dumps({"status": status})
        self._kubectl("patch", kind, name, "--subresource=status", "--type=merge", "-p", patch)

    def _serve(self, name: str) -> str:
        if name in self._servers:
            return str(self._servers[name].server_address[0])
        address = f"127.9.{len(self._servers)}.9"
        pods = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                found = pods.told.get(name)
                body = "".join(
                    f"{key} {pods._counters.now(name, key, value)}\n"
                    for key, value in (found or {}).items()
                )
                self.send_response(500 if found is None else 200)
                self.send_header("Content-Type", "text/plain; version=0.0.4")
                self.end_headers()
                self.wfile.write(body.encode())

            def log_message(self, *_: Any) -> None:
                return

        server = ThreadingHTTPServer((address, _PORT), Handler)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self._servers[name] = server
        return address


class _Counters:
    """What counters have come to whose rates are told; Prometheus takes one that falls for new."""

    def __init__(self) -> None:
        self._seen: dict[tuple[str, str], tuple[float, float]] = {}
        self._lock = threading.Lock()

    def now(self, pod: str, name: str, told: float) -> float:
        if not name.endswith("_total"):
            return told
        with self._lock:
            now = time.monotonic()
            at, value = self._seen.get((pod, name), (now, 0.0))
            value += told * (now - at)
            self._seen[pod, name] = now, value
        return value


@contextmanager
def pods_of(kubectl: Kubectl, service: str, scaler: str) -> Iterator[Pods]:
    """A service with its pods, for a while; a `scaler` of its name goes with it."""
    pods = Pods(kubectl, service)
    pods.make_service()
    try:
        pods.follow()
        yield pods
        kubectl("delete", scaler, service, "--ignore-not-found")
    finally:
        pods.clear()
