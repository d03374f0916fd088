"""etcd, API server, controller manager, scheduler and KWOK on loopback, in a directory that goes.

Programs are those of the local cluster (`make cluster` builds them), KWOK is built from the module
beside this file.
"""

import asyncio
import os
import subprocess
import sys
from contextlib import AbstractContextManager
from pathlib import Path

from api import Api
from support.api_proxy import ApiProxy, api_proxy
from support.bare_control_plane import BareControlPlane

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
_START_SECONDS = 60


def build_kwok(binaries: Path) -> None:
    """Once; a minute or two."""
    if not (binaries / "kwok").exists():
        sys.stderr.write("building KWOK, a minute or two …\n")
        environment = os.environ | {"CGO_ENABLED": "0"}
        command = ["go", "build", "-trimpath", "-ldflags", "-s -w", "-o", str(binaries / "kwok"),
                   "sigs.k8s.io/kwok/cmd/kwok"]  # fmt: skip
        subprocess.run(command, cwd=HERE / "kwok", env=environment, check=True)


def _stages() -> list[Path]:
    """KWOK's own: nodes and pods are ready at once, and pods that are to go are gone at once."""
    command = ["go", "list", "-m", "-f", "{{.Dir}}", "sigs.k8s.io/kwok"]
    found = subprocess.run(command, cwd=HERE / "kwok", capture_output=True, text=True, check=True)
    stages = Path(found.stdout.strip(), "kustomize/stage")
    folders = ("node/fast", "node/heartbeat-with-lease", "pod/fast")
    return [file for folder in folders for file in sorted((stages / folder).glob("[np]*-*.yaml"))]


class ControlPlane(BareControlPlane):
    """Started by `async with`."""

    def __init__(self, binaries: Path, qps: int) -> None:
        super().__init__("bench-operator", binaries, "127.0.0.1")
        self._qps = qps
        self.api = Api(self.server, self.token)

    async def __aenter__(self) -> "ControlPlane":
        try:
            await self._start()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.api.close()
        self.end()

    async def _start(self) -> None:
        self.run_api_server(bind_address="127.0.0.1", service_cluster_ip_range="10.96.0.0/12")
        async with asyncio.timeout(_START_SECONDS):
            while not await self.api.ready():  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.2)
        limits = {"kube_api_qps": str(self._qps), "kube_api_burst": str(2 * self._qps)}
        self.run_controller(
            "kube-controller-manager", service_account_private_key_file=self.key, **limits
        )
        self.run_controller("kube-scheduler", **limits)
        self.run("kwok", *(f"--config={file}" for file in _stages()),
                 kubeconfig=str(self.kubeconfig), manage_all_nodes="true",
                 node_lease_duration_seconds="40")  # fmt: skip

    def proxy(self) -> AbstractContextManager[ApiProxy]:
        """A way to the API server that can be made bad."""
        return api_proxy(self._binaries / "kubectl", self.kubeconfig)
