"""A RerankerService under the real HPA controller: by the sample, and by the external scaler.

On a control plane of its own, without nodes and without the operator: what both would write is
written by hand.
"""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml
from support.cluster import ROOT
from support.control_plane import ControlPlane, control_plane
from support.kubectl import Json, Kubectl, eventually
from support.metrics_api import Values, metrics_api
from support.standby import standby
from support.unscheduled import Pods, load_of, pods_of

from reranker_operator.core.external import BACKLOG, UTILIZATION
from reranker_operator.core.replicas import owners_of_replicas
from reranker_operator.shell import externalscaler_pb2 as pb
from reranker_operator.shell.scaler import SERVICE

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400)]

_SOON = 60
_NAME = "minimal"


@pytest.fixture(scope="module")
def plane() -> Iterator[ControlPlane]:
    """A control plane of the tests' own."""
    with control_plane() as started:
        yield started


@pytest.fixture(scope="module")
def api(plane: ControlPlane) -> Kubectl:
    """kubectl on it."""
    return plane.kubectl


@pytest.fixture(scope="module")
def told(api: Kubectl, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Values]:
    """What the cluster's metrics APIs say."""
    with metrics_api(api, tmp_path_factory.mktemp("metrics")) as values:
        yield values


@pytest.fixture
def pods(api: Kubectl) -> Iterator[Pods]:
    """A service, and its pods as far as autoscalers look at them."""
    with pods_of(api, _NAME, "hpa") as made:
        yield made


def _scaled_to(api: Kubectl, pods: Pods, wanted: int) -> None:
    def describe() -> str:
        return f"{pods.wanted()} pods; {api.get('hpa', _NAME).get('status')}"

    eventually(lambda: pods.follow() == wanted, within=_SOON, describe=describe, every=1)


def _at_once(hpa: Json) -> Json:
    """Scale in without the window of minutes, which would only be waited for."""
    hpa["spec"]["behavior"] = {"scaleDown": {"stabilizationWindowSeconds": 0}}
    return hpa


def _hpa(metrics: list[Json]) -> Json:
    target = {"apiVersion": "reranker.dev/v1alpha1", "kind": "RerankerService", "name": _NAME}
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": _NAME},
        "spec": {"scaleTargetRef": target, "maxReplicas": 10, "metrics": metrics},
    }


def _external(name: str, of_each: str) -> Json:
    target = {"type": "AverageValue", "averageValue": of_each}
    return {"type": "External", "external": {"metric": {"name": name}, "target": target}}


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


class Bridge:
    """What KEDA does with an external scaler: its values become those of the metrics API."""

    def __init__(self, channel: Any, told: Values) -> None:
        self._channel, self._told = channel, told
        metadata = {"service": _NAME}
        self._reference = pb.ScaledObjectRef(
            name=_NAME, namespace="default", scalerMetadata=metadata
        )

    def _ask(self, method: str, request: Any, answer: Any) -> Any:
        call = self._channel.unary_unary(
            f"/{SERVICE}/{method}", type(request).SerializeToString, answer.FromString
        )
        return call(request, timeout=_SOON, wait_for_ready=True)

    def specs(self) -> list[Json]:
        """Metrics of an HPA, under the names that KEDA gives them."""
        found = self._ask("GetMetricSpec", self._reference, pb.GetMetricSpecResponse)
        return [
            _external(f"s0-{spec.metricName}", f"{spec.targetSizeFloat:g}")
            for spec in found.metricSpecs
        ]

    def carry(self) -> bool:
        """Bring the values over; those that can't be had are missing. Whether all were there."""
        found = {}
        for name in (BACKLOG, UTILIZATION):
            request = pb.GetMetricsRequest(scaledObjectRef=self._reference, metricName=name)
            try:
                (value,) = self._ask("GetMetrics", request, pb.GetMetricsResponse).metricValues
            except grpc.RpcError as error:
                assert error.code() is grpc.StatusCode.UNAVAILABLE, error
            else:
                found[f"s0-{name}"] = f"{round(1000 * value.metricValueFloat)}m"
        self._told.external = found
        return len(found) == 2

    def active(self) -> bool:
        return bool(self._ask("IsActive", self._reference, pb.IsActiveResponse).result)


@pytest.fixture
def bridge(plane: ControlPlane, told: Values) -> Iterator[Bridge]:
    """From a real operator, which stands by."""
    with standby(plane) as address, grpc.insecure_channel(address) as channel:
        yield Bridge(channel, told)


def test_what_the_operator_tells_from_outside_scales_the_pods(
    api: Kubectl, pods: Pods, told: Values, bridge: Bridge
) -> None:
    """Real pods' metrics, the operator and the HPA; only KEDA between them is not real."""
    pods.told = dict.fromkeys((f"{_NAME}-{number}" for number in range(10)), load_of())
    api.apply(_at_once(_hpa(bridge.specs())))

    def reached(wanted: int) -> None:
        def look() -> bool:
            bridge.carry()
            return pods.follow() == wanted

        def describe() -> str:
            return f"{pods.wanted()} pods; {told.external}; {api.get('hpa', _NAME).get('status')}"

        eventually(look, within=_SOON, describe=describe, every=1)

    # ceil(5 s / 2 s) for what waits.
    pods.told[f"{_NAME}-0"] = load_of(backlog=5)
    reached(3)
    assert bridge.active()

    # None of the three can be read: no value, and nothing happens, for several rounds of the HPA.
    silent: dict[str, dict[str, float] | None] = dict.fromkeys(f"{_NAME}-{n}" for n in range(3))
    pods.told |= silent
    eventually(lambda: not bridge.carry() and not told.external, within=_SOON, every=1)
    looked = len(told.asked)
    eventually(lambda: len(told.asked) >= looked + 6, within=_SOON, every=1)
    assert (pods.wanted(), bridge.active()) == (3, True)

    # Twice as busy as they should be together, then idle.
    pods.told |= {f"{_NAME}-{number}": load_of(busy=1.0) for number in range(3)}
    eventually(bridge.carry, within=_SOON, every=1)
    reached(math.ceil(3 * 100 / 70))
    pods.told |= {f"{_NAME}-{number}": load_of() for number in range(10)}
    reached(1)
    eventually(lambda: not bridge.active(), within=_SOON, every=1)
    owners = owners_of_replicas(_with_managers(api)["metadata"]["managedFields"])
    assert [entry.get("subresource") for entry in owners] in ([], ["scale"])


def test_a_value_that_is_missing_holds_the_number(api: Kubectl, pods: Pods, told: Values) -> None:
    """The HPA's own rule, on which the scaler counts when it has no answer."""
    told.external = {"one": "400"}
    api.apply(_at_once(_hpa([_external("one", "100"), _external("two", "100")])))
    _scaled_to(api, pods, 4)
    told.external = {"one": "10"}
    looked = told.asked.count("one")
    eventually(lambda: told.asked.count("one") >= looked + 3, within=_SOON, every=1)
    assert pods.wanted() == 4
    told.external = {"one": "10", "two": "10"}
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
