"""Why a pod does not get on: one reason and what to do, from what the pod itself says."""

import datetime
import re
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from pydantic import ValidationError

from reranker_contracts import Stage, StageReason, StageResult
from reranker_operator.api.conditions import Reason
from reranker_operator.core.world import Manifest

_PULL = {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"}
_CONFIG = {"CreateContainerConfigError", "CreateContainerError"}
_KILLED_EXIT_CODES = {137, 143}
#: `secret "hub" not found` and `couldn't find key token in Secret shop/hub`.
_MISSING_SECRET = re.compile(r"secret .*not found|find key .* in secret", re.IGNORECASE)


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
                return _crash(pod, status["name"], why)
    return None


def _crash(pod: Manifest, name: str, why: Finding) -> Finding:
    if why.reason is Reason.OUT_OF_MEMORY:
        return why
    return Finding(
        Reason.CRASH_LOOP,
        f"container {name} keeps ending ({why.message}); see "
        f"`kubectl logs {pod['metadata']['name']} -c {name} --previous`",
    )


def _blockers(pod: Manifest) -> Iterator[Finding]:
    for status in container_statuses(pod):
        waiting = status.get("state", {}).get("waiting", {})
        reason, text = waiting.get("reason", ""), str(waiting.get("message", ""))[:400]
        if reason in _PULL:
            yield Finding(
                Reason.IMAGE_PULL_FAILED,
                f"image {status['image']} of container {status['name']} can't be pulled: {text}; "
                "check the name and the pull secret",
            )
        elif reason in _CONFIG and _MISSING_SECRET.search(text):
            yield Finding(
                Reason.SECRET_NOT_FOUND,
                f"{text}; create the Secret or correct spec.model.secretRef",
            )
        elif reason in _CONFIG:
            yield Finding(Reason.CONTAINER_FAILED, f"container {status['name']}: {text}")
    for entry in pod.get("status", {}).get("conditions", []):
        if entry["type"] == "PodScheduled" and entry["status"] == "False":
            text = str(entry.get("message", ""))[:400]
            if "persistentvolumeclaim" in text.lower() or "volume" in text.lower():
                yield Finding(
                    Reason.VOLUME_PENDING,
                    f"{text}; check the claim and spec.engine.store",
                )
            elif entry.get("reason") == "Unschedulable":
                yield Finding(
                    Reason.UNSCHEDULABLE,
                    f"no node takes the pod: {text}; check spec.accelerator, the resources and the "
                    "cluster's free capacity",
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
    last_words = str(terminated.get("message", "")).strip().rsplit("\n", 1)[-1][:300]
    detail = f": {last_words}" if last_words else "; see its log"
    return Finding(Reason.CONTAINER_FAILED, f"container {name} ended with exit code {code}{detail}")


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
