"""Whether each part of a running cluster does its work, asked from the host."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass

from localcluster import addons, etcd, network, processes
from localcluster.addressing import Addresses
from localcluster.api import Api, condition
from localcluster.components import (
    ETCD_SOCKET,
    KUBE_PROXY_HEALTH_PORT,
    KUBELET_HEALTH_PORT,
    Component,
    all_components,
)
from localcluster.errors import ClusterError
from localcluster.layout import Layout
from localcluster.namespaces import Node
from localcluster.runner import current_record, record_path

_HTTP_TIMEOUT_SECONDS = 5.0


@dataclass(frozen=True)
class ComponentHealth:
    """One line of ``cluster status``."""

    name: str
    pid: int | None
    ready: bool
    detail: str = ""


@dataclass(frozen=True)
class Health:
    """Asks every part of one cluster."""

    layout: Layout
    name: str
    addresses: Addresses
    api: Api
    manifests: addons.Manifests
    node: Node | None

    def report(self) -> list[ComponentHealth]:
        """Return the health of every component and addon."""
        api_ready = self.api.is_ready()
        lines = [self._namespaces()]
        for component in all_components(self.name, self.addresses):
            lines.append(self._component(component, api_ready))
        if self.node is None or not api_ready:
            return [*lines, ComponentHealth("addons", None, False, "the API server is not ready")]
        return [*lines, *self._addons(self.node)]

    def _namespaces(self) -> ComponentHealth:
        node = self.node
        if node is None:
            return ComponentHealth("node", None, False, "its namespaces are gone")
        if not network.is_connected(self.addresses, self.layout.root):
            return ComponentHealth("node", node.pid, False, "its link to the host is gone")
        inside = f"inside: nsenter -t {node.pid} -m -n; host to node: {self.addresses.node}"
        return ComponentHealth("node", node.pid, True, inside)

    def _component(self, component: Component, api_ready: bool) -> ComponentHealth:
        record = processes.live_record(record_path(self.layout, component.name))
        if record is None:
            return ComponentHealth(component.name, None, False, "not running")
        pid = record.identity.pid
        if current_record(self.layout, component) is None:
            return ComponentHealth(component.name, pid, False, "runs an older configuration")
        problem = self._probe(component.name, api_ready)
        return ComponentHealth(component.name, pid, problem is None, problem or "")

    def _probe(self, component: str, api_ready: bool) -> str | None:
        """Return what is wrong with a component whose process runs; None if nothing is."""
        probes: dict[str, Callable[[], str | None]] = {
            "etcd": lambda: etcd_problem(self.node),
            "kube-apiserver": lambda: None if api_ready else "does not answer",
            "kubelet": lambda: self._kubelet(api_ready),
            "kube-proxy": lambda: self._http(KUBE_PROXY_HEALTH_PORT, "/healthz"),
            "kube-controller-manager": lambda: self._control_plane("controller-manager", api_ready),
            "kube-scheduler": lambda: self._control_plane("scheduler", api_ready),
        }
        probe = probes.get(component)
        return None if probe is None else probe()

    def _kubelet(self, api_ready: bool) -> str | None:
        problem = self._http(KUBELET_HEALTH_PORT, "/healthz")
        if problem is not None or not api_ready or self.node is None:
            return problem
        try:
            ready = self.api.node_is_ready(self.name, self.node.started)
        except ClusterError as error:
            return str(error)
        return None if ready else "the node is not Ready"

    def _control_plane(self, component: str, api_ready: bool) -> str | None:
        if not api_ready:
            return "the API server is not ready"
        try:
            status = self.api.control_plane().get(component, {})
        except ClusterError as error:
            return str(error)
        # An old kind: its conditions are not below a status.
        healthy = condition(status.get("conditions", []), "Healthy") == "True"
        return None if healthy else "not healthy"

    def _http(self, port: int, path: str) -> str | None:
        return http_problem(f"http://{self.addresses.node}:{port}{path}")

    def _addons(self, node: Node) -> list[ComponentHealth]:
        try:
            states = addons.status(self.api, self.manifests, node.started)
        except ClusterError as error:
            return [ComponentHealth("addons", None, False, str(error))]
        return [
            ComponentHealth(
                f"addon {addon.name}", None, addon.ready, "" if addon.ready else "no pod is ready"
            )
            for addon in states
        ]


def etcd_problem(node: Node | None) -> str | None:
    """Return why etcd does not serve; None when it does."""
    return "its node is gone" if node is None else etcd.problem(node.path(ETCD_SOCKET))


def http_problem(url: str) -> str | None:
    """Return why a health endpoint does not answer 200; None when it does."""
    # Never through the user's proxy: the address exists on this machine only.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=_HTTP_TIMEOUT_SECONDS):
            return None
    except urllib.error.HTTPError as error:
        with error:
            return f"health check answers {error.code}"
    except OSError as error:
        return f"health check: {error}"
