"""Pod statuses as the kubelet and the scheduler write them, and what we make of them."""

import datetime
from typing import Any

import pytest

from reranker_contracts import Stage, StageReason, StageResult
from reranker_operator.core import diagnose
from reranker_operator.core.jobs import view

Json = dict[str, Any]
NOW = datetime.datetime(2026, 1, 5, 12, 0, tzinfo=datetime.UTC)


def _pod(*statuses: Json, init: tuple[Json, ...] = (), **status: Any) -> Json:
    owner = {"kind": "Job", "name": "build-1", "uid": "job"}
    return {
        "metadata": {"name": "build-1-x7k2p", "uid": "pod", "ownerReferences": [owner]},
        "status": {"initContainerStatuses": list(init), "containerStatuses": list(statuses)}
        | status,
    }


def _waiting(reason: str, message: str = "", name: str = "fetch") -> Json:
    state = {"waiting": {"reason": reason, "message": message}}
    return {"name": name, "image": "builder:1", "ready": False, "state": state, "lastState": {}}


def _ended(code: int, reason: str = "Error", message: str = "", name: str = "export") -> Json:
    ended = {
        "exitCode": code,
        "reason": reason,
        "startedAt": "2026-01-05T12:00:00Z",
        "finishedAt": "2026-01-05T12:00:09Z",
        "containerID": "containerd://4fe1",
    }
    if message:
        ended["message"] = message
    state = {"terminated": ended}
    return {"name": name, "image": "builder:1", "ready": False, "state": state, "lastState": {}}


def _unscheduled(reason: str, message: str) -> Json:
    condition = {"type": "PodScheduled", "status": "False", "reason": reason, "message": message}
    return _pod(phase="Pending", conditions=[condition])


def _said(stage: Stage, reason: StageReason, *, ok: bool = False) -> str:
    return StageResult(stage=stage, ok=ok, reason=reason, message="words", seconds=1).to_message()


@pytest.mark.parametrize(
    ("pod", "reason", "text"),
    [
        # The words of an older kubelet, without those of the runtime.
        (
            _pod(_waiting("ImagePullBackOff", 'Back-off pulling image "builder:1"')),
            "ImagePullFailed",
            "builder:1",
        ),
        (
            _pod(
                _waiting(
                    "CreateContainerConfigError",
                    'failed to create subPath directory for volumeMount "engine" of "verify"',
                )
            ),
            "ContainerFailed",
            "subPath",
        ),
        (
            _pod(
                _waiting(
                    "CreateContainerConfigError",
                    "container has runAsNonRoot and image will run as root",
                )
            ),
            "ContainerFailed",
            "root",
        ),
        # Without the claim at hand.
        (
            _unscheduled(
                "Unschedulable",
                "0/1 nodes are available: pod has unbound immediate "
                "PersistentVolumeClaims. not found",
            ),
            "VolumePending",
            "spec.engine.store",
        ),
        (
            _unscheduled(
                "Unschedulable",
                "0/2 nodes are available: 2 node(s) had volume node affinity conflict",
            ),
            "VolumeOnOtherNode",
            "affinity",
        ),
        # What is cut in the message counts all the same.
        (
            _unscheduled(
                "Unschedulable",
                f"0/900 nodes are available: {', '.join(f'{n} odd {n:060}' for n in range(9))}, "
                "2 node(s) had untolerated taint(s), "
                f"{', '.join(f'{n} node(s) strange {n:060}' for n in range(9))}.",
            ),
            "TaintNotTolerated",
            "take the taint off",
        ),
        (
            _unscheduled(
                "Unschedulable",
                "0/1 nodes are available: 1 Too many pods. no new claims to deallocate, "
                "preemption: 0/1 nodes are available: 1 No preemption victims found.",
            ),
            "InsufficientResources",
            "1 Too many pods; free",
        ),
        # The preemption's words are the same for every cause.
        (
            _unscheduled(
                "Unschedulable",
                "0/3 nodes are available: 3 Insufficient memory. preemption: 0/3 nodes are "
                "available: 3 No preemption victims found for incoming pod.",
            ),
            "InsufficientResources",
            "3 Insufficient memory; free",
        ),
    ],
)
def test_what_keeps_a_pod_from_starting(pod: Json, reason: str, text: str) -> None:
    finding = diagnose.blocked([pod])
    assert finding is not None
    assert finding.reason == reason
    assert text in finding.message
    # What happened, then what to do, whatever the kubelet's own words end in.
    assert finding.message.count("; ") == 1
    pod["metadata"]["deletionTimestamp"] = "2026-01-05T12:00:00Z"
    assert diagnose.blocked([pod]) is None


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("ErrImagePull", 'failed to resolve reference "x": x: not found'),
        (
            "RegistryUnavailable",
            "image pull failed for x because the registry is unavailable: no answer",
        ),
        (
            "SignatureValidationFailed",
            "image pull failed for x because the signature validation failed",
        ),
        ("ErrImagePull", "unexpected EOF"),
    ],
)
def test_a_pull_is_told_alike_while_it_fails_and_while_it_waits(reason: str, words: str) -> None:
    fails = _pod(_waiting(reason, words))
    waits = _pod(_waiting("ImagePullBackOff", f'Back-off pulling image "x": {reason}: {words}'))
    assert diagnose.blocked([fails]) == diagnose.blocked([waits]) is not None


