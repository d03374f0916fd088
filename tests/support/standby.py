"""The operator as a process that stands by: it answers KEDA and leaves everything else alone."""

import datetime
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from support.control_plane import ControlPlane
from support.operator_process import start_operator
from support.ports import free_port

_LEASE, _HOUR = "elsewhere", 3600


@contextmanager
def standby(plane: ControlPlane) -> Iterator[str]:
    """Address of its external scaler. Somebody else has the Lease, for as long as it waits."""
    now = f"{datetime.datetime.now(datetime.UTC):%Y-%m-%dT%H:%M:%S.%fZ}"
    plane.kubectl.apply(
        {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": _LEASE},
            "spec": {
                "holderIdentity": "somebody",
                "leaseDurationSeconds": _HOUR,
                "acquireTime": now,
                "renewTime": now,
                "leaseTransitions": 0,
            },
        }
    )
    port = free_port()
    settings = {
        "lease_name": _LEASE,
        "lease_seconds": str(_HOUR),
        "http_port": "0",
        "scaler_port": str(port),
        "namespaces": "default",
        "log_format": "text",
    }
    process: subprocess.Popen[bytes]
    with (plane.logs / "operator.log").open("wb") as log:
        process = start_operator(plane.kubeconfig, settings, stdout=log, stderr=log)
    try:
        yield f"127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()
