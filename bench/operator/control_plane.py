"""etcd, API server, controller manager, scheduler and KWOK on loopback, in a directory that goes.

Programs are those of the local cluster (`make cluster` builds them), KWOK is built from the module
beside this file. Only processes that were started here are ended here.
"""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import AbstractContextManager
from pathlib import Path

from api import Api
from support.api_proxy import ApiProxy, api_proxy
from support.operator_process import write_kubeconfig
from support.ports import free_ports

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
_TOKEN = "bench"  # noqa: S105 - of a control plane on loopback that lives for minutes
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


class ControlPlane:
    """Started by `async with`."""

    def __init__(self, binaries: Path, qps: int) -> None:
        self._binaries = binaries
        self._qps = qps
        self._root = Path(tempfile.mkdtemp(prefix="bench-operator-"))
        self._processes: list[subprocess.Popen[bytes]] = []
        self._port, self._etcd, self._peer = free_ports(3)
        self.server = f"https://127.0.0.1:{self._port}"
        self.kubeconfig = self._root / "kubeconfig"
        self.logs = self._root / "logs"
        self.api = Api(self.server, _TOKEN)

    async def __aenter__(self) -> "ControlPlane":
        try:
            await self._start()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.api.close()
        for process in reversed(self._processes):
            end(process)
        shutil.rmtree(self._root, ignore_errors=True)

    async def _start(self) -> None:
        self.logs.mkdir()
        self._write_files()
        etcd, peer = f"http://127.0.0.1:{self._etcd}", f"http://127.0.0.1:{self._peer}"
        self._run("etcd", data_dir=str(self._root / "etcd"), listen_client_urls=etcd,
                  advertise_client_urls=etcd, listen_peer_urls=peer,
                  initial_advertise_peer_urls=peer, initial_cluster=f"default={peer}",
                  unsafe_no_fsync="true", log_level="warn")  # fmt: skip
        key = str(self._root / "service-account.key")
        self._run("kube-apiserver", etcd_servers=etcd, bind_address="127.0.0.1",
                  advertise_address="127.0.0.1", secure_port=str(self._port),
                  cert_dir=str(self._root / "pki"), token_auth_file=str(self._root / "tokens"),
                  authorization_mode="RBAC", service_cluster_ip_range="10.96.0.0/12",
                  service_account_issuer="https://kubernetes.default.svc",
                  service_account_key_file=key, service_account_signing_key_file=key,
                  profiling="false")  # fmt: skip
        async with asyncio.timeout(_START_SECONDS):
            while not await self.api.ready():  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.2)
        config = str(self.kubeconfig)
        limits = {"kube_api_qps": str(self._qps), "kube_api_burst": str(2 * self._qps)}
        self._run("kube-controller-manager", kubeconfig=config, leader_elect="false",
                  service_account_private_key_file=key, secure_port="0", **limits)  # fmt: skip
        self._run("kube-scheduler", kubeconfig=config, leader_elect="false", secure_port="0",
                  **limits)  # fmt: skip
        self._run("kwok", *(f"--config={file}" for file in _stages()),
                  kubeconfig=config, manage_all_nodes="true",
                  node_lease_duration_seconds="40")  # fmt: skip

    def proxy(self) -> AbstractContextManager[ApiProxy]:
        """A way to the API server that can be made bad."""
        return api_proxy(self._binaries / "kubectl", self.kubeconfig)

    def _write_files(self) -> None:
        (self._root / "tokens").write_text(f"{_TOKEN},bench,bench,system:masters\n")
        subprocess.run(
            ["openssl", "genrsa", "-out", str(self._root / "service-account.key"), "2048"],
            check=True,
            capture_output=True,
        )
        write_kubeconfig(self.kubeconfig, self.server, {"token": _TOKEN})

    def _run(self, program: str, *arguments: str, **flags: str) -> None:
        named = [f"--{name.replace('_', '-')}={value}" for name, value in flags.items()]
        with (self.logs / f"{program}.log").open("wb") as log:
            process = subprocess.Popen(
                [self._binaries / program, *arguments, *named], stdout=log, stderr=log
            )
        self._processes.append(process)


def end(process: "subprocess.Popen[bytes]", seconds: float = 15) -> None:
    """Ask it to end, then make it."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
