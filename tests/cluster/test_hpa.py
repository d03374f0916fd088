"""A RerankerService under the real HorizontalPodAutoscaler: by the sample, and by KEDA's metrics.

On a control plane of its own, without nodes and without the operator: what both would write is
written by hand.
"""

import json
import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from support.cluster import ROOT
from support.control_plane import control_plane
from support.kubectl import Json, Kubectl, eventually
from support.metrics_api import Values, metrics_api
from support.unscheduled import Pods, pods_of

from reranker_operator.core.external import BACKLOG, UTILIZATION
from reranker_operator.core.replicas import owners_of_replicas

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400)]

_SOON = 60
_NAME = "minimal"


@pytest.fixture(scope="module")
def api() -> Iterator[Kubectl]:
    """kubectl on a control plane of the tests' own."""
    with control_plane() as plane:
        yield plane.kubectl


@pytest.fixture(scope="module")
def told(api: Kubectl, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Values]:
    """What the cluster's metrics APIs say."""
    with metrics_api(api, tmp_path_factory.mktemp("metrics")) as values:
        yield values


@pytest.fixture
def pods(api: Kubectl) -> Iterator[Pods]:
    """A service, and its pods as far as autoscalers look at them."""
    with pods_of(api, _NAME) as made:
        made.follow()
        yield made
        api("delete", "hpa", _NAME, "--ignore-not-found")


def _scaled_to(api: Kubectl, pods: Pods, wanted: int) -> None:
    def describe() -> str:
        return f"{pods.wanted()} pods; {api.get('hpa', _NAME).get('status')}"

    eventually(lambda: pods.follow() == wanted, within=_SOON, describe=describe, every=1)


def _at_once(hpa: Json) -> Json:
    """Scale in without the window of minutes, which would only be waited for."""
    hpa["spec"]["behavior"] = {"scaleDown": {"stabilizationWindowSeconds": 0}}
    return hpa


def test_the_sample_scales_by_what_waits_in_the_pods(
    api: Kubectl, pods: Pods, told: Values
) -> None:
    told.pods = {
        "reranker_backlog_seconds": {f"{_NAME}-0": "5"},
        "reranker_busy": {f"{_NAME}-0": "1"},
    }
    sample: Json = yaml.safe_load((ROOT / "manifests/samples/hpa.yaml").read_text())
    api.apply(_at_once(sample))
    # ceil(5 s / 2 s) for what waits, which is more than ceil(1 / 0.7) for the busy pod.
    _scaled_to(api, pods, 3)
    assert any(entry.endswith(f"reranker.dev/service={_NAME}") for entry in told.asked)

    # Nothing waits any more, and the pods are just busy enough: nothing happens.
    three = [f"{_NAME}-{number}" for number in range(3)]
    told.pods = {
        "reranker_backlog_seconds": dict.fromkeys(three, "0"),
        "reranker_busy": dict.fromkeys(three, "680m"),
    }
    looked = len(told.asked)
    eventually(lambda: len(told.asked) >= looked + 6, within=_SOON, every=1)
    assert pods.wanted() == 3
    told.pods["reranker_busy"] = dict.fromkeys(three, "200m")
    _scaled_to(api, pods, 1)


def test_metrics_as_keda_gives_them(api: Kubectl, pods: Pods, told: Values) -> None:
    """The two values of the external scaler, of all pods together, by KEDA's names for them."""
    names = (f"s0-{BACKLOG}", f"s0-{UTILIZATION}")
    told.external = {names[0]: "0", names[1]: "410"}
    metric = {"type": "AverageValue"}
    hpa: Json = {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": _NAME},
        "spec": {
            "scaleTargetRef": {
                "apiVersion": "reranker.dev/v1alpha1", "kind": "RerankerService", "name": _NAME,
            },
            "minReplicas": 1,
            "maxReplicas": 10,
            "metrics": [
                {"type": "External", "external": {
                    "metric": {"name": name}, "target": metric | {"averageValue": target}}}
                for name, target in zip(names, ("2", "70"), strict=True)
            ],
        },
    }  # fmt: skip
    api.apply(_at_once(hpa))
    # In two steps, since an HPA adds four pods at most; a difference below a tenth it leaves alone.
    _scaled_to(api, pods, math.ceil(410 / 70))
    owners = owners_of_replicas(_with_managers(api)["metadata"]["managedFields"])
    assert [entry.get("subresource") for entry in owners] in ([], ["scale"])

    # A value that is missing holds the number, however little the other one asks for.
    told.external = {names[1]: "10"}
    looked = told.asked.count(names[1])
    eventually(lambda: told.asked.count(names[1]) >= looked + 3, within=_SOON, every=1)
    assert pods.wanted() == 6
    told.external = {names[0]: "0", names[1]: "10"}
    _scaled_to(api, pods, 1)


def _with_managers(api: Kubectl) -> Json:
    found: Json = json.loads(api("get", "rr", _NAME, "-o", "json", "--show-managed-fields"))
    return found


def test_samples_are_for_the_service_of_the_sample() -> None:
    folder: Path = ROOT / "manifests/samples"
    minimal = yaml.safe_load((folder / "minimal.yaml").read_text())
    for name in ("hpa.yaml", "keda.yaml", "keda-prometheus.yaml"):
        target = yaml.safe_load((folder / name).read_text())["spec"]["scaleTargetRef"]
        assert (target["apiVersion"], target["kind"]) == (minimal["apiVersion"], minimal["kind"])
        assert target["name"] == minimal["metadata"]["name"]
