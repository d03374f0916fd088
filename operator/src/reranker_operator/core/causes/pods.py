"""A pod in short: its containers, conditions and claims, and which part of the spec it is from."""

import datetime
from collections.abc import Iterable, Iterator
from typing import Any

from reranker_contracts import Stage
from reranker_operator import names
from reranker_operator.core.world import Manifest, is_leaving

#: Where the settings of our own serving containers stand; whatever else runs there is the user's.
_SERVING = {
    "triton": "spec.serving.triton",
    "gateway": "spec.serving.gateway",
    "verify": "spec.serving.gateway",
    "measure": "spec.serving.gateway",
}
_BUILD = frozenset({stage.value for stage in Stage} - _SERVING.keys() | {"tools", "source"})
_ENDED = frozenset({"Succeeded", "Failed"})


def living(pods: Iterable[Manifest]) -> list[Manifest]:
    """Those not being deleted, in an order that is the same each time."""
    left = [pod for pod in pods if not is_leaving(pod)]
    return sorted(left, key=lambda pod: str(pod["metadata"].get("name", "")))


def container_statuses(pod: Manifest) -> list[dict[str, Any]]:
    """Statuses of init containers, then of containers."""
    status = pod.get("status", {})
    return [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]


def condition_of(pod: Manifest, kind: str) -> dict[str, Any]:
    """The condition of this type; empty where the pod has none."""
    conditions = pod.get("status", {}).get("conditions", [])
    return next((entry for entry in conditions if entry["type"] == kind), {})


def is_ready(pod: Manifest) -> bool:
    """It answers its readiness probe, as far as its kubelet has said."""
    said = condition_of(pod, "Ready").get("status")
    return pod.get("status", {}).get("phase") == "Running" and said in (None, "True")


def has_ended(pod: Manifest) -> bool:
    """It runs no more, and holds nothing."""
    return pod.get("status", {}).get("phase") in _ENDED


def is_build(pod: Manifest) -> bool:
    """A pod of a Job, not one that serves."""
    meta = pod["metadata"]
    owners = meta.get("ownerReferences", [])
    return names.STAGE_LABEL in meta.get("labels", {}) or any(o["kind"] == "Job" for o in owners)


def is_ours(pod: Manifest, container: str) -> bool:
    """Not a container that the user added."""
    return container in (_BUILD if is_build(pod) else _SERVING)


def settings_of(pod: Manifest, container: str) -> str:
    """The part of the spec that has a container's image and resources."""
    if is_build(pod):
        return "spec.engine"
    return _SERVING.get(container, f"spec.serving.pod (the entry named {container})")


def memory_limit(pod: Manifest, container: str) -> str | None:
    """The container's memory limit, as it was asked for."""
    spec = pod.get("spec", {})
    for entry in (*spec.get("initContainers", []), *spec.get("containers", [])):
        if entry["name"] == container:
            limit = entry.get("resources", {}).get("limits", {}).get("memory")
            return None if limit is None else str(limit)
    return None


def claims_of(pod: Manifest) -> Iterator[tuple[str, str]]:
    """Volume and claim of each claim that the pod mounts."""
    for volume in pod.get("spec", {}).get("volumes", []):
        if "persistentVolumeClaim" in volume:
            yield volume["name"], volume["persistentVolumeClaim"]["claimName"]


def about(entry: Manifest, events: Iterable[Manifest]) -> list[Manifest]:
    """The Events about an object, newest first."""
    uid = entry["metadata"].get("uid")
    mine = [event for event in events if event["involvedObject"].get("uid") == uid]
    return sorted(mine, key=_moment, reverse=True)


def _moment(event: Manifest) -> str:
    series = event.get("series") or {}
    times = (series.get("lastObservedTime"), event.get("lastTimestamp"), event.get("eventTime"))
    return str(next((time for time in times if time), ""))


def moment(text: object) -> datetime.datetime | None:
    """A time as the API writes it."""
    return datetime.datetime.fromisoformat(str(text)) if text else None
