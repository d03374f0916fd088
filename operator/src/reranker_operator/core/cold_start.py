"""How long a pod took from being asked for to ready, stage by stage, as its own object tells.

Kubernetes writes these times in whole seconds, so each stage is right to a second.

    created ─schedule─▶ bound ─prepare─▶ verify ─load─▶ gateway ─warmUp─▶ ready

Load begins with Triton, which starts when verify has ended, and ends where the gateway starts.

A pod tells only when it got ready last. Of one that lost its readiness in between, with its node
for instance, that is hours after its start: so each pod is measured once, when it is newer than the
one measured before, and nothing counts that is longer than any start.
"""

import datetime
import itertools
from typing import Any

from reranker_operator.api.rollout import ColdStart
from reranker_operator.core.causes.pods import condition_of, container_statuses, moment
from reranker_operator.core.revisions import in_traffic, pods_of, revision_of
from reranker_operator.core.world import Manifest, ServiceWorld

#: Seconds between the gateway's start and ready, at most: later the pod was ready before.
_LONGEST_WARM_UP = 600.0


def cold_start(world: ServiceWorld, serving: str | None) -> ColdStart | None:
    """Of the newest ready pod behind the address; the former one while there is none."""
    before = believable(world.service.status.cold_start)
    found = [
        measured
        for deployment in in_traffic(world, serving)
        for pod in pods_of(world, revision_of(deployment))
        if (measured := measure(pod)) is not None
    ]
    newest = max(found, key=lambda entry: (_created(entry), entry.pod), default=before)
    if newest is None or (before is not None and _created(newest) <= _created(before)):
        return before
    return newest


def believable(measured: ColdStart | None) -> ColdStart | None:
    """None where it was no start, whoever took it for one."""
    return measured if measured is not None and measured.warm_up <= _LONGEST_WARM_UP else None


def is_first(pod: Manifest, known: ColdStart | None) -> bool:
    """It has been ready ever since it started, as far as can be told."""
    statuses = {entry["name"]: entry for entry in container_statuses(pod)}
    if any(entry.get("restartCount") for entry in statuses.values()):
        return False
    since = moment(condition_of(pod, "Ready").get("lastTransitionTime"))
    began = moment(_state(statuses, "gateway", "running").get("startedAt"))
    if known is not None and known.pod == pod["metadata"]["name"] and since != known.time:
        return False
    return since is None or began is None or _seconds(began, since) <= _LONGEST_WARM_UP


def measure(pod: Manifest) -> ColdStart | None:
    """None while it is not ready, and where that is not the end of its start."""
    statuses = {entry["name"]: entry for entry in container_statuses(pod)}
    ready = condition_of(pod, "Ready")
    if ready.get("status") != "True" or not is_first(pod, None):
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


def _created(measured: ColdStart) -> datetime.datetime:
    return measured.time - datetime.timedelta(seconds=measured.seconds)


def _seconds(early: datetime.datetime, late: datetime.datetime) -> float:
    return (late - early).total_seconds()
