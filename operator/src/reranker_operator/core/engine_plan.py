"""The plan of one RerankerEngine: prepare, compile, stay intact."""

from dataclasses import dataclass, replace

from reranker_contracts import Stage, StageReason
from reranker_operator import names
from reranker_operator.api.conditions import (
    Condition,
    ConditionType,
    Reason,
    condition,
    find,
    is_true,
    merge,
    summarise,
)
from reranker_operator.api.meta import JOB
from reranker_operator.api.v1alpha1 import (
    Attempts,
    RerankerEngineStatus,
    StageStatus,
)
from reranker_operator.core import backoff, damage, jobs, store
from reranker_operator.core.causes.finding import Finding
from reranker_operator.core.engine_cleanup import plan_cleanup, plan_orphan
from reranker_operator.core.jobs import JobView
from reranker_operator.core.plan import Action, Create, Delete, Plan
from reranker_operator.core.wording import retried, under_way
from reranker_operator.core.world import EngineWorld, is_leaving
from reranker_operator.render import engines as render
from reranker_operator.render.jobs import compile_job, prepare_job
from reranker_operator.render.pods import store_claim_name

#: Seconds until a claim that is being deleted is looked at again.
_STORE_RECHECK = 5.0
#: The same for a claim of somebody else's that is in the way.
_FOREIGN_RECHECK = 60.0
_ORDER = (ConditionType.PREPARED, ConditionType.COMPILED, ConditionType.VALIDATED)


@dataclass(frozen=True)
class _Progress:
    """What the plan works on from step to step; becomes status in the end."""

    status: RerankerEngineStatus
    attempts: Attempts
    judgements: tuple[Condition, ...] = ()
    actions: tuple[Action, ...] = ()
    requeue_after: float | None = None
    stage: str | None = None

    def judged(self, *judgements: Condition) -> "_Progress":
        kinds = {entry.type for entry in judgements}
        kept = tuple(entry for entry in self.judgements if entry.type not in kinds)
        return replace(self, judgements=(*kept, *judgements))


def plan_engine(world: EngineWorld) -> Plan:
    """Everything that should happen to one engine now."""
    meta = world.engine.metadata
    if meta.deletion_timestamp is not None:
        return plan_cleanup(world)
    if not world.owners:
        return plan_orphan(world)
    status = world.engine.status
    progress = _Progress(
        status=status,
        attempts=status.attempts or Attempts(key=render.settings_key(world.engine.spec)),
        judgements=tuple(entry for entry in status.conditions if entry.type in _ORDER),
        actions=store.claim_for_engine(world),
    )
    if _needs_foreign_claim(world):
        return _conclude(world, _refuse_claim(world, progress))
    progress = _notice_settings(world, progress)
    progress = _notice_damage(world, progress)
    if not is_true(progress.judgements, ConditionType.PREPARED):
        progress = _prepare(world, progress)
    if is_true(progress.judgements, ConditionType.PREPARED) and not _built(progress):
        progress = _compile(world, progress)
    return _conclude(world, progress)


def _built(progress: _Progress) -> bool:
    return all(is_true(progress.judgements, kind) for kind in _ORDER)


def _needs_foreign_claim(world: EngineWorld) -> bool:
    """Somebody's own claim has the name of the one that would be made."""
    if world.claim is None or world.engine.spec.store.existing_claim:
        return False
    return store.is_foreign(world.claim)


def _refuse_claim(world: EngineWorld, progress: _Progress) -> _Progress:
    name = store_claim_name(world.engine.spec.store)
    text = (
        f"PersistentVolumeClaim {name} exists and was not made by this operator; name it in "
        "spec.engine.store.existingClaim to use it, or rename it"
    )
    reason = Reason.FOREIGN_OWNER
    return replace(progress, stage=reason.value, requeue_after=_FOREIGN_RECHECK).judged(
        condition(ConditionType.PREPARED, False, reason, text)
    )


def _notice_settings(world: EngineWorld, progress: _Progress) -> _Progress:
    """Changed settings of the build get an attempt at once, whatever happened before."""
    key, failures = render.settings_key(world.engine.spec), progress.attempts.failures
    if progress.attempts.key != key:
        progress = _afresh(progress, key, failures)
    step = "compile" if is_true(progress.judgements, ConditionType.PREPARED) else "prepare"
    name = names.stage_job(world.engine.metadata.name, step, _number(progress))
    view = _view(world, name)
    if view.state != "running" or view.finding is None or view.settings == key:
        return progress
    # A Job that is stuck, say at a missing secret, would hold the new settings up for hours.
    progress = _afresh(progress, key, progress.attempts.failures + 1)
    stop = Delete(JOB, name, view.uid)
    return replace(progress, actions=(*progress.actions, stop))


