"""How the plan of one engine goes on from step to step, and how a step's Job is followed."""

from dataclasses import dataclass, replace

from reranker_contracts import ParityReport, Stage, StageReason
from reranker_operator.api.conditions import (
    Condition,
    ConditionType,
    Reason,
    condition,
    find,
    is_true,
)
from reranker_operator.api.meta import JOB
from reranker_operator.api.v1alpha1 import Attempts, RerankerEngineStatus, StageStatus
from reranker_operator.core import backoff, damage, jobs
from reranker_operator.core.causes.finding import Finding
from reranker_operator.core.jobs import JobView
from reranker_operator.core.plan import Action, Create, Delete
from reranker_operator.core.wording import retried, under_way
from reranker_operator.core.world import EngineWorld

#: What an engine comes through. The first two have its files in the store.
STEPS = (ConditionType.PREPARED, ConditionType.COMPILED, ConditionType.VALIDATED)


@dataclass(frozen=True)
class Progress:
    """What the plan works on from step to step; becomes status in the end."""

    status: RerankerEngineStatus
    attempts: Attempts
    judgements: tuple[Condition, ...] = ()
    actions: tuple[Action, ...] = ()
    requeue_after: float | None = None
    stage: str | None = None

    def judged(self, *judgements: Condition) -> "Progress":
        """With these in place of those of their types."""
        kinds = {entry.type for entry in judgements}
        kept = tuple(entry for entry in self.judgements if entry.type not in kinds)
        return replace(self, judgements=(*kept, *judgements))


def is_built(progress: Progress) -> bool:
    """Whether the engine's files lie in the store."""
    return all(is_true(progress.judgements, kind) for kind in (STEPS[0], STEPS[1]))


def needed(progress: Progress) -> tuple[ConditionType, ...]:
    """The steps that the engine must have come through to be ready.

    One that is left to the pods that serve it can't be waited for.
    """
    validated = find(progress.judgements, ConditionType.VALIDATED)
    left = validated is not None and (validated.status, validated.reason) == (
        "Unknown",
        StageReason.TARGET_ABSENT,
    )
    return STEPS[:2] if left else STEPS


def number_of(progress: Progress) -> int:
    """Attempts are numbered through, so that a Job's name is never used twice."""
    return progress.status.builds + progress.attempts.failures + 1


def view_of(world: EngineWorld, job: str) -> JobView:
    """What the Job of this name is doing."""
    claims = () if world.claim is None else (world.claim,)
    return jobs.view(job, world.jobs, world.pods, world.now, warnings=world.warnings, claims=claims)


def timed(progress: Progress, view: JobView) -> Progress:
    """Keep how long each stage took, the newest run of a stage winning."""
    taken = {entry.name: entry for entry in progress.status.stages}
    for result in view.results:
        name = result.stage.value
        if result.stage is Stage.PUBLISH and Stage.EXPORT in {r.stage for r in view.results}:
            name = "publish-prepared"
        taken[name] = StageStatus(name=name, seconds=round(result.seconds, 1))
    status = progress.status.model_copy(update={"stages": tuple(taken.values())})
    return replace(progress, status=status)


def failed(world: EngineWorld, progress: Progress, view: JobView, kind: ConditionType) -> Progress:
    """The step's Job failed: count it, and say when it is tried again."""
    finding = view.finding or Finding(Reason.CONTAINER_FAILED, "the Job failed")
    attempts = backoff.failed(progress.attempts, finding.reason.value, finding.message, world.now)
    # It failed with the settings of its Job, which may have been changed since.
    attempts = attempts.model_copy(update={"key": view.settings or attempts.key})
    progress = replace(progress, attempts=attempts, stage=finding.reason.value)
    wait = damage.seconds_until_retry(progress.status, attempts, world.now)
    return replace(progress, requeue_after=wait).judged(_retry_judgement(attempts, kind, wait))


def running(progress: Progress, view: JobView, kind: ConditionType) -> Progress:
    """The step's Job runs, or is held up."""
    progress = replace(progress, requeue_after=view.recheck)
    if view.finding is not None:
        progress = replace(progress, stage=view.finding.reason.value)
        return progress.judged(condition(kind, False, view.finding.reason, view.finding.message))
    text = f"{view.stage} is running" if view.stage else "the pod is starting"
    judgements = [_trying(progress, kind, text)]
    if kind is ConditionType.COMPILED:
        judgements.append(condition(ConditionType.VALIDATED, "Unknown", Reason.PENDING, text))
    return progress.judged(*judgements)


def start(world: EngineWorld, progress: Progress, kind: ConditionType, create: Create) -> Progress:
    """Make the step's Job, once the pause after the last failure is over."""
    wait = damage.seconds_until_retry(progress.status, progress.attempts, world.now)
    if wait is None or wait > 0:
        progress = replace(progress, stage=progress.attempts.reason, requeue_after=wait)
        return progress.judged(_retry_judgement(progress.attempts, kind, wait))
    number = number_of(progress)
    # The last failed Job stays, so that its log can be read.
    stale = tuple(
        Delete(JOB, job["metadata"]["name"], job["metadata"]["uid"])
        for job in world.jobs
        if jobs.attempt_of(job, default=number) < number - 1
    )
    progress = replace(progress, actions=(*progress.actions, *stale, create))
    return progress.judged(_trying(progress, kind, "starting"))


def _trying(progress: Progress, kind: ConditionType, text: str) -> Condition:
    """Of a step that failed before it is known what is amiss until it succeeds."""
    before, attempts = find(progress.status.conditions, kind), progress.attempts
    if attempts.reason is None or before is None or before.status != "False":
        return condition(kind, "Unknown", Reason.RUNNING, text)
    message = under_way(attempts.message or "", number_of(progress))
    return Condition(type=kind, status="False", reason=attempts.reason, message=message)


def _retry_judgement(attempts: Attempts, kind: ConditionType, wait: float | None) -> Condition:
    text = attempts.message or ""
    if wait is not None:
        text = retried(text, attempts.failures)
    return Condition(
        type=kind, status="False", reason=attempts.reason or Reason.RETRYING.value, message=text
    )


def published(
    progress: Progress, world: EngineWorld, parity: ParityReport | None, size: int | None
) -> Progress:
    """The engine lies in the store, whoever built it; without a report its pods measure it."""
    status = progress.status.model_copy(
        update={
            "parity": parity,
            "size_bytes": size,
            "ready_time": world.now,
            "outdated_pods": damage.outdated(world),
            "builds": progress.status.builds + progress.attempts.failures,
        }
    )
    attempts = Attempts(key=progress.attempts.key)
    return replace(progress, status=status, attempts=attempts, stage=None).judged(validated(parity))


def validated(parity: ParityReport | None) -> Condition:
    """`Validated` of an engine in the store. What is enough each service says by itself."""
    kind = ConditionType.VALIDATED
    if parity is None:
        text = "built without its GPU; the first pod that serves it measures it, and so does each"
        return condition(kind, "Unknown", StageReason.TARGET_ABSENT, text)
    text = (
        f"Kendall tau {parity.kendall_tau:.4f}, NDCG@10 difference {parity.ndcg10_delta:.4f}, "
        f"largest logit difference {parity.max_abs_diff:.2g} over {parity.pairs} pairs"
    )
    return condition(kind, True, Reason.DONE, text)
