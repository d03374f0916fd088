"""Why a pod does not get on: one reason and what to do, from what the cluster says of it.

The causes themselves are in `causes`, by subject.
"""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from reranker_contracts import ParityReport, Stage, StageReason, StageResult
from reranker_operator.api.conditions import Reason
from reranker_operator.core.causes import containers, images, scheduling
from reranker_operator.core.causes.admission import refused_pod
from reranker_operator.core.causes.endings import ended_from_outside
from reranker_operator.core.causes.finding import Finding, finding
from reranker_operator.core.causes.pods import about, container_statuses, living
from reranker_operator.core.causes.silence import explained, fallen_silent
from reranker_operator.core.wording import quote
from reranker_operator.core.world import Manifest

#: Letters of a stage's own message that fit a condition, with our words around them.
_TOLD = 900


def results(pods: Iterable[Manifest]) -> list[StageResult]:
    """Stage results in the pods' termination messages, in container order."""
    found = []
    for pod in pods:
        for status in container_statuses(pod):
            for state in (status.get("state", {}), status.get("lastState", {})):
                result = containers.stage_result(state.get("terminated"))
                if result is not None:
                    found.append(result)
                    break
    return found


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


def blocked(
    pods: Iterable[Manifest],
    events: Iterable[Manifest] = (),
    claims: Iterable[Manifest] = (),
) -> Finding | None:
    """What keeps a pod from starting, while it has not failed.

    `events` are those about the claims, where they were read.
    """
    events, claims = list(events), list(claims)
    for pod in living(pods):
        for found in _blockers(pod, events, claims):
            return found
    return None


def refused_job(job: Manifest, events: Iterable[Manifest]) -> Finding | None:
    """Why a Job's controller may not make its pod, by the newest of its Events."""
    for entry in about(job, events):
        if entry.get("reason") == "FailedCreate":
            return refused_pod(str(entry.get("message", "")), "spec.engine.resources")
    return None


def refused_deployment(deployment: Manifest | None) -> Finding | None:
    """Why a Deployment's controller may not make its pods."""
    entry = _condition(deployment, "ReplicaFailure")
    if entry.get("status") != "True":
        return None
    return refused_pod(str(entry.get("message", "")), "the resources in spec.serving")


def failure(pods: Iterable[Manifest]) -> Finding | None:
    """Why the pods of a failed Job failed; None when no pod is left to tell."""
    pods = list(pods)
    for result in results(pods):
        if not result.ok:
            return Finding(result.reason, f"{result.stage}: {quote(result.message, _TOLD)}")
    for pod in pods:
        found = ended_from_outside(pod)
        if found is not None:
            return found
        for status in container_statuses(pod):
            found = containers.ended(pod, status["name"], status.get("state", {}).get("terminated"))
            if found is not None:
                return found
    return None


def crashing(pods: Iterable[Manifest]) -> Finding | None:
    """A serving container that ends again and again.

    Told from the second restart on, also while the container happens to run again, so that the
    condition does not flap with every attempt.
    """
    for pod in living(pods):
        for status in container_statuses(pod):
            if status.get("ready"):
                continue
            state, last = status.get("state", {}), status.get("lastState", {}).get("terminated")
            result = containers.stage_result(state.get("terminated"))
            result = result or containers.stage_result(last)
            if result is not None and not result.ok:
                return Finding(result.reason, quote(result.message, _TOLD))
            backing_off = state.get("waiting", {}).get("reason") == "CrashLoopBackOff"
            if last is not None and (backing_off or status.get("restartCount", 0) > 1):
                return containers.crashing(pod, status, last)
    return None


def silent(
    pods: Iterable[Manifest], deployment: Manifest | None, events: Iterable[Manifest] = ()
) -> Finding | None:
    """Pods that run and do not answer: any more, or since they were started."""
    pods = list(pods)
    found = fallen_silent(pods) or explained(pods, events)
    if found is not None:
        return found
    endings = [found for pod in pods if (found := ended_from_outside(pod)) is not None]
    if len(endings) > 1:
        # The first one is replaced at once and no news.
        return endings[-1]
    if _condition(deployment, "Progressing").get("reason") != "ProgressDeadlineExceeded":
        return None
    seconds = (deployment or {}).get("spec", {}).get("progressDeadlineSeconds", 600)
    return finding(
        Reason.PROBE_FAILED,
        f"the pods have not become ready within {seconds} s",
        "see their logs, and raise the resources in spec.serving if they are slow",
    )


def _condition(entry: Manifest | None, kind: str) -> dict[str, Any]:
    conditions = (entry or {}).get("status", {}).get("conditions", [])
    return next((found for found in conditions if found["type"] == kind), {})


def _blockers(pod: Manifest, events: list[Manifest], claims: list[Manifest]) -> Iterator[Finding]:
    for status in container_statuses(pod):
        found = images.unpullable(pod, status) or containers.unmade(pod, status)
        if found is not None:
            yield found
    found = scheduling.unscheduled(pod, claims, events)
    if found is not None:
        yield found


def verify_failure(pod: Manifest) -> str | None:
    """What the pod's verify container complained about last, if it was a checksum."""
    result = _last_result(pod, Stage.VERIFY)
    if result is None or result.reason is not StageReason.CHECKSUM_MISMATCH:
        return None
    return quote(result.message, _TOLD)


class Measured(NamedTuple):
    """A serving pod has measured the engine; no report: its scores are no numbers."""

    parity: ParityReport | None
    message: str


def measured(pod: Manifest) -> Measured | None:
    """What the pod's measure container found last."""
    result = _last_result(pod, Stage.MEASURE)
    if result is None or (result.parity is None and result.ok):
        return None
    return Measured(result.parity, quote(result.message, _TOLD))


def tells_of_engine(pod: Manifest) -> bool:
    """Whether a serving pod has something to say of the engine's files."""
    return verify_failure(pod) is not None or measured(pod) is not None


def _last_result(pod: Manifest, stage: Stage) -> StageResult | None:
    """What the container of this stage has ended with last."""
    for status in container_statuses(pod):
        if status["name"] != stage.value:
            continue
        for state in (status.get("state", {}), status.get("lastState", {})):
            result = containers.stage_result(state.get("terminated"))
            if result is not None:
                return result
    return None


def is_verified(pod: Manifest) -> bool:
    """It has found the engine's files to be what was published."""
    ends = (
        entry.get("state", {}).get("terminated")
        for entry in container_statuses(pod)
        if entry["name"] == Stage.VERIFY.value
    )
    return any(end is not None and end.get("exitCode") == 0 for end in ends)
