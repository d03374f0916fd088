"""Why a pod does not get on: one reason and what to do, from what the pod itself says."""

import datetime
import re
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from pydantic import ValidationError

from reranker_contracts import Stage, StageReason, StageResult
from reranker_operator.api.conditions import Reason
from reranker_operator.core.wording import advise
from reranker_operator.core.world import Manifest

_PULL = {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"}
_CONFIG = {"CreateContainerConfigError", "CreateContainerError"}
_KILLED_EXIT_CODES = {137, 143}
#: `secret "hub" not found` and `couldn't find key token in Secret shop/hub`.
_MISSING_SECRET = re.compile(r"secret .*not found|find key .* in secret", re.IGNORECASE)

#: A controller's words around the API server's, with a pod's name that differs each time.
_REFUSAL = re.compile(r'^(error creating: )?(pods? "[^"]*" is forbidden: )?', re.IGNORECASE)
_WORDS = 400


class Finding(NamedTuple):
    """A reason of the API and a message with the remedy."""

    reason: Reason | StageReason
    message: str


def results(pods: Iterable[Manifest]) -> list[StageResult]:
    """Stage results in the pods' termination messages, in container order."""
    found = []
    for pod in pods:
        for status in container_statuses(pod):
            for state in (status.get("state", {}), status.get("lastState", {})):
                result = _result(state.get("terminated"))
                if result is not None:
                    found.append(result)
                    break
    return found


def container_statuses(pod: Manifest) -> list[dict[str, Any]]:
    """Statuses of init containers, then of containers."""
    status = pod.get("status", {})
    return [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]


def current_container(pod: Manifest, ignore: frozenset[str] = frozenset()) -> str | None:
    """Name of the container that the pod has got to; None before any of them has started.

    Between two containers that is the next one, so that progress never seems to go back.
    """
    started = False
    for status in container_statuses(pod):
        state = status.get("state", {})
        done = state.get("terminated", {}).get("exitCode") == 0
        if status["name"] in ignore:
            continue
        if not done:
            return str(status["name"]) if started or "running" in state else None
        started = True
    return None


def blocked(pods: Iterable[Manifest]) -> Finding | None:
    """What keeps a pod from starting, while it has not failed."""
    for pod in pods:
        if "deletionTimestamp" in pod["metadata"]:
            continue
        for finding in _blockers(pod):
            return finding
    return None


def refused_job(warnings: Iterable[Manifest]) -> Finding | None:
    """Why a Job's controller may not make its pod, by the newest of its Events."""
    refusals = [entry for entry in warnings if entry.get("reason") == "FailedCreate"]
    if not refusals:
        return None
    newest = max(refusals, key=lambda entry: str(entry.get("lastTimestamp") or ""))
    return _refused(str(newest.get("message", "")), "spec.engine.resources")


def refused_deployment(deployment: Manifest | None) -> Finding | None:
    """Why a Deployment's controller may not make its pods."""
    for entry in (deployment or {}).get("status", {}).get("conditions", []):
        if entry["type"] == "ReplicaFailure" and entry["status"] == "True":
            return _refused(str(entry.get("message", "")), "the resources in spec.serving")
    return None


def _refused(text: str, field: str) -> Finding:
    text = _REFUSAL.sub("", text)[:_WORDS]
    if "exceeded quota" in text:
        remedy = f"raise the namespace's ResourceQuota or lower {field}"
        return Finding(Reason.QUOTA_EXCEEDED, advise(f"no pod may be made: {text}", remedy))
    remedy = f"change the limit or policy that refuses it, or {field}"
    return Finding(Reason.POD_REJECTED, advise(f"no pod may be made: {text}", remedy))


def failure(pods: Iterable[Manifest]) -> Finding | None:
    """Why the pods of a failed Job failed; None when no pod is left to tell."""
    pods = list(pods)
    for result in results(pods):
        if not result.ok:
            return Finding(result.reason, f"{result.stage}: {result.message}")
    for pod in pods:
        for status in container_statuses(pod):
            finding = _terminated(status["name"], status.get("state", {}).get("terminated"))
            if finding:
                return finding
    return None


def crashing(pods: Iterable[Manifest]) -> Finding | None:
    """A serving container that ends again and again.

    Told from the second restart on, also while the container happens to run again, so that the
    condition does not flap with every attempt.
    """
    for pod in pods:
        if "deletionTimestamp" in pod["metadata"]:
            continue
        for status in container_statuses(pod):
            if status.get("ready"):
                continue
            last = status.get("lastState", {}).get("terminated")
            result = _result(status.get("state", {}).get("terminated")) or _result(last)
            if result is not None and not result.ok:
                return Finding(result.reason, result.message)
            waiting = status.get("state", {}).get("waiting", {})
            backing_off = waiting.get("reason") == "CrashLoopBackOff"
            why = _terminated(status["name"], last)
            if why is not None and (backing_off or status.get("restartCount", 0) > 1):
                return _crash(pod, status["name"], why, last)
    return None


def _crash(pod: Manifest, name: str, why: Finding, last: dict[str, Any]) -> Finding:
    if why.reason is Reason.OUT_OF_MEMORY:
        return why
    remedy = f"see `kubectl logs {pod['metadata']['name']} -c {name} --previous`"
    text = advise(f"container {name} keeps ending with {_end(last)}", remedy)
    return Finding(Reason.CRASH_LOOP, text)


def _blockers(pod: Manifest) -> Iterator[Finding]:
    for status in container_statuses(pod):
        waiting = status.get("state", {}).get("waiting", {})
        reason, text = waiting.get("reason", ""), str(waiting.get("message", ""))[:_WORDS]
        if reason in _PULL:
            yield Finding(
                Reason.IMAGE_PULL_FAILED,
                advise(
                    f"container {status['name']}: image {status['image']} can't be pulled: {text}",
                    "check the name and the pull secret",
                ),
            )
        elif reason in _CONFIG and _MISSING_SECRET.search(text):
            yield Finding(
                Reason.SECRET_NOT_FOUND,
                advise(text, "create the Secret or correct spec.model.secretRef"),
            )
        elif reason in _CONFIG:
            yield Finding(
                Reason.CONTAINER_FAILED,
                advise(
                    f"container {status['name']} can't be made: {text}",
                    f"see `kubectl describe pod {pod['metadata']['name']}`",
                ),
            )
    for entry in pod.get("status", {}).get("conditions", []):
        if entry["type"] == "PodScheduled" and entry["status"] == "False":
            text = str(entry.get("message", ""))[:_WORDS]
            if "persistentvolumeclaim" in text.lower() or "volume" in text.lower():
                yield Finding(
                    Reason.VOLUME_PENDING,
                    advise(text, "check the claim and spec.engine.store"),
                )
            elif entry.get("reason") == "Unschedulable":
                yield Finding(
                    Reason.UNSCHEDULABLE,
                    advise(
                        f"no node takes the pod: {text}",
                        "check spec.accelerator, the resources and the cluster's free capacity",
                    ),
                )


def _terminated(name: str, terminated: dict[str, Any] | None) -> Finding | None:
    if not terminated or terminated.get("exitCode", 0) == 0:
        return None
    code = terminated["exitCode"]
    if terminated.get("reason") == "OOMKilled":
        return Finding(
            Reason.OUT_OF_MEMORY,
            f"container {name} ran out of memory; raise its memory limit in spec",
        )
    if code in _KILLED_EXIT_CODES:
        return Finding(Reason.POD_KILLED, f"container {name} was killed (exit code {code})")
    text = f"container {name} ended with {_end(terminated)}"
    return Finding(Reason.CONTAINER_FAILED, advise(text, "see its log"))


def _end(terminated: dict[str, Any]) -> str:
    """Exit code and last words."""
    last_words = str(terminated.get("message", "")).strip().rsplit("\n", 1)[-1][:300]
    return f"exit code {terminated['exitCode']}" + (f": {last_words}" if last_words else "")


def _result(terminated: dict[str, Any] | None) -> StageResult | None:
    if not terminated or not terminated.get("message"):
        return None
    try:
        return StageResult.model_validate_json(terminated["message"])
    except ValidationError:
        # Someone else's message, for example the kubelet's own words about a killed container.
        return None


class Damage(NamedTuple):
    """A serving pod found that the engine's files are not what was published."""

    message: str
    seen_at: datetime.datetime


def verify_failure(pod: Manifest) -> Damage | None:
    """What the pod's verify container complained about last, if it was a checksum."""
    for status in container_statuses(pod):
        if status["name"] != Stage.VERIFY.value:
            continue
        for state in (status.get("state", {}), status.get("lastState", {})):
            terminated = state.get("terminated")
            result = _result(terminated)
            if result is None:
                continue
            if result.ok or result.reason is not StageReason.CHECKSUM_MISMATCH:
                return None
            seen = datetime.datetime.fromisoformat(terminated["finishedAt"])
            return Damage(result.message, seen)
    return None
