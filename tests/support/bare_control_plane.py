"""etcd and an API server on this machine, in a directory that goes; the rest is added.

Only processes that were started here are ended here.
"""

import os
import secrets
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

from support.operator_process import write_kubeconfig
from support.ports import free_ports


class BareControlPlane:
    """Programs of one folder, with their files and logs; who has its kubeconfig may do anything."""

    def __init__(self, name: str, binaries: Path, address: str) -> None:
        self.root = Path(tempfile.mkdtemp(prefix=f"{name}-"))
        self.logs = self.root / "logs"
        self.kubeconfig = self.root / "kubeconfig"
        self.key = str(self.root / "service-account.key")
        self.token = secrets.token_hex()
        self._address = address
        self._port, self._client, self._peer = free_ports(3)
        self.server = f"https://{address}:{self._port}"
        self._binaries = binaries
        self._processes: list[subprocess.Popen[bytes]] = []

    def run_api_server(self, **flags: str) -> None:
        """With an etcd behind it; that it answers is waited for by the caller."""
        self.logs.mkdir()
        (self.root / "tokens").write_text(f"{self.token},it,it,system:masters\n")
        write_kubeconfig(self.kubeconfig, self.server, {"token": self.token})
        openssl("genrsa", "-out", self.key, "2048")
        etcd, peers = f"http://127.0.0.1:{self._client}", f"http://127.0.0.1:{self._peer}"
        self.run("etcd", data_dir=str(self.root / "etcd"), listen_client_urls=etcd,
                 advertise_client_urls=etcd, listen_peer_urls=peers,
                 initial_advertise_peer_urls=peers, initial_cluster=f"default={peers}",
                 unsafe_no_fsync="true", log_level="warn")  # fmt: skip
        self.run("kube-apiserver", *_named(flags), etcd_servers=etcd,
                 advertise_address=self._address,
                 secure_port=str(self._port), cert_dir=str(self.root / "pki"),
                 token_auth_file=str(self.root / "tokens"), authorization_mode="RBAC",
                 service_account_issuer="https://kubernetes.default.svc",
                 service_account_key_file=self.key, service_account_signing_key_file=self.key,
                 profiling="false")  # fmt: skip

    def run_controller(self, program: str, **flags: str) -> None:
        """One of Kubernetes' own, alone and without a port."""
        self.run(
            program, *_named(flags),
            kubeconfig=str(self.kubeconfig), leader_elect="false", secure_port="0",
        )  # fmt: skip

    def run(self, program: str | Path, *arguments: str,
            environment: dict[str, str] | None = None, **flags: str) -> None:  # fmt: skip
        """A program of the folder of binaries, or that of a path, until the end."""
        with (self.logs / f"{Path(program).name}.log").open("wb") as log:
            process = subprocess.Popen(
                [self._binaries / program, *arguments, *_named(flags)], stdout=log, stderr=log,
                env=os.environ | (environment or {}),
            )  # fmt: skip
        self._processes.append(process)

    def log(self, program: str) -> str:
        """The end of what it has said."""
        return f"{program}: {(self.logs / f'{program}.log').read_text()[-3000:]}"

    def end(self, seconds: float = 15) -> None:
        """All that was started, each given so long; then the files."""
        for process in reversed(self._processes):
            end(process, seconds)
        shutil.rmtree(self.root, ignore_errors=True)


def end(process: "subprocess.Popen[bytes]", seconds: float = 15) -> None:
    """Ask it to end, then make it."""
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _named(flags: Mapping[str, str]) -> list[str]:
    return [f"--{name.replace('_', '-')}={value}" for name, value in flags.items()]


def openssl(*arguments: str) -> None:
    """Run it silently."""
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)
