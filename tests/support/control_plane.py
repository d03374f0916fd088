"""etcd, API server and the controller of HPAs on this machine, in a directory that goes.

No node and no operator: what both write, tests write by hand. Outside autoscalers run beside it as
processes, and can be led to by APIServices; what they change for the whole cluster goes with it.
Programs are those of the local cluster.
"""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from support.bare_control_plane import BareControlPlane, openssl
from support.cluster import BINARIES, ROOT
from support.kubectl import Kubectl, KubectlError, eventually, until_served

_START_SECONDS = 180
_END_SECONDS = 3
#: The controller's own 15 s would only be waited for.
_HPA_SECONDS = 1


class ControlPlane(BareControlPlane):
    """Started and ended by `control_plane`."""

    def __init__(self) -> None:
        super().__init__("control-plane", BINARIES, address_of_host())
        self.kubectl = Kubectl(BINARIES / "kubectl", self.kubeconfig)

    def start(self) -> None:
        """Until the API server answers and the definitions are there."""
        self.run_api_server(
            bind_address="0.0.0.0",  # noqa: S104 - Services lead to addresses that are not loopback
            service_cluster_ip_range="10.96.0.0/16",
            # Nobody makes the accounts that pods would have.
            disable_admission_plugins="ServiceAccount",
            # Without a node nothing leads to a Service's own address.
            enable_aggregator_routing="true",
            **self._front_proxy(),
        )
        eventually(
            self._answers, within=_START_SECONDS, describe=lambda: self.log("kube-apiserver")
        )
        self.run_controller(
            "kube-controller-manager",
            controllers="horizontal-pod-autoscaler-controller,namespace-controller",
            horizontal_pod_autoscaler_sync_period=f"{_HPA_SECONDS}s",
        )
        self.kubectl("apply", "--server-side", "-f", str(ROOT / "crds/rerankerservices.yaml"))
        until_served(self.kubectl, "rerankerservices.reranker.dev")

    def _answers(self) -> bool:
        try:
            return self.kubectl("get", "--raw", "/readyz") == "ok"
        except KubectlError:
            return False

    def _front_proxy(self) -> dict[str, str]:
        """Who the API server is where it passes requests on; it signs itself, so is its own CA."""
        folder = self.root / "front"
        folder.mkdir()
        certificate, key = str(folder / "tls.crt"), str(folder / "tls.key")
        openssl(
            *("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
            *("-subj", "/CN=front-proxy", "-addext", "extendedKeyUsage=clientAuth"),
            *("-keyout", key, "-out", certificate),
        )
        return {
            "requestheader_client_ca_file": certificate,
            "requestheader_username_headers": "X-Remote-User",
            "requestheader_group_headers": "X-Remote-Group",
            "requestheader_extra_headers_prefix": "X-Remote-Extra-",
            "proxy_client_cert_file": certificate,
            "proxy_client_key_file": key,
        }


@dataclass(frozen=True)
class Staged:
    """Programs beside a control plane."""

    plane: ControlPlane

    @property
    def kubectl(self) -> Kubectl:
        return self.plane.kubectl


@contextmanager
def control_plane() -> Iterator[ControlPlane]:
    """One that runs, for a while."""
    plane = ControlPlane()
    try:
        plane.start()
        yield plane
    finally:
        plane.end(_END_SECONDS)


def address_of_host() -> str:
    """Of this machine; Services can't lead to loopback."""
    found = subprocess.run(["hostname", "-I"], capture_output=True, text=True, check=True)
    return next(address for address in found.stdout.split() if ":" not in address)