def _afresh(progress: _Progress, key: str, attempts: int) -> _Progress:
    """Forget this many attempts, but not their numbers."""
    builds = progress.status.builds + attempts
    status = progress.status.model_copy(update={"builds": builds})
    return replace(progress, status=status, attempts=Attempts(key=key))


def _notice_damage(world: EngineWorld, progress: _Progress) -> _Progress:
    """A serving pod's verify step failed after the last publish: build the files again."""
    seen = damage.found(world)
    if seen is None or not _built(progress):
        return progress
    status, attempts = damage.record(seen, progress.status, progress.attempts, world.now)
    text = attempts.message or ""
    return replace(progress, status=status, attempts=attempts).judged(
        condition(ConditionType.COMPILED, False, StageReason.CHECKSUM_MISMATCH, text),
    )


def _number(progress: _Progress) -> int:
    """Attempts are numbered through, so that a Job's name is never used twice."""
    return progress.status.builds + progress.attempts.failures + 1


def _view(world: EngineWorld, job: str) -> JobView:
    claims = () if world.claim is None else (world.claim,)
    return jobs.view(job, world.jobs, world.pods, world.now, warnings=world.warnings, claims=claims)


def _prepare(world: EngineWorld, progress: _Progress) -> _Progress:
    name = names.stage_job(world.engine.metadata.name, "prepare", _number(progress))
    view = _view(world, name)
    progress = replace(progress, stage=view.stage or "prepare").judged(
        condition(ConditionType.COMPILED, "Unknown", Reason.WAITING_FOR_PREPARED, ""),
        condition(ConditionType.VALIDATED, "Unknown", Reason.WAITING_FOR_PREPARED, ""),
    )
    if view.state == "succeeded":
        done = condition(ConditionType.PREPARED, True, Reason.DONE, "ONNX and tokeniser are ready")
        return _timed(progress, view).judged(done)
    if view.state == "failed":
        return _failed(world, progress, view, ConditionType.PREPARED)
    if view.state == "running":
        return _running(progress, view, ConditionType.PREPARED)
    job = prepare_job(world.engine, _number(progress), world.defaults, store.retention(world))
    return _start(world, progress, ConditionType.PREPARED, Create(job))


def _compile(world: EngineWorld, progress: _Progress) -> _Progress:
    name = names.stage_job(world.engine.metadata.name, "compile", _number(progress))
    view = _view(world, name)
    progress = replace(progress, stage=view.stage or "compile")
    if view.state == "succeeded":
        return _published(world, progress, view)
    if view.state == "failed":
        if _prepared_is_damaged(view):
            text = "the prepared model is damaged; preparing it again"
            progress = progress.judged(
                condition(ConditionType.PREPARED, False, StageReason.CHECKSUM_MISMATCH, text)
            )
        return _failed(world, progress, view, ConditionType.COMPILED)
    if view.state == "running":
        return _running(progress, view, ConditionType.COMPILED)
    job = compile_job(world.engine, _number(progress), world.defaults, store.retention(world))
    return _start(world, progress, ConditionType.COMPILED, Create(job))


def _prepared_is_damaged(view: JobView) -> bool:
    result = view.result(Stage.COMPILE)
    return result is not None and result.reason is StageReason.CHECKSUM_MISMATCH


def _published(world: EngineWorld, progress: _Progress, view: JobView) -> _Progress:
    validated, published = view.result(Stage.VALIDATE), view.result(Stage.PUBLISH)
    parity = validated.parity if validated else None
    if parity is None:
        text = "the compile Job left no parity report"
        # A reason that is tried again: the pod went away before anybody read it.
        lost = JobView("failed", finding=Finding(Reason.POD_KILLED, text))
        return _failed(world, progress, lost, ConditionType.VALIDATED)
    progress = _timed(progress, view)
    status = progress.status.model_copy(
        update={
            "parity": parity,
            "size_bytes": published.size_bytes if published else None,
            "ready_time": world.now,
            "builds": progress.status.builds + progress.attempts.failures,
        }
    )
    text = (
        f"Kendall tau {parity.kendall_tau:.4f}, NDCG@10 difference {parity.ndcg10_delta:.4f}, "
        f"largest logit difference {parity.max_abs_diff:.2g} over {parity.pairs} pairs"
    )
    attempts = Attempts(key=progress.attempts.key)
    return replace(progress, status=status, attempts=attempts, stage=None).judged(
        condition(ConditionType.COMPILED, True, Reason.DONE, "the engine is published"),
        condition(ConditionType.VALIDATED, True, Reason.DONE, text),
    )


