"""What a Job is doing, read from the Job and its pods."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Literal

from reranker_contracts import Stage, StageResult
from reranker_operator import names
from reranker_operator.api.conditions import Reason
from reranker_operator.core import diagnose
from reranker_operator.core.diagnose import Finding
from reranker_operator.core.world import Manifest

State = Literal["absent", "running", "succeeded", "failed"]
_HELPERS = frozenset({"tools", "source"})


@dataclass(frozen=True)
class JobView:
    """A Job in short: what it does, what blocks or failed it, which settings it was made with."""

    state: State
    stage: str | None = None
    results: tuple[StageResult, ...] = ()
    finding: Finding | None = None
    settings: str | None = None
    uid: str | None = None

    def result(self, stage: Stage) -> StageResult | None:
        """The result of one stage, when its container has ended."""
        return next((entry for entry in self.results if entry.stage is stage), None)


def view(name: str, jobs: Iterable[Manifest], pods: Iterable[Manifest]) -> JobView:
    """The state of the Job with this name."""
    job = next((entry for entry in jobs if entry["metadata"]["name"] == name), None)
    if job is None or "deletionTimestamp" in job["metadata"]:
        return JobView("absent")
    mine = [pod for pod in pods if _made_by(pod, job)]
    found = tuple(diagnose.results(mine))
    meta = job["metadata"]
    settings = meta.get("annotations", {}).get(names.SETTINGS_ANNOTATION)
    make = partial(JobView, results=found, settings=settings, uid=meta["uid"])
    ended = {
        entry["type"]: entry
        for entry in job.get("status", {}).get("conditions", [])
        if entry.get("status") == "True"
    }
    if "Complete" in ended or "SuccessCriteriaMet" in ended:
        return make("succeeded")
    if "Failed" in ended or "FailureTarget" in ended:
        return make("failed", finding=_why(ended, mine))
    return make("running", stage=_stage(mine), finding=diagnose.blocked(mine))


def attempt_of(job: Manifest, default: int) -> int:
    """The attempt's number in a Job's labels; `default` where somebody wrote something else."""
    text = str(job["metadata"].get("labels", {}).get(names.ATTEMPT_LABEL, ""))
    return int(text) if text.isdecimal() else default


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


def _why(ended: dict[str, Manifest], pods: list[Manifest]) -> Finding:
    entry = ended.get("Failed") or ended["FailureTarget"]
    if entry.get("reason") == "DeadlineExceeded":
        stuck = diagnose.blocked(pods)
        detail = f": {stuck.message}" if stuck else ""
        return Finding(Reason.DEADLINE_EXCEEDED, f"the Job took longer than its deadline{detail}")
    return diagnose.failure(pods) or Finding(
        Reason.POD_KILLED, "the pod was deleted or its node went away before it was done"
    )
