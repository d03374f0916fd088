"""What this package asks the cluster's API server, through its own kubectl."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from localcluster import commands
from localcluster.errors import ClusterError
from localcluster.layout import Layout

FIELD_MANAGER = "local-cluster"


@dataclass(frozen=True)
class Api:
    """The API server of one cluster, as its administrator."""

    layout: Layout

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        """Run kubectl and return its output."""
        return commands.capture(
            [
                str(self.layout.bin / "kubectl"),
                f"--kubeconfig={self.layout.kubeconfig}",
                # The default would be a file in the user's home.
                f"--cache-dir={self.layout.tmp / 'kubectl-cache'}",
                "--request-timeout=10s",
                *arguments,
            ],
            stdin=stdin,
        )

    def get(self, *arguments: str) -> dict[str, Any]:
        """Return what ``kubectl get`` gives, as an object."""
        value = json.loads(self.kubectl("get", *arguments, "--output=json"))
        return value if isinstance(value, dict) else {}

    def is_ready(self) -> bool:
        """Tell whether the API server and its storage answer."""
        try:
            return self.kubectl("get", "--raw=/readyz").strip() == "ok"
        except ClusterError:
            return False

    def apply(self, manifests: str) -> None:
        """Apply manifests server-side; what does not change is not written."""
        self.kubectl(
            *("apply", "--server-side", "--force-conflicts", f"--field-manager={FIELD_MANAGER}"),
            "--filename=-",
            stdin=manifests,
        )


def condition(resource: dict[str, Any], kind: str) -> str:
    """Return the status of one condition of an object: True, False or Unknown."""
    for entry in resource.get("status", {}).get("conditions", []):
        if entry.get("type") == kind:
            return str(entry.get("status"))
    return "Unknown"
