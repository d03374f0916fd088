"""What a Job is doing, read from the Job and its pods."""

import datetime
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Literal

from reranker_contracts import Stage, StageResult
from reranker_operator import names
from reranker_operator.api.conditions import Reason
from reranker_operator.core import diagnose
from reranker_operator.core.causes.finding import Finding, finding
from reranker_operator.core.causes.silence import explained, next_look
from reranker_operator.core.world import Manifest, is_leaving

State = Literal["absent", "running", "succeeded", "failed"]
_HELPERS = frozenset({"tools", "source"})
#: Seconds; the Events that tell why a Job has no pod are not watched.
_RECHECK = 10.0
#: A Job's controller makes its pod well within this time, where it may.
_PATIENCE = datetime.timedelta(seconds=5)


@dataclass(frozen=True)
class JobView:
    """A Job in short: what it does, what blocks or failed it, which settings it was made with.

    `recheck` tells when to look again at what nobody tells of.
    """

    state: State
    stage: str | None = None
    results: tuple[StageResult, ...] = ()
    finding: Finding | None = None
    recheck: float | None = None
    settings: str | None = None
    uid: str | None = None

    def result(self, stage: Stage) -> StageResult | None:
        """The result of one stage, when its container has ended."""
        return next((entry for entry in self.results if entry.stage is stage), None)


def view(
    name: str,
    jobs: Iterable[Manifest],
    pods: Iterable[Manifest],
    now: datetime.datetime,
    *,
    warnings: Iterable[Manifest] = (),
    claims: Iterable[Manifest] = (),
) -> JobView:
    """The state of the Job with this name; `warnings` and `claims` tell what it does not."""
    job = next((entry for entry in jobs if entry["metadata"]["name"] == name), None)
    if job is None or is_leaving(job):
        return JobView("absent")
    mine = [pod for pod in pods if _made_by(pod, job)]
    found = tuple(diagnose.results(mine))
    meta, ended = job["metadata"], _ended(job)
    settings = meta.get("annotations", {}).get(names.SETTINGS_ANNOTATION)
    make = partial(JobView, results=found, settings=settings, uid=meta["uid"])
    if "Complete" in ended or "SuccessCriteriaMet" in ended:
        return make("succeeded")
    if "Failed" in ended or "FailureTarget" in ended:
        return make("failed", finding=_why(job, ended, mine))
    if _is_without_pod(job, mine):
        return make("running", finding=diagnose.refused_job(job, warnings), recheck=_RECHECK)
    return make(
        "running",
        stage=_stage(mine),
        finding=diagnose.blocked(mine, warnings, claims) or explained(mine, warnings),
        recheck=next_look(mine, now),
    )


def is_under_way(job: Manifest) -> bool:
    """It has not ended, as far as its controller has said."""
    return not _ended(job)


def attempt_of(job: Manifest, default: int) -> int:
    """The attempt's number in a Job's labels; `default` where somebody wrote something else."""
    text = str(job["metadata"].get("labels", {}).get(names.ATTEMPT_LABEL, ""))
    return int(text) if text.isdecimal() else default


def is_overdue(job: Manifest, pods: Iterable[Manifest], now: datetime.datetime) -> bool:
    """The Job should have a pod by now: its Events tell why it has none."""
    created = datetime.datetime.fromisoformat(job["metadata"]["creationTimestamp"])
    return _is_without_pod(job, pods) and now - created >= _PATIENCE


def _is_without_pod(job: Manifest, pods: Iterable[Manifest]) -> bool:
    under_way = not _ended(job) and not is_leaving(job)
    active = job.get("status", {}).get("active", 0)
    return under_way and not active and not any(_made_by(pod, job) for pod in pods)


def _ended(job: Manifest) -> dict[str, Manifest]:
    conditions = job.get("status", {}).get("conditions", [])
    return {entry["type"]: entry for entry in conditions if entry.get("status") == "True"}


def _made_by(pod: Manifest, job: Manifest) -> bool:
    """By uid: pods of an earlier Job of the same name may still be around."""
    owners = pod["metadata"].get("ownerReferences", [])
    return job["metadata"]["uid"] in {owner["uid"] for owner in owners}


def _stage(pods: list[Manifest]) -> str | None:
    for pod in pods:
        name = diagnose.current_container(pod, ignore=_HELPERS)
        if name is not None:
            return name
    return None


def _why(job: Manifest, ended: dict[str, Manifest], pods: list[Manifest]) -> Finding:
    entry = ended.get("Failed") or ended["FailureTarget"]
    if entry.get("reason") == "DeadlineExceeded":
        seconds, stuck = job.get("spec", {}).get("activeDeadlineSeconds"), diagnose.blocked(pods)
        what = "the Job took longer than its deadline" + (f" of {seconds} s" if seconds else "")
        if stuck is not None:
            return Finding(Reason.DEADLINE_EXCEEDED, f"{what}: {stuck.message}")
        remedy = "raise spec.engine.resources, or the deadline in the operator's chart"
        return finding(Reason.DEADLINE_EXCEEDED, what, remedy)
    return diagnose.failure(pods) or finding(
        Reason.POD_KILLED,
        "the pod was deleted or its node went away before it was done",
        "see `kubectl get events` if it happens again",
    )
