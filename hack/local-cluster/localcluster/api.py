"""What this package asks the cluster's API server, as its administrator.

Questions go over one plain HTTPS request each, because a healthy ``up`` is
mostly questions and starting kubectl for each would be most of its time.
Manifests go through kubectl, which knows server-side apply.
"""

from __future__ import annotations

import functools
import json
import ssl
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from localcluster import commands
from localcluster.addressing import Addresses
from localcluster.errors import ClusterError
from localcluster.layout import Layout

_FIELD_MANAGER = "local-cluster"
_TIMEOUT_SECONDS = 10.0
_NODE_LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"


@dataclass(frozen=True)
class Api:
    """The API server of one cluster."""

    layout: Layout
    addresses: Addresses

    def is_ready(self) -> bool:
        """Tell whether the API server and its storage answer."""
        try:
            return self._request("/readyz") == b"ok"
        except ClusterError:
            return False

    def node_is_ready(self, name: str, since: datetime) -> bool:
        """Tell whether a node is Ready, said by a kubelet that was alive after ``since``.

        The condition alone may date from before a crash, and is written anew only
        every few minutes; the kubelet renews its lease every few seconds.
        """
        conditions = self._get(f"/api/v1/nodes/{name}").get("status", {}).get("conditions", [])
        lease = self._get(f"{_NODE_LEASES}/{name}").get("spec", {})
        renewed = datetime.fromisoformat(lease["renewTime"]) if "renewTime" in lease else None
        return condition(conditions, "Ready") == "True" and renewed is not None and renewed >= since

    def control_plane(self) -> dict[str, dict[str, Any]]:
        """Return the ComponentStatus objects by name: etcd, scheduler, controller manager.

        Deprecated and still the only way to ask for all of them at one address.
        """
        items = self._get("/api/v1/componentstatuses").get("items", [])
        return {item["metadata"]["name"]: item for item in items}

    def pods(self, selector: str) -> list[dict[str, Any]]:
        """Return the pods of all namespaces that a label selector matches."""
        query = urllib.parse.urlencode({"labelSelector": selector})
        items: list[dict[str, Any]] = self._get(f"/api/v1/pods?{query}").get("items", [])
        return items

    def apply(self, manifests: str) -> None:
        """Apply manifests server-side; what does not change is not written."""
        commands.capture(
            [
                str(self.layout.bin / "kubectl"),
                f"--kubeconfig={self.layout.kubeconfig}",
                # The default would be a directory in the user's home.
                f"--cache-dir={self.layout.tmp / 'kubectl-cache'}",
                *("apply", "--server-side", "--force-conflicts", "--filename=-"),
                f"--field-manager={_FIELD_MANAGER}",
            ],
            stdin=manifests,
            timeout_seconds=180,
        )

    def _get(self, path: str) -> dict[str, Any]:
        value = json.loads(self._request(path))
        return value if isinstance(value, dict) else {}

    def _request(self, path: str) -> bytes:
        url = self.addresses.api_url + path
        # Never through the user's proxy: the address exists on this machine only.
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}),
            urllib.request.HTTPSHandler(context=_tls(self.layout)),
        )
        try:
            with opener.open(url, timeout=_TIMEOUT_SECONDS) as answer:
                return bytes(answer.read())
        except urllib.error.HTTPError as error:
            with error:
                raise ClusterError(f"the API server answers {error.code} to {path}") from error
        except OSError as error:
            raise ClusterError(f"the API server does not answer: {error}") from error


@functools.lru_cache(maxsize=1)
def _tls(layout: Layout) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(layout.pki / "ca.crt"))
    context.load_cert_chain(layout.pki / "admin.crt", layout.pki / "admin.key")
    return context


def condition(conditions: list[dict[str, Any]], kind: str) -> str:
    """Return the status of one condition in a list: True, False or Unknown."""
    for entry in conditions:
        if entry.get("type") == kind:
            return str(entry.get("status"))
    return "Unknown"