@pytest.mark.parametrize(
    "pod",
    [
        _pod(),
        {"metadata": {"name": "x"}},
        _pod(_waiting("PodInitializing"), init=(_waiting("ContainerCreating"),)),
        _unscheduled("SchedulingGated", "Scheduling is blocked due to non-empty scheduling gates"),
    ],
)
def test_a_pod_that_is_only_slow_is_not_blocked(pod: Json) -> None:
    assert diagnose.blocked([pod]) is None


FETCHED = _ended(0, "Completed", _said(Stage.FETCH, StageReason.SUCCEEDED, ok=True), name="fetch")


@pytest.mark.parametrize(
    ("pod", "reason", "text"),
    [
        (_pod(init=(FETCHED, _ended(137, "OOMKilled"))), "OutOfMemory", "export"),
        (_pod(init=(FETCHED, _ended(137, "Error"))), "PodKilled", "137"),
        (_pod(init=(FETCHED, _ended(143, "Error"))), "PodKilled", "143"),
        (
            _pod(
                init=(
                    FETCHED,
                    _ended(
                        137,
                        "ContainerStatusUnknown",
                        "The container could not be located when the pod was deleted.",
                    ),
                )
            ),
            "PodKilled",
            "export",
        ),
        (
            _pod(init=(FETCHED, _ended(1, message=_said(Stage.EXPORT, StageReason.EXPORT_FAILED)))),
            "ExportFailed",
            "export: words",
        ),
        (
            _pod(init=(FETCHED, _ended(2, message="usage: engine-builder\nerror: no such option"))),
            "ContainerFailed",
            "no such option",
        ),
        (
            _pod(init=(FETCHED, _ended(128, "StartError", 'exec: "x": not found in $PATH'))),
            "ContainerFailed",
            "not found",
        ),
        (
            _pod(init=(FETCHED, _ended(1, message='{"stage":"export","ok":false,"reason":"Made'))),
            "ContainerFailed",
            "exit code 1",
        ),
    ],
)
def test_why_a_job_failed(pod: Json, reason: str, text: str) -> None:
    finding = diagnose.failure([pod])
    assert finding is not None
    assert finding.reason == reason
    assert text in finding.message


