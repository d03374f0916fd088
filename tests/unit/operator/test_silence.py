"""Pods of which only Events tell: how long they are waited for, how often they are looked at."""

import datetime
from typing import Any

import pytest

from reranker_gateway import readiness, triton
from reranker_operator.api.v1alpha1 import RerankerEngine, RerankerService
from reranker_operator.core.causes import silence
from reranker_operator.render import serving
from reranker_operator.render.defaults import Defaults

Json = dict[str, Any]
START = datetime.datetime(2026, 1, 5, 12, 0, tzinfo=datetime.UTC)


def _pod(scheduled: str, state: Json, message: str = "", **status: Any) -> Json:
    placed = {
        "type": "PodScheduled", "status": scheduled, "message": message,
        "lastTransitionTime": "2026-01-05T12:00:00Z",
    }  # fmt: skip
    ready = {"type": "Ready", "status": "False", "lastTransitionTime": "2026-01-05T12:00:00Z"}
    return {
        "metadata": {"name": "rank-1", "uid": "pod"},
        "status": {
            "conditions": [placed, ready],
            "containerStatuses": [{"name": "gateway", "ready": False, "state": state, **status}],
        },
    }


CREATING = _pod("True", {"waiting": {"reason": "ContainerCreating"}})
RUNNING = {"running": {"startedAt": "2026-01-05T12:00:00Z"}}
UNREADY = _pod("True", RUNNING, started=True)
LOADING = _pod("True", RUNNING, started=False)
PULLING = _pod("True", {"waiting": {"reason": "ImagePullBackOff"}})
UNBOUND = _pod("False", {"waiting": {}}, "pod has unbound immediate PersistentVolumeClaims")
FULL = _pod("False", {"waiting": {}}, "0/1 nodes are available: 1 Insufficient cpu")


@pytest.mark.parametrize(
    ("pod", "looks"),
    [
        (CREATING, [20, 20, 40, 80, 160, 320, 600, 600]),
        (UNREADY, [120, 120, 240, 480, 600, 600]),
        (UNBOUND, [20, 20, 40, 80]),
        # The others tell, or will.
        (LOADING, []),
        (PULLING, []),
        (FULL, []),
        (CREATING | {"metadata": CREATING["metadata"] | {"deletionTimestamp": "x"}}, []),
    ],
    ids=["creating", "unready", "unbound", "loading", "pulling", "full", "leaving"],
)
def test_looks_grow_apart(pod: Json, looks: list[float]) -> None:
    now = START
    for pause in looks:
        assert silence.next_look([pod], now) == pause
        now += datetime.timedelta(seconds=pause)
    if not looks:
        assert silence.next_look([pod], now) is None
        assert not silence.is_overdue(pod, now + datetime.timedelta(days=1))


def test_events_are_read_when_the_first_patience_is_over() -> None:
    second = datetime.timedelta(seconds=1)
    for pod, patience in ((CREATING, 20), (UNREADY, 120)):
        assert not silence.is_overdue(pod, START + (patience - 1) * second)
        assert silence.is_overdue(pod, START + patience * second)
    # Of an unbound claim the claim's Events tell, not the pod's.
    assert not silence.is_overdue(UNBOUND, START + 1000 * second)


def test_the_newest_event_counts() -> None:
    def event(when: str, text: str, uid: str = "pod", **more: Any) -> Json:
        words = {"reason": "FailedMount", "message": text, "involvedObject": {"uid": uid}}
        return words | {"lastTimestamp": when} | more

    events = [
        event("2026-01-05T12:00:30Z", "timed out"),
        event("2026-01-05T12:00:50Z", "access denied"),
        event("2026-01-05T12:00:55Z", "of another pod", uid="other"),
        event("2026-01-05T12:00:58Z", "Pulled", reason="Pulling"),
    ]
    found = silence.explained([CREATING], events)
    assert found is not None
    assert "access denied" in found.message
    assert silence.explained([PULLING], events) is None


def test_a_hanging_backend_is_known_within_fifteen_seconds(
    service: RerankerService, engine: RerankerEngine, defaults: Defaults
) -> None:
    """By the gateway's own look, then the kubelet's probes; two seconds are for the cluster."""
    pod = serving.pod_template(service, engine, defaults)["spec"]
    probe = next(c for c in pod["containers"] if c["name"] == "gateway")["readinessProbe"]
    by_gateway = readiness._INTERVAL + triton._READY_TIMEOUT
    by_kubelet = probe["failureThreshold"] * probe["periodSeconds"] + probe["timeoutSeconds"]
    assert by_gateway + by_kubelet <= 13
