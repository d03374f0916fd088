"""How long a pod took from being asked for to ready, stage by stage, as its own object tells.

Kubernetes writes these times in whole seconds, so each stage is right to a second.

    created ─schedule─▶ bound ─prepare─▶ verify ─load─▶ gateway ─warmUp─▶ ready

Load begins with Triton, which starts when verify has ended, and ends where the gateway starts.
"""

import datetime
import itertools
from typing import Any

from reranker_operator.api.rollout import ColdStart
from reranker_operator.core.causes.pods import condition_of, container_statuses, moment
from reranker_operator.core.revisions import in_traffic, pods_of, revision_of
from reranker_operator.core.world import Manifest, ServiceWorld


def cold_start(world: ServiceWorld, serving: str | None) -> ColdStart | None:
    """Of the newest ready pod behind the address; the former one while there is none."""
    before = world.service.status.cold_start
    found = [
        measured
        for deployment in in_traffic(world, serving)
        for pod in pods_of(world, revision_of(deployment))
        if (measured := measure(pod)) is not None
    ]
    newest = max(found, key=lambda entry: (entry.time, entry.pod), default=before)
    if newest is None or (before is not None and newest.time <= before.time):
        return before
    return newest


def measure(pod: Manifest) -> ColdStart | None:
    """None while it is not ready, and where a container was started again: that is no start."""
    statuses = {entry["name"]: entry for entry in container_statuses(pod)}
    ready = condition_of(pod, "Ready")
    if ready.get("status") != "True" or any(e.get("restartCount") for e in statuses.values()):
        return None
    verified = _state(statuses, "verify", "terminated")
    times = (
        moment(pod["metadata"].get("creationTimestamp")),
        moment(condition_of(pod, "PodScheduled").get("lastTransitionTime")),
        moment(verified.get("startedAt")),
        moment(verified.get("finishedAt")),
        moment(_state(statuses, "gateway", "running").get("startedAt")),
        moment(ready.get("lastTransitionTime")),
    )
    known = [time for time in times if time is not None]
    # A pod that lost its readiness in between tells of the second time only.
    if len(known) < len(times) or known != sorted(known):
        return None
    schedule, prepare, verify, load, warm_up = (
        _seconds(early, late) for early, late in itertools.pairwise(known)
    )
    return ColdStart(
        pod=pod["metadata"]["name"],
        time=known[-1],
        seconds=_seconds(known[0], known[-1]),
        schedule=schedule,
        prepare=prepare,
        verify=verify,
        load=load,
        warm_up=warm_up,
    )


def _state(statuses: dict[str, Any], container: str, state: str) -> dict[str, Any]:
    found: dict[str, Any] = statuses.get(container, {}).get("state", {}).get(state) or {}
    return found


def _seconds(early: datetime.datetime, late: datetime.datetime) -> float:
    return (late - early).total_seconds()
