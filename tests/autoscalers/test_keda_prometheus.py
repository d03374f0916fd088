"""Real KEDA, real Prometheus and the HPA controller, by the queries of the sample.

On a control plane without nodes: Prometheus scrapes pods whose status is written by hand.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import yaml
from support.cluster import ROOT
from support.control_plane import Staged, control_plane
from support.hpa import average
from support.keda import impatient, keda_log, start_keda
from support.kubectl import Json, eventually
from support.prometheus import Prometheus, prometheus
from support.unscheduled import Pods, load_of, pods_of

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

_NAME = "minimal"
#: The queries look at how busy pods were for one minute.
_SOON = 60 + 45
#: Long enough for the controllers to have acted many times.
_STAYS = 20


@dataclass(frozen=True)
class Stage(Staged):
    """KEDA's two programs and Prometheus."""

    prometheus: Prometheus

    def log(self) -> str:
        return f"{keda_log(self.plane)}\n{self.prometheus.log()}"


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with control_plane() as plane:
        start_keda(plane)
        yield Stage(plane, prometheus(plane))


@pytest.fixture
def pods(stage: Stage) -> Iterator[Pods]:
    with pods_of(stage.kubectl, _NAME, "scaledobject") as made:
        yield made


def _scale(stage: Stage) -> None:
    sample: Json = yaml.safe_load((ROOT / "manifests/samples/keda-prometheus.yaml").read_text())
    sample["spec"] = impatient(sample["spec"])
    for trigger in sample["spec"]["triggers"]:
        trigger["metadata"]["serverAddress"] = stage.prometheus.url
    stage.kubectl.apply(sample)


def _until(stage: Stage, pods: Pods, wanted: int) -> None:
    def describe() -> str:
        found = stage.kubectl("get", "scaledobject,hpa", "-o", "yaml")
        return f"{pods.wanted()} pods; {found}\n{stage.log()}"

    eventually(
        lambda: stage.prometheus.follow(pods) == wanted, within=_SOON, describe=describe, every=1
    )


def _stays(stage: Stage, pods: Pods, number: int) -> None:
    end = time.monotonic() + _STAYS
    eventually(
        lambda: time.monotonic() > end or stage.prometheus.follow(pods) != number,
        within=2 * _STAYS, describe=stage.log, every=1,
    )  # fmt: skip
    assert pods.wanted() == number


def _each(stage: Stage, trigger: int) -> str:
    """What the HPA has seen of the sample's trigger last, of each pod."""
    (hpa,) = stage.kubectl.list("hpa")
    return average(hpa, "external", f"s{trigger}-prometheus")


def test_pods_follow_what_prometheus_has_seen(stage: Stage, pods: Pods) -> None:
    names = [f"{_NAME}-{number}" for number in range(8)]
    pods.told |= dict.fromkeys(names, load_of()) | {names[0]: load_of(backlog=5)}
    stage.prometheus.follow(pods)
    _scale(stage)
    # ceil(5 s / 2 s).
    _until(stage, pods, 3)

    # 2.6 pods are busy: the work of ceil(2.6 / 0.7), more than what waits asks for.
    pods.told |= dict.fromkeys(names[:3], load_of(busy=0.86)) | {
        names[0]: load_of(backlog=5, busy=0.86)
    }
    _until(stage, pods, 4)

    # Four pods with the work of three: two that can't be read count as just right, not as idle.
    pods.told |= dict.fromkeys(names[:4], load_of(backlog=1.9))
    eventually(lambda: _each(stage, 0) == "1900m", within=_SOON, describe=stage.log, every=1)
    pods.told |= dict.fromkeys(names[:2])
    _stays(stage, pods, 4)
    # And if none can be read, nobody knows.
    pods.told |= dict.fromkeys(names[:4])
    _stays(stage, pods, 4)

    pods.told |= dict.fromkeys(names, load_of())
    _until(stage, pods, 1)
