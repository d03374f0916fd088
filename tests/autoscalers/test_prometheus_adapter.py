"""Real Prometheus, prometheus-adapter with the rules of the documentation, and the HPA controller.

On a control plane without nodes: Prometheus scrapes pods whose status is written by hand.
"""

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from support.certificates import issue
from support.cluster import BINARIES, ROOT
from support.control_plane import ControlPlane, Staged, control_plane
from support.hpa import average
from support.kubectl import Json, KubectlError, eventually
from support.metrics_api import api_service, endpoint
from support.ports import free_ports
from support.prometheus import Prometheus, prometheus
from support.unscheduled import BACKLOG_SECONDS, Pods, load_of, pods_of

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

_NAME = "minimal"
_GROUP, _VERSION = "custom.metrics.k8s.io", "v1beta1"
_BUSY = "reranker_busy"
#: The rules look at how busy pods were for one minute.
_WINDOW = 60
_SOON = 45
_LATER = _WINDOW + _SOON
_ADAPTER = BINARIES / "prometheus-adapter"


@dataclass(frozen=True)
class Stage(Staged):
    """Prometheus and its adapter."""

    prometheus: Prometheus

    def log(self) -> str:
        return f"{self.prometheus.log()}\n{self.plane.log(_ADAPTER.name)}"

    def values(self, metric: str) -> dict[str, str]:
        """What the HPA controller is told, by pod."""
        path = f"/apis/{_GROUP}/{_VERSION}/namespaces/{self.kubectl.namespace}/pods/%2A/{metric}"
        query = f"labelSelector=reranker.dev%2Fservice%3D{_NAME}"
        try:
            found = json.loads(self.kubectl("get", "--raw", f"{path}?{query}"))
        except KubectlError:
            return {}
        return {item["describedObject"]["name"]: item["value"] for item in found["items"]}


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    adapter = _ADAPTER if _ADAPTER.exists() else shutil.which(_ADAPTER.name)
    if adapter is None:
        pytest.skip(f"there is no {_ADAPTER.name} in the PATH")
    with control_plane() as plane:
        server = prometheus(plane)
        _start_adapter(plane, Path(adapter), server)
        yield Stage(plane, server)


def _start_adapter(plane: ControlPlane, program: Path, server: Prometheus) -> None:
    (secure,) = free_ports(1)
    folder = plane.root / "adapter"
    issue(folder, "adapter")
    config = folder / "config.json"
    config.write_text(json.dumps({"rules": _documented()["custom"]}))
    kubeconfig = str(plane.kubeconfig)
    plane.run(program, config=str(config), prometheus_url=server.url,
              metrics_relist_interval="1s", metrics_max_age="1m", secure_port=str(secure),
              tls_cert_file=str(folder / "tls.crt"), tls_private_key_file=str(folder / "tls.key"),
              authentication_kubeconfig=kubeconfig, authorization_kubeconfig=kubeconfig,
              lister_kubeconfig=kubeconfig)  # fmt: skip
    endpoint(plane.kubectl, "adapter", secure)
    api_service(plane.kubectl, _GROUP, _VERSION, "adapter")


def _documented() -> Json:
    """The rules, as people copy them."""
    text = (ROOT / "docs/hpa-and-keda.md").read_text()
    blocks = [yaml.safe_load(part.partition("```")[0]) for part in text.split("```yaml\n")[1:]]
    (rules,) = (block["rules"] for block in blocks if "rules" in block)
    return dict(rules)


@pytest.fixture
def pods(stage: Stage) -> Iterator[Pods]:
    with pods_of(stage.kubectl, _NAME, "hpa") as made:
        yield made


def _scale(stage: Stage) -> None:
    """The sample, without the window of minutes before it scales in."""
    sample: Json = yaml.safe_load((ROOT / "manifests/samples/hpa.yaml").read_text())
    sample["spec"]["behavior"] = {"scaleDown": {"stabilizationWindowSeconds": 0}}
    stage.kubectl.apply(sample)


def _until(stage: Stage, pods: Pods, wanted: int, within: float) -> None:
    def describe() -> str:
        told = {metric: stage.values(metric) for metric in (BACKLOG_SECONDS, _BUSY)}
        return f"{pods.wanted()} pods; {told}; {_hpa(stage)}\n{stage.log()}"

    eventually(
        lambda: stage.prometheus.follow(pods) == wanted, within=within, describe=describe, every=1
    )


def _hpa(stage: Stage) -> Json:
    return stage.kubectl.get("hpa", _NAME)


def _idle(stage: Stage) -> Json:
    """The HPA, once it has seen that nothing waits."""
    hpa = _hpa(stage)
    return hpa if average(hpa, "pods", BACKLOG_SECONDS) == "0" else {}


def _failures(stage: Stage) -> int:
    """How often the HPA went without a metric."""
    events = stage.kubectl.list("events")
    return sum(event["count"] for event in events if event["reason"] == "FailedGetPodsMetric")


def test_pods_follow_what_prometheus_has_seen(stage: Stage, pods: Pods) -> None:
    pods.told |= {f"{_NAME}-{number}": load_of() for number in range(8)}
    pods.told[f"{_NAME}-0"] = load_of(backlog=5)
    _scale(stage)
    # ceil(5 s / 2 s).
    _until(stage, pods, 3, _SOON)

    # 2.6 pods are busy: the work of ceil(2.6 / 0.7), more than what waits asks for.
    busy = {f"{_NAME}-{number}": load_of(busy=0.86) for number in range(3)}
    pods.told |= busy | {f"{_NAME}-0": load_of(backlog=5, busy=0.86)}
    _until(stage, pods, 4, _LATER)
    pods.told |= busy
    hpa = eventually(lambda: _idle(stage), within=_SOON, describe=stage.log, every=1)
    assert hpa["status"]["desiredReplicas"] == 4

    # What can't be read is neither idle nor what it was: no value, and the number stays.
    pods.told |= {f"{_NAME}-{number}": None for number in range(4)}
    eventually(lambda: not stage.values(BACKLOG_SECONDS) and not stage.values(_BUSY),
               within=_WINDOW / 3, describe=lambda: str(stage.values(_BUSY)), every=1)  # fmt: skip
    failures = _failures(stage)
    eventually(lambda: _failures(stage) >= failures + 3, within=_SOON,
               describe=lambda: str(_hpa(stage)), every=1)  # fmt: skip
    assert pods.wanted() == 4

    pods.told |= {f"{_NAME}-{number}": load_of() for number in range(8)}
    _until(stage, pods, 1, _LATER)
