"""Revisions that will not get ready: known long before the deadline, where their pods tell."""

import datetime
from typing import Any

from reranker_contracts import StageReason
from reranker_operator.api.conditions import Reason
from reranker_operator.core.causes.finding import Finding
from reranker_operator.core.causes.pods import condition_of, container_statuses, moment
from reranker_operator.core.revisions import engine_of, live_deployments, pods_of
from reranker_operator.core.world import Manifest, ServiceWorld, is_leaving

#: A trouble of the revision's own making must last for this long.
PATIENCE = datetime.timedelta(seconds=40)
#: Shortest time for a pod to load its engine, and how many times the former one's it may take.
_LEAST = datetime.timedelta(seconds=75)
_TIMES = 3
#: Troubles that no waiting mends; others may be the nodes', the registry's or the network's.
_HOPELESS: frozenset[str] = frozenset(
    {
        Reason.CRASH_LOOP, Reason.CONTAINER_FAILED, Reason.HOOK_FAILED, Reason.SIDECAR_FAILED,
        Reason.TRITON_LOAD_FAILED, Reason.TRITON_IMAGE_UNSUITABLE, Reason.DRIVER_TOO_OLD,
        Reason.OUT_OF_MEMORY, Reason.PROBE_FAILED, Reason.NOT_ANSWERING,
        Reason.IMAGE_NAME_INVALID, Reason.IMAGE_NOT_FOUND, Reason.IMAGE_NOT_PRESENT,
        Reason.IMAGE_PULL_UNAUTHORIZED, Reason.IMAGE_UNTRUSTED,
        Reason.SECRET_KEY_NOT_FOUND, Reason.LIMIT_RANGE_EXCEEDED, Reason.POD_SECURITY_REFUSED,
        Reason.ADMISSION_DENIED, Reason.POD_REJECTED, Reason.PRIORITY_CLASS_NOT_FOUND,
        Reason.RUNTIME_CLASS_NOT_FOUND,
        Reason.SERVICE_ACCOUNT_NOT_FOUND, Reason.REJECTED, StageReason.ENGINE_VERSION_MISMATCH,
    }
)  # fmt: skip


def is_hopeless(found: Finding | None) -> bool:
    """It is the revision's own fault, and will be the same at the next try."""
    return found is not None and str(found.reason) in _HOPELESS


def slow(
    world: ServiceWorld, revision: str, former: str | None
) -> tuple[datetime.datetime, datetime.timedelta] | None:
    """Since when the first pod of a revision loads, and the time that it may take for that.

    By what the former revision's pods took, and the sizes of the engines; None where nothing tells.
    """
    took = min(filter(None, map(_took, pods_of(world, former))), default=None)
    started = [
        since
        for pod in pods_of(world, revision)
        if not is_leaving(pod) and (since := _loads_since(pod)) is not None and _never(pod, since)
    ]
    if took is None or not started:
        return None
    return min(started), max(_LEAST, _TIMES * took * _growth(world, revision, former))


def _never(pod: Manifest, since: datetime.datetime) -> bool:
    """The pod was not ready since then: what becomes unready later is another matter."""
    ready = condition_of(pod, "Ready")
    changed = moment(ready.get("lastTransitionTime"))
    return ready.get("status") != "True" and (changed is None or changed <= since)


def _growth(world: ServiceWorld, revision: str, former: str | None) -> float:
    """How many times the former engine's size the new one has, at least 1."""
    live = live_deployments(world)
    sizes = {entry.metadata.name: entry.status.size_bytes for entry in world.engines}
    new, old = (sizes.get(engine_of(live.get(name or "")) or "") for name in (revision, former))
    return max(1.0, new / old) if new and old else 1.0


def _took(pod: Manifest) -> datetime.timedelta | None:
    """The time from Triton's start to ready."""
    ready = condition_of(pod, "Ready")
    since, until = _loads_since(pod), moment(ready.get("lastTransitionTime"))
    if ready.get("status") != "True" or since is None or until is None:
        return None
    return max(until - since, datetime.timedelta(seconds=1))


def _loads_since(pod: Manifest) -> datetime.datetime | None:
    """When Triton was started: before that the node may still fetch its image."""
    for status in container_statuses(pod):
        if status["name"] == "triton":
            state: dict[str, Any] = status.get("state", {})
            return moment(state.get("running", {}).get("startedAt"))
    return None
