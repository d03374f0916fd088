"""Real KEDA and the real HPA controller, scaling by what the operator's external scaler says.

On a control plane without nodes: the operator reads metrics of pods whose status is written by
hand. It stands by, since somebody else has the Lease, and so leaves the service's objects alone.
"""

import json
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
from support.standby import standby
from support.unscheduled import Pods, load_of, pods_of

from reranker_contracts import metrics as names

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

_NAME = "minimal"
_SOON = 90


@dataclass(frozen=True)
class Stage(Staged):
    """KEDA's two programs and the operator."""

    scaler: str

    def log(self) -> str:
        return f"{keda_log(self.plane)}\n{self.plane.log('operator')}"


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with control_plane() as plane:
        start_keda(plane)
        with standby(plane) as scaler:
            yield Stage(plane, scaler)


@pytest.fixture
def pods(stage: Stage) -> Iterator[Pods]:
    with pods_of(stage.kubectl, _NAME, "scaledobject") as made:
        yield made


def _scale(stage: Stage, **metadata: str) -> None:
    """The sample, as impatient as a test is."""
    sample: Json = yaml.safe_load((ROOT / "manifests/samples/keda.yaml").read_text())
    sample["spec"] = impatient(sample["spec"]) | {"minReplicaCount": 0}
    (trigger,) = sample["spec"]["triggers"]
    trigger["metadata"] |= {"scalerAddress": stage.scaler} | metadata
    stage.kubectl.apply(sample)


def _until(stage: Stage, pods: Pods, wanted: int) -> None:
    def describe() -> str:
        found = stage.kubectl("get", "scaledobject,hpa", "-o", "yaml")
        return f"{pods.wanted()} pods; {found}\n{stage.log()}"

    eventually(lambda: pods.follow() == wanted, within=_SOON, describe=describe, every=1)


def _backlog(stage: Stage) -> str:
    (hpa,) = stage.kubectl.list("hpa")
    return average(hpa, "external", "s0-reranker-backlog-seconds")


def test_pods_follow_the_work_down_to_none_and_wake_when_somebody_waits(
    stage: Stage, pods: Pods
) -> None:
    pods.make_service(holdAtZero=True)
    pods.told[f"{_NAME}-activator"] = {names.HELD: 0}
    pods.told[f"{_NAME}-0"] = load_of(backlog=5)
    pods.told |= {f"{_NAME}-{number}": load_of() for number in (1, 2)}
    _scale(stage)
    # ceil(5 s / 2 s).
    _until(stage, pods, 3)

    # What can't be read is not idle, but as busy as it should be: the number stays, whichever of
    # them is missed first.
    pods.told |= {f"{_NAME}-{number}": load_of(backlog=2) for number in range(3)}
    eventually(lambda: _backlog(stage) == "2", within=_SOON, describe=stage.log, every=1)
    pods.told |= dict.fromkeys(f"{_NAME}-{number}" for number in range(3))
    time_of = time.monotonic() + 15
    eventually(lambda: time.monotonic() > time_of or pods.follow() != 3, within=30, every=1)
    assert pods.wanted() == 3

    pods.told |= {f"{_NAME}-{number}": load_of() for number in range(3)}
    _until(stage, pods, 0)

    # Held by the activator: one pod, though nothing else is known.
    pods.told[f"{_NAME}-activator"] = {names.HELD: 1}
    _until(stage, pods, 1)


def test_metadata_that_is_not_understood_is_told_to_the_user(stage: Stage, pods: Pods) -> None:
    _scale(stage, targetBacklogSecond="1")

    def told() -> bool:
        events = json.dumps(stage.kubectl.list("events"))
        log = (stage.plane.logs / "keda-operator.log").read_text()
        return "metadata.targetBacklogSecond is not known here" in events + log

    eventually(told, within=_SOON, describe=stage.log, every=1)
    assert pods.wanted() == 1