@pytest.mark.parametrize(
    ("kind", "reason", "pods", "state", "told"),
    [
        ("Complete", "CompletionsReached", [_pod(FETCHED)], "succeeded", None),
        ("SuccessCriteriaMet", "CompletionsReached", [_pod(FETCHED)], "succeeded", None),
        ("Failed", "BackoffLimitExceeded", [], "failed", "PodKilled"),
        (
            "FailureTarget",
            "BackoffLimitExceeded",
            [_pod(_ended(137, "OOMKilled"))],
            "failed",
            "OutOfMemory",
        ),
        ("Failed", "DeadlineExceeded", [], "failed", "DeadlineExceeded"),
        (
            "Failed",
            "DeadlineExceeded",
            [_pod(_waiting("ImagePullBackOff", "no such host"))],
            "failed",
            "DeadlineExceeded",
        ),
        ("Suspended", "", [], "running", None),
    ],
)
def test_the_state_of_a_job(
    kind: str, reason: str, pods: list[Json], state: str, told: str | None
) -> None:
    meta = {"name": "build-1", "uid": "job"}
    job = {
        "metadata": meta,
        "status": {"conditions": [{"type": kind, "status": "True", "reason": reason}]},
    }
    seen = view("build-1", [job], pods, NOW)
    assert seen.state == state
    assert (seen.finding.reason if seen.finding else None) == told
    if pods and told == "DeadlineExceeded":
        assert seen.finding is not None
        assert "no such host" in seen.finding.message
    leaving = job | {"metadata": meta | {"deletionTimestamp": "2026-01-05T12:00:00Z"}}
    assert view("build-1", [leaving], pods, NOW).state == "absent"
    assert view("build-2", [job], pods, NOW).state == "absent"


def test_pods_of_another_job_of_the_same_name_do_not_count() -> None:
    job = {"metadata": {"name": "build-1", "uid": "new"}, "status": {}}
    assert view("build-1", [job], [_pod(_ended(137, "OOMKilled"), FETCHED)], NOW).results == ()


def _looping(name: str, code: int, reason: str = "Error", message: str = "") -> Json:
    waiting = _waiting("CrashLoopBackOff", "back-off 5m0s restarting failed container", name)
    return waiting | {"lastState": _ended(code, reason, message)["state"]}


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (_looping("triton", 1), "CrashLoop"),
        (_looping("triton", 137, "OOMKilled"), "OutOfMemory"),
        # A server that ends without a fault does not serve either.
        (_looping("gateway", 0, "Completed"), "CrashLoop"),
        (
            _looping("verify", 1, message=_said(Stage.VERIFY, StageReason.CHECKSUM_MISMATCH)),
            "ChecksumMismatch",
        ),
        (
            {
                "name": "gateway",
                "image": "g",
                "state": {"running": {"startedAt": "x"}},
                "lastState": {},
            },
            None,
        ),
    ],
)
def test_serving_containers_that_end_again_and_again(status: Json, reason: str | None) -> None:
    pod = _pod(init=(status,))
    pod["metadata"]["ownerReferences"] = [{"kind": "ReplicaSet", "name": "rank", "uid": "rs"}]
    finding = diagnose.crashing([pod])
    assert (finding.reason if finding else None) == reason
    assert finding is None or finding.message.count("; ") <= 1


def test_only_a_checksum_of_the_verify_container_is_damage() -> None:
    damaged = _looping("verify", 1, message=_said(Stage.VERIFY, StageReason.CHECKSUM_MISMATCH))
    assert diagnose.verify_failure(_pod(init=(damaged,)))
    for other in (
        _looping("gateway", 1, message=_said(Stage.VERIFY, StageReason.CHECKSUM_MISMATCH)),
        _looping("verify", 1, message=_said(Stage.VERIFY, StageReason.INTERNAL_ERROR)),
        # Built again it would be the same.
        _looping("verify", 1, message=_said(Stage.VERIFY, StageReason.ENGINE_VERSION_MISMATCH)),
        _looping("verify", 137, "OOMKilled"),
        _ended(0, "Completed", _said(Stage.VERIFY, StageReason.SUCCEEDED, ok=True), name="verify"),
    ):
        assert diagnose.verify_failure(_pod(init=(other,))) is None
