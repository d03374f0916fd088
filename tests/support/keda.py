"""Real KEDA, its operator and its metrics server, beside a control plane."""

import subprocess
from pathlib import Path

from support.certificates import issue
from support.cluster import ROOT
from support.control_plane import ControlPlane
from support.metrics_api import api_service, endpoint
from support.ports import free_ports

_PROGRAMS = ("keda-operator", "keda-adapter")


def start_keda(plane: ControlPlane) -> None:
    """It runs until the control plane ends."""
    folder = subprocess.run(
        ["go", "list", "-m", "-f", "{{.Dir}}", "github.com/kedacore/keda/v2"],
        cwd=ROOT / "hack/local-cluster/binaries/keda", capture_output=True, text=True, check=True,
    )  # fmt: skip
    definitions = str(Path(folder.stdout.strip()) / "config/crd/bases")
    plane.kubectl("apply", "--server-side", "-f", definitions)
    certificates = plane.root / "keda"
    issue(certificates, "keda", "IP:127.0.0.1")
    (certificates / "ca.crt").write_bytes((certificates / "tls.crt").read_bytes())
    metrics, probe, service, secure, own = (str(port) for port in free_ports(5))
    kubeconfig = str(plane.kubeconfig)
    environment = {"KUBECONFIG": kubeconfig, "WATCH_NAMESPACE": "", "POD_NAMESPACE": "default",
                   "KEDA_CLUSTER_OBJECT_NAMESPACE": "default"}  # fmt: skip
    plane.run("keda-operator", environment=environment, cert_dir=str(certificates),
              metrics_bind_address=f"127.0.0.1:{metrics}",
              health_probe_bind_address=f"127.0.0.1:{probe}",
              metrics_service_bind_address=f"127.0.0.1:{service}")  # fmt: skip
    plane.run("keda-adapter", environment=environment, cert_dir=str(certificates),
              secure_port=secure, port=own, metrics_service_address=f"127.0.0.1:{service}",
              authentication_kubeconfig=kubeconfig, authorization_kubeconfig=kubeconfig,
              lister_kubeconfig=kubeconfig)  # fmt: skip
    endpoint(plane.kubectl, "keda", int(secure))
    api_service(plane.kubectl, "external.metrics.k8s.io", "v1beta1", "keda")


def keda_log(plane: ControlPlane) -> str:
    """What both said, its last part."""
    return "\n".join(map(plane.log, _PROGRAMS))


def impatient(scaled: dict[str, object]) -> dict[str, object]:
    """The `spec` of a ScaledObject without the minutes that a test would only wait for."""
    behavior = {"scaleDown": {"stabilizationWindowSeconds": 0}}
    return scaled | {
        "pollingInterval": 1,
        "cooldownPeriod": 5,
        "advanced": {"horizontalPodAutoscalerConfig": {"behavior": behavior}},
    }
