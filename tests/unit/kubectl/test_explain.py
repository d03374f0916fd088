"""Why a service is not ready."""

import copy
import io
from collections.abc import Callable
from typing import Any

import pytest
from support.rr_worlds import ENGINE, NOW, WORLDS, Json, ago, condition, running, service, waiting

from kubectl_rr import runbook
from kubectl_rr.cluster import Access
from kubectl_rr.explain import draw
from kubectl_rr.snapshot import Snapshot
from kubectl_rr.terminal import console, show
from reranker_contracts import StageReason
from reranker_operator.api.conditions import Reason

_EVENT = {
    "type": "Warning",
    "reason": "SourceNotFound",
    "message": "ModelResolved is False:\x1b[31m no such repository",
    "involvedObject": {"kind": "RerankerService", "name": "demo"},
    "lastTimestamp": "2026-01-05T11:59:00Z",
}


@pytest.fixture(autouse=True)
def _wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")


def test_the_package_has_a_text_for_every_reason() -> None:
    entries = runbook.entries()
    missing = [reason for reason in (*Reason, *StageReason) if not entries[reason].text]
    assert missing == []
    assert entries["NotACrossEncoder"].text.startswith("Permanent. The model")
    assert "`*ForSequenceClassification`" in entries["NotACrossEncoder"].text
    assert runbook.failing("False", "CrashLoop")
    assert runbook.failing("False", "ReasonOfTomorrow")
    assert not runbook.failing("False", "Starting")


def test_a_failure_is_explained_from_its_first_condition_to_the_next_command(
    rr: Any, api: Any
) -> None:
    api.world = {**WORLDS["failing"], "events": [_EVENT, _EVENT | {"type": "Normal"}]}
    done = rr("explain", "demo", "-n", "shop", api=api)
    assert done.code == 1
    lines = done.out.splitlines()
    assert lines[0].startswith("✗ demo has not been ready for ")
    assert lines[0].endswith(": ModelResolved is False")
    assert lines[1].startswith("  SourceNotFound: resolve: org/demo-model does not exist")
    assert f"  {runbook.entries()['SourceNotFound'].text}" in lines
    assert done.out.count("ModelResolved is False: no such repository") == 1
    assert "\x1b" not in done.out
    log = "kubectl logs demo-resolve-1a2b3c-x7k2p -c resolve -n shop --kubeconfig "
    assert f"  {log}{api.kubeconfig}" in lines


@pytest.mark.parametrize(
    ("state", "headline", "command"),
    [
        ("new", "demo is not ready: the operator has not looked", "kubectl get pods -A -l "),
        ("building", "● demo has not been ready for ", "-c validate"),
        ("crashing", "✗ demo has not been ready for ", "-c triton --previous"),
        ("rolling", "● demo has not been ready for ", "describe pod demo-9f8e7d6c-5d9f-x7k2p"),
        ("deleting", "demo is being deleted for ", "kubectl describe rerankerservice demo"),
    ],
)
def test_each_state_has_a_headline_and_a_command_that_leads_on(
    state: str, headline: str, command: str, rr: Any, api: Any
) -> None:
    api.world, api.refused = WORLDS[state], {"events"}
    done = rr("explain", "demo", api=api)
    assert done.code == 1
    assert done.out.startswith(headline)
    assert command in done.out


def test_a_ready_service_is_said_to_be_ready_and_what_serves(rr: Any, api: Any) -> None:
    done = rr("explain", "demo", api=api)
    assert done.code == 0
    assert done.out.startswith("✓ demo is ready.\n")
    assert "1a2b3c4d, Deployment demo-1a2b3c4d" in done.out


def test_a_ready_service_tells_what_is_fought_over(rr: Any, api: Any) -> None:
    told = [
        condition("Ready", "True", "Ready", "ready"),
        condition("Progressing", "False", "ReplicasContested", "an HPA scales the Deployment"),
    ]
    api.world = {"rerankerservices": [service(*told, stage="Serving")]}
    done = rr("explain", "demo", api=api)
    assert done.code == 0
    assert "ReplicasContested: an HPA scales the Deployment" in done.out
    assert done.out.count("\nBut\n") == 1
    assert "Somebody scales a Deployment of the service" in done.out


def test_what_fails_beside_what_serves_is_told_too(rr: Any, api: Any) -> None:
    told = [
        condition("Ready", "True", "Ready", "ready"),
        condition("Autoscaled", "False", "AutoscalerConflict", "kubectl sets spec.replicas"),
        condition("Progressing", "False", "Paused", "held back"),
    ]
    api.world = {"rerankerservices": [service(*told, stage="Serving")]}
    done = rr("explain", "demo", api=api)
    assert done.code == 0
    assert "Autoscaled is False, AutoscalerConflict: kubectl sets spec.replicas" in done.out
    assert "held back" not in done.out, "somebody wished for it"
    told[0] = condition("Serving", "False", "CrashLoop", "triton ends")
    told[2] = condition("Progressing", "False", "CrashLoop", "triton of a pod ends")
    api.world = {"rerankerservices": [service(*told, stage="Serving")]}
    done = rr("explain", "demo", api=api)
    assert done.out.count("\nBesides\n") == 1
    assert "Autoscaled is False, AutoscalerConflict" in done.out


