"""etcd, API server and the controller of HPAs on this machine, in a directory that goes.

No node and no operator: what both write, tests write by hand. Outside autoscalers run beside it as
processes, and can be led to by APIServices; what they change for the whole cluster goes with it.
Programs are those of the local cluster. Only processes that were started here are ended here.
"""

import os
import secrets
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from support.cluster import BINARIES, ROOT
from support.kubectl import Kubectl, KubectlError, eventually
from support.operator_process import write_kubeconfig
from support.ports import free_ports

_START_SECONDS = 180
#: The controller's own 15 s would only be waited for.
_HPA_SECONDS = 1


class ControlPlane:
    """Started and ended by `control_plane`."""

    def __init__(self) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="control-plane-"))
        self.kubeconfig = self.root / "kubeconfig"
        self.kubectl = Kubectl(BINARIES / "kubectl", self.kubeconfig)
        self._processes: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        """Until the API server answers and the definitions are there."""
        port, client, peer = free_ports(3)
        self._make_certificates()
        token = secrets.token_hex()
        (self.root / "tokens").write_text(f"{token},tests,tests,system:masters\n")
        server = f"https://{address_of_host()}:{port}"
        write_kubeconfig(self.kubeconfig, server, {"token": token})
        etcd, peers = f"http://127.0.0.1:{client}", f"http://127.0.0.1:{peer}"
        self.run("etcd", data_dir=str(self.root / "etcd"), listen_client_urls=etcd,
                 advertise_client_urls=etcd, listen_peer_urls=peers,
                 initial_advertise_peer_urls=peers, initial_cluster=f"default={peers}",
                 unsafe_no_fsync="true", log_level="warn")  # fmt: skip
        self.run("kube-apiserver", *_named(self._flags(port, etcd)))
        eventually(
            self._answers, within=_START_SECONDS, describe=lambda: self.log("kube-apiserver")
        )
        self.run("kube-controller-manager", kubeconfig=str(self.kubeconfig), leader_elect="false",
                 controllers="horizontal-pod-autoscaler-controller,namespace-controller",
                 horizontal_pod_autoscaler_sync_period=f"{_HPA_SECONDS}s",
                 secure_port="0")  # fmt: skip
        self.kubectl("apply", "--server-side", "-f", str(ROOT / "crds/rerankerservices.yaml"))
        self.kubectl("wait", "--for=condition=Established", "crd/rerankerservices.reranker.dev")

    def end(self) -> None:
        """All that was started."""
        for process in reversed(self._processes):
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(3)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        shutil.rmtree(self.root, ignore_errors=True)

    def run(self, program: str, *arguments: str, environment: dict[str, str] | None = None,
            **flags: str) -> None:  # fmt: skip
        """A program of the folder of binaries, until the end."""
        with (self.root / f"{program}.log").open("wb") as log:
            process = subprocess.Popen(
                [BINARIES / program, *arguments, *_named(flags)], stdout=log, stderr=log,
                env=os.environ | (environment or {}),
            )  # fmt: skip
        self._processes.append(process)

    def log(self, program: str) -> str:
        """The end of what it has said."""
        return f"{program}: {(self.root / f'{program}.log').read_text()[-3000:]}"

    def _answers(self) -> bool:
        try:
            return self.kubectl("get", "--raw", "/readyz") == "ok"
        except KubectlError:
            return False

    def _flags(self, port: int, etcd: str) -> dict[str, str]:
        root, key = self.root, str(self.root / "service-account.key")
        return {
            "etcd_servers": etcd,
            "bind_address": "0.0.0.0",  # noqa: S104 - Services lead to addresses that are not loopback
            "advertise_address": address_of_host(),
            "secure_port": str(port),
            "cert_dir": str(root / "pki"),
            "token_auth_file": str(root / "tokens"),
            "authorization_mode": "RBAC",
            "service_cluster_ip_range": "10.96.0.0/16",
            "service_account_issuer": "https://kubernetes.default.svc",
            "service_account_key_file": key,
            "service_account_signing_key_file": key,
            # Nobody makes the accounts that pods would have.
            "disable_admission_plugins": "ServiceAccount",
            # Without a node nothing leads to a Service's own address.
            "enable_aggregator_routing": "true",
            "requestheader_client_ca_file": str(root / "front/tls.crt"),
            "requestheader_username_headers": "X-Remote-User",
            "requestheader_group_headers": "X-Remote-Group",
            "requestheader_extra_headers_prefix": "X-Remote-Extra-",
            "proxy_client_cert_file": str(root / "front/tls.crt"),
            "proxy_client_key_file": str(root / "front/tls.key"),
            "profiling": "false",
        }

    def _make_certificates(self) -> None:
        (self.root / "front").mkdir()
        _openssl("genrsa", "-out", str(self.root / "service-account.key"), "2048")
        # Of the API server where it passes requests on; it signs itself, so it is its own CA.
        _openssl(
            *("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
            *("-subj", "/CN=front-proxy", "-addext", "extendedKeyUsage=clientAuth"),
            *("-keyout", str(self.root / "front/tls.key")),
            *("-out", str(self.root / "front/tls.crt")),
        )


def _named(flags: Mapping[str, str]) -> list[str]:
    return [f"--{name.replace('_', '-')}={value}" for name, value in flags.items()]


def _openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)


@contextmanager
def control_plane() -> Iterator[ControlPlane]:
    """One that runs, for a while."""
    plane = ControlPlane()
    try:
        plane.start()
        yield plane
    finally:
        plane.end()


def address_of_host() -> str:
    """Of this machine; Services can't lead to loopback."""
    found = subprocess.run(["hostname", "-I"], capture_output=True, text=True, check=True)
    return next(address for address in found.stdout.split() if ":" not in address)
