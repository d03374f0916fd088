"""Real Prometheus beside a control plane, told of pods in a file: Debian's can't look for them."""

import json
import subprocess
from dataclasses import dataclass

from support.cluster import ROOT
from support.control_plane import ControlPlane
from support.ports import free_ports
from support.unscheduled import Pods

_PROGRAM = ROOT / "hack/prometheus"
_TARGETS = "targets.json"


@dataclass(frozen=True)
class Prometheus:
    """One that runs until its control plane ends, and looks every second."""

    plane: ControlPlane
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def follow(self, pods: Pods) -> int:
        """The pods that are wanted, of which it is told as by the chart's ServiceMonitor."""
        wanted, service = pods.follow(), pods.service
        targets = [
            {
                "targets": [f"{pod['status']['podIP']}:8002"],
                "labels": {
                    "namespace": pod["metadata"]["namespace"],
                    "pod": pod["metadata"]["name"],
                    "container": "gateway",
                    "endpoint": "metrics",
                    "service": service,
                    "job": service,
                },
            }
            for pod in self.plane.kubectl.list("pods", f"reranker.dev/service={service}")
        ]
        path = self.plane.root / _TARGETS
        new = path.with_suffix(".new")
        new.write_text(json.dumps(targets))
        new.rename(path)
        return wanted

    def log(self) -> str:
        return self.plane.log(_PROGRAM.name)


def prometheus(plane: ControlPlane) -> Prometheus:
    """Start one."""
    # Downloads it where it is missing, and says so when it can't.
    subprocess.run([_PROGRAM, "prometheus", "--version"], check=True)
    config = plane.root / "prometheus.json"
    config.write_text(json.dumps({
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s"},
        "scrape_configs": [{"job_name": "gateways", "file_sd_configs": [
            {"files": [str(plane.root / _TARGETS)]},
        ]}],
    }))  # fmt: skip
    (port,) = free_ports(1)
    plane.run(
        *(_PROGRAM, "prometheus", f"--config.file={config}"),
        *(f"--storage.tsdb.path={plane.root / 'series'}", f"--web.listen-address=127.0.0.1:{port}"),
    )
    return Prometheus(plane, port)