def test_ready_was_said_of_an_older_spec(
    rr: Any, api: Any, snapshot: Callable[..., Snapshot]
) -> None:
    changed = service(condition("Ready", "True", "Ready", "ready"), stage="Serving")
    changed["metadata"]["generation"] = 2
    api.world = {"rerankerservices": [changed]}
    done = rr("explain", "demo", api=api)
    assert done.code == 1
    assert "the operator has not looked at its newest spec yet" in done.out


def test_a_reason_of_a_newer_operator_is_no_reason_to_fail(rr: Any, api: Any) -> None:
    told = condition("Accepted", "False", "ReasonOfTomorrow", "no")
    api.world = {"rerankerservices": [service(told)]}
    assert "no text for it" in rr("explain", "demo", api=api).out


def test_a_missing_node_is_explained_before_the_build(rr: Any, api: Any) -> None:
    told = [
        condition("Accepted", "True", "Accepted"),
        condition("ModelResolved", "Unknown", "Resolving", "reading"),
        condition("Serving", "False", "NoMatchingNode", "no node has 1 nvidia.com/gpu"),
        condition("Ready", "False", "NoMatchingNode", "no node has 1 nvidia.com/gpu"),
    ]
    api.world = {"rerankerservices": [service(*told)]}
    done = rr("explain", "demo", api=api)
    assert done.out.splitlines()[0].endswith(": Serving is False")
    assert "NoMatchingNode: no node has 1 nvidia.com/gpu" in done.out


def _warning(reason: str, kind: str, name: str, since: float) -> Json:
    involved = {"kind": kind, "name": name}
    return _EVENT | {"reason": reason, "involvedObject": involved, "lastTimestamp": ago(since)}


def test_warnings_are_those_of_what_is_wrong_now(rr: Any, api: Any) -> None:
    # The conditions turned 180 s ago.
    unready, ready = "demo-9f8e7d6c-5d9f-x7k2p", "demo-1a2b3c4d-5d9f-x7k2p"
    told = [
        ("Rejected", "RerankerService", "demo", 72),
        ("Rolling", "RerankerService", "demo", 500),
        ("CompileFailed", "RerankerEngine", ENGINE, 72),
        ("UnreadyPod", "Pod", unready, 500),
        ("ReadyPod", "Pod", ready, 72),
        ("GonePod", "Pod", "demo-1a2b3c4d-5d9f-gone0", 72),
        ("UnreadySet", "ReplicaSet", "demo-9f8e7d6c-5d9f", 500),
        ("ReadySet", "ReplicaSet", "demo-1a2b3c4d-5d9f", 72),
        ("NewJob", "Job", f"{ENGINE}-compile-1", 72),
        ("OldJob", "Job", f"{ENGINE}-prepare-1", 500),
    ]
    world = copy.deepcopy(WORLDS["rolling"])
    api.world = {**world, "events": [_warning(*row) for row in told]}
    out = rr("explain", "demo", api=api).out
    shown = {reason for reason, kind, name, _since in told if f"{reason}  {kind}/{name}" in out}
    assert shown == {"Rolling", "UnreadyPod", "UnreadySet", "NewJob"}
    stopped = condition("Serving", "False", "ScaledToZero", "spec.replicas is 0")
    world = copy.deepcopy(WORLDS["sleeping"])
    world["rerankerservices"][0]["status"]["conditions"] = [stopped]
    api.world = {**world, "events": [_warning(*row) for row in told if row[1] != "Job"]}
    assert "Newest warnings" not in rr("explain", "demo", api=api).out


@pytest.mark.parametrize("reason", ["ImagePullBackOff", "CreateContainerConfigError"])
def test_a_container_that_has_not_begun_has_no_log_to_look_at(
    reason: str, rr: Any, api: Any
) -> None:
    world = copy.deepcopy(WORLDS["crashing"])
    (pod,) = world["pods"]
    pod["status"]["initContainerStatuses"] = [waiting("verify", reason)]
    # Another one's restarts are no log of this one.
    pod["status"]["containerStatuses"] = [running("gateway", restartCount=2)]
    api.world = world
    out = rr("explain", "demo", api=api).out
    assert f"kubectl describe pod {pod['metadata']['name']}" in out
    assert "kubectl logs" not in out


def test_a_build_that_has_not_begun_has_no_log_to_look_at(rr: Any, api: Any) -> None:
    world = copy.deepcopy(WORLDS["building"])
    (pod,) = world["pods"]
    stages = ("compile", "validate", "publish")
    pod["status"]["initContainerStatuses"] = [waiting(stage) for stage in stages[:-1]]
    api.world = world
    out = rr("explain", "demo", api=api).out
    assert f"kubectl describe pod {pod['metadata']['name']}" in out
    assert "kubectl logs" not in out


@pytest.mark.parametrize(("reason", "symbol"), [("ProgressDeadlineExceeded", "✗"), ("Paused", "●")])
def test_the_age_is_that_of_not_being_ready_whatever_holds_it(
    reason: str, symbol: str, snapshot: Callable[..., Snapshot]
) -> None:
    told = [
        condition("Serving", "True", "Available", "1 of 1 pods are ready"),
        condition("Progressing", "False", reason, "held"),
        condition("Ready", "False", reason, "held") | {"lastTransitionTime": ago(3)},
    ]
    found = snapshot({"rerankerservices": [service(*told)]}).services[0]
    file = io.StringIO()
    show(console("never", file), draw(found, [], NOW, Access()))
    line = f"{symbol} demo has not been ready for 3s: Progressing is False"
    assert file.getvalue().splitlines()[:2] == [line, f"  {reason}: held"]