def _timed(progress: _Progress, view: JobView) -> _Progress:
    """Keep how long each stage took, the newest run of a stage winning."""
    taken = {entry.name: entry for entry in progress.status.stages}
    for result in view.results:
        name = result.stage.value
        if result.stage is Stage.PUBLISH and Stage.EXPORT in {r.stage for r in view.results}:
            name = "publish-prepared"
        taken[name] = StageStatus(name=name, seconds=round(result.seconds, 1))
    status = progress.status.model_copy(update={"stages": tuple(taken.values())})
    return replace(progress, status=status)


def _failed(
    world: EngineWorld, progress: _Progress, view: JobView, kind: ConditionType
) -> _Progress:
    finding = view.finding or Finding(Reason.CONTAINER_FAILED, "the Job failed")
    attempts = backoff.failed(progress.attempts, finding.reason.value, finding.message, world.now)
    # It failed with the settings of its Job, which may have been changed since.
    attempts = attempts.model_copy(update={"key": view.settings or attempts.key})
    progress = replace(progress, attempts=attempts, stage=finding.reason.value)
    wait = damage.seconds_until_retry(progress.status, attempts, world.now)
    return replace(progress, requeue_after=wait).judged(_retry_judgement(attempts, kind, wait))


def _running(progress: _Progress, view: JobView, kind: ConditionType) -> _Progress:
    progress = replace(progress, requeue_after=view.recheck)
    if view.finding is not None:
        progress = replace(progress, stage=view.finding.reason.value)
        return progress.judged(condition(kind, False, view.finding.reason, view.finding.message))
    text = f"{view.stage} is running" if view.stage else "the pod is starting"
    judgements = [_trying(progress, kind, text)]
    if kind is ConditionType.COMPILED:
        judgements.append(condition(ConditionType.VALIDATED, "Unknown", Reason.PENDING, text))
    return progress.judged(*judgements)


def _start(
    world: EngineWorld, progress: _Progress, kind: ConditionType, create: Create
) -> _Progress:
    wait = damage.seconds_until_retry(progress.status, progress.attempts, world.now)
    if wait is None or wait > 0:
        progress = replace(progress, stage=progress.attempts.reason, requeue_after=wait)
        return progress.judged(_retry_judgement(progress.attempts, kind, wait))
    number = _number(progress)
    # The last failed Job stays, so that its log can be read.
    stale = tuple(
        Delete(JOB, job["metadata"]["name"], job["metadata"]["uid"])
        for job in world.jobs
        if jobs.attempt_of(job, default=number) < number - 1
    )
    progress = replace(progress, actions=(*progress.actions, *stale, create))
    return progress.judged(_trying(progress, kind, "starting"))


def _trying(progress: _Progress, kind: ConditionType, text: str) -> Condition:
    """Of a step that failed before it is known what is amiss until it succeeds."""
    before, attempts = find(progress.status.conditions, kind), progress.attempts
    if attempts.reason is None or before is None or before.status != "False":
        return condition(kind, "Unknown", Reason.RUNNING, text)
    message = under_way(attempts.message or "", _number(progress))
    return Condition(type=kind, status="False", reason=attempts.reason, message=message)


def _retry_judgement(attempts: Attempts, kind: ConditionType, wait: float | None) -> Condition:
    text = attempts.message or ""
    if wait is not None:
        text = retried(text, attempts.failures)
    return Condition(
        type=kind, status="False", reason=attempts.reason or Reason.RETRYING.value, message=text
    )


def _conclude(world: EngineWorld, progress: _Progress) -> Plan:
    meta = world.engine.metadata
    ordered = [
        find(progress.judgements, kind) or condition(kind, "Unknown", Reason.PENDING, "")
        for kind in _ORDER
    ]
    judgements = [*ordered, summarise(ordered, _ORDER)]
    ready = judgements[-1].status == "True"
    status = progress.status.model_copy(
        update={
            "observed_generation": meta.generation,
            "conditions": tuple(
                merge(world.engine.status.conditions, judgements, meta.generation, world.now)
            ),
            "stage": "Ready" if ready else _title(progress.stage or "pending"),
            "attempts": progress.attempts if progress.attempts.failures else None,
        }
    )
    leaving = world.claim is not None and is_leaving(world.claim)
    return Plan(
        actions=progress.actions,
        judgements=tuple(judgements),
        status=status,
        requeue_after=_STORE_RECHECK if leaving else progress.requeue_after,
    )


def _title(stage: str) -> str:
    return stage[:1].upper() + stage[1:]
