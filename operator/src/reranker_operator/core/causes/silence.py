"""Pods that say nothing of why they are stuck: only Events do, which are not watched.

A pod gets some time before its Events are read, and then ever more between two looks, so that many
stuck pods cost little.
"""

import datetime
import re
from collections.abc import Iterable

from reranker_operator.api.conditions import Reason
from reranker_operator.core.causes import volumes
from reranker_operator.core.causes.endings import node_is_silent
from reranker_operator.core.causes.finding import Finding, finding
from reranker_operator.core.causes.pods import (
    about,
    condition_of,
    container_statuses,
    is_build,
    living,
    moment,
    settings_of,
)
from reranker_operator.core.wording import quote
from reranker_operator.core.world import Manifest, is_leaving
from reranker_operator.render.proxy import CA_VOLUME
from reranker_operator.render.security import KEYS_VOLUME, TLS_VOLUME

#: A volume is mounted, a sandbox made within this time.
_TO_START = datetime.timedelta(seconds=20)
#: A loaded engine is warm within this time.
_TO_ANSWER = datetime.timedelta(seconds=120)
_LONGEST_PAUSE = 600.0
_NOT_YET = frozenset({"ContainerCreating", "PodInitializing", ""})
_MOUNT = frozenset({"FailedMount", "FailedAttachVolume"})
_VOLUME = re.compile(r'for volume "([^"]+)"')
#: Of volumes whose names nobody else may use.
_FIELDS = {
    CA_VOLUME: "spec.caBundle",
    KEYS_VOLUME: "spec.serving.auth.secretRef",
    TLS_VOLUME: "spec.serving.tls.secretName",
}


def is_overdue(pod: Manifest, now: datetime.datetime) -> bool:
    """Time to read the pod's Events."""
    since, patience = _stuck(pod)
    return since is not None and now - since >= patience


def next_look(pods: Iterable[Manifest], now: datetime.datetime) -> float | None:
    """Seconds until a stuck pod's Events are worth another look; None when no pod is stuck."""
    waits = []
    for pod in living(pods):
        since, patience = _stuck(pod)
        since = since or _unbound_since(pod)
        if since is not None:
            stuck, first = (now - since).total_seconds(), patience.total_seconds()
            waits.append(first - stuck if stuck < first else min(stuck, _LONGEST_PAUSE))
    return min(waits, default=None)


def explained(pods: Iterable[Manifest], events: Iterable[Manifest]) -> Finding | None:
    """What the Events of stuck pods say."""
    events = list(events)
    for pod in living(pods):
        if _stuck(pod)[0] is None:
            continue
        for event in about(pod, events):
            found = _told(pod, event)
            if found is not None:
                return found
    return None


def fallen_silent(pods: Iterable[Manifest]) -> Finding | None:
    """Pods that were ready before and are no more, while their containers run."""
    for pod in living(pods):
        name = pod["metadata"]["name"]
        if node_is_silent(pod):
            where = pod.get("spec", {}).get("nodeName", "")
            what = f"node {where} with pod {name} does not answer any more"
            return finding(Reason.NODE_LOST, what, f"see `kubectl describe node {where}`")
        container, started = _unready(pod)
        if _was_ready(pod, started):
            return finding(
                Reason.NOT_ANSWERING,
                f"container {container} of pod {name} has stopped answering its readiness probe",
                f"see `kubectl logs {name} -c {container}`",
            )
    return None


def _stuck(pod: Manifest) -> tuple[datetime.datetime | None, datetime.timedelta]:
    """Since when the pod should be further, and how long that may take."""
    scheduled = condition_of(pod, "PodScheduled")
    if scheduled.get("status") != "True" or is_leaving(pod):
        return None, _TO_START
    statuses = container_statuses(pod)
    waiting = [entry.get("state", {}).get("waiting") for entry in statuses]
    if all(state is not None and state.get("reason", "") in _NOT_YET for state in waiting):
        return moment(scheduled.get("lastTransitionTime")), _TO_START
    started = _unready(pod)[1]
    # What it was about is clear, and its Events would only tell the same.
    return None if _was_ready(pod, started) else started, _TO_ANSWER


def _unbound_since(pod: Manifest) -> datetime.datetime | None:
    """Since when the pod waits for a claim: what Events say of that comes later."""
    scheduled = condition_of(pod, "PodScheduled")
    if scheduled.get("status") == "False" and "unbound" in str(scheduled.get("message")):
        return moment(scheduled.get("lastTransitionTime"))
    return None


def _unready(pod: Manifest) -> tuple[str, datetime.datetime | None]:
    """A container that runs and is started, but not ready: its name, and since when it runs."""
    ready = condition_of(pod, "Ready")
    if ready.get("status") != "False":
        return "", None
    for status in pod.get("status", {}).get("containerStatuses", []):
        running = status.get("state", {}).get("running")
        if running is not None and not status.get("ready") and status.get("started", True):
            return str(status["name"]), moment(running.get("startedAt"))
    return "", None


def _was_ready(pod: Manifest, started: datetime.datetime | None) -> bool:
    """The pod became unready after its container was started, so it was ready between."""
    changed = moment(condition_of(pod, "Ready").get("lastTransitionTime"))
    return started is not None and changed is not None and changed > started


def _fields_of(pod: Manifest, text: str) -> str:
    """The field of the spec that has put a volume there."""
    found = _VOLUME.search(text)
    if found and found[1] in _FIELDS:
        return _FIELDS[found[1]]
    if is_build(pod):
        return "spec.engine.registry, spec.engine.parity.probes or spec.caBundle"
    return "spec.serving.pod.volumes"


def _told(pod: Manifest, event: Manifest) -> Finding | None:
    reason, text, name = event.get("reason"), str(event.get("message", "")), pod["metadata"]["name"]
    if reason in _MOUNT:
        return volumes.unmountable(text, _fields_of(pod, text))
    if reason == "FailedCreatePodSandBox":
        remedy = f"see `kubectl describe pod {name}`, the node's network and runtime"
        what = f"the node can't make the pod: {quote(text)}"
        return finding(Reason.SANDBOX_FAILED, what, remedy)
    if reason == "FailedPostStartHook":
        what = f"a hook of pod {name} fails: {quote(text)}"
        return finding(Reason.HOOK_FAILED, what, "correct the lifecycle in spec.serving.pod")
    if reason == "Unhealthy":
        container = _unready(pod)[0]
        where = f"{settings_of(pod, container)}.resources"
        return finding(
            Reason.PROBE_FAILED,
            f"container {container} of pod {name} does not get ready: {quote(text)}",
            f"see `kubectl logs {name} -c {container}`, and raise {where} if it is slow",
        )
    return None
