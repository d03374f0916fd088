"""The plan of one RerankerEngine: prepare, compile, stay intact, go away cleanly."""

import datetime
from dataclasses import dataclass, replace

from reranker_contracts import Stage, StageReason, digest_of
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
from reranker_operator.api.meta import JOB, RERANKER_ENGINE
from reranker_operator.api.v1alpha1 import (
    Attempts,
    RerankerEngine,
    RerankerEngineStatus,
    StageStatus,
)
from reranker_operator.core import backoff, diagnose, jobs
from reranker_operator.core.jobs import JobView
from reranker_operator.core.plan import Action, Apply, Create, Delete, DropFinalizer, Plan
from reranker_operator.core.wording import retried
from reranker_operator.core.world import EngineWorld
from reranker_operator.render import engines as render
from reranker_operator.render.jobs import compile_job, prepare_job, remove_job
from reranker_operator.render.pods import store_claim_name

#: A new engine gets its first owner in a second write; until then nobody may think it orphaned.
_ORPHAN_GRACE = datetime.timedelta(seconds=60)
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
        return _cleanup(world)
    if not world.owners:
        return _orphan(world)
    status = world.engine.status
    progress = _Progress(
        status=status,
        attempts=status.attempts or Attempts(key="build"),
        judgements=tuple(entry for entry in status.conditions if entry.type in _ORDER),
        actions=_store(world),
    )
    if _claim_is_foreign(world):
        return _conclude(world, _refuse_claim(world, progress))
    progress = _notice_damage(world, progress)
    if not is_true(progress.judgements, ConditionType.PREPARED):
        progress = _prepare(world, progress)
    if is_true(progress.judgements, ConditionType.PREPARED) and not _built(progress):
        progress = _compile(world, progress)
    return _conclude(world, progress)


def _built(progress: _Progress) -> bool:
    return all(is_true(progress.judgements, kind) for kind in _ORDER)


def _claim_is_foreign(world: EngineWorld) -> bool:
    """Somebody's own claim of the store's name: owning it would delete it with the engine."""
    if world.claim is None or world.engine.spec.store.existing_claim:
        return False
    labels = world.claim["metadata"].get("labels", {})
    return bool(labels.get(names.APP_MANAGED_BY) != names.MANAGER)


def _refuse_claim(world: EngineWorld, progress: _Progress) -> _Progress:
    name = store_claim_name(world.engine.spec.store)
    text = (
        f"PersistentVolumeClaim {name} exists and was not made by this operator; name it in "
        "spec.engine.store.existingClaim to use it, or rename it"
    )
    return replace(progress, stage=Reason.REJECTED.value, requeue_after=_FOREIGN_RECHECK).judged(
        condition(ConditionType.PREPARED, False, Reason.REJECTED, text)
    )


def _store(world: EngineWorld) -> tuple[Action, ...]:
    """The store's claim, with this engine among its owners."""
    claim = render.claim(world.engine)
    if claim is None:
        return ()
    actions: list[Action] = []
    live = world.claim
    if _store_is_leaving(world) or _claim_is_foreign(world):
        return ()
    if live is None:
        actions.append(Apply(claim))
    owners = live["metadata"].get("ownerReferences", []) if live else []
    if world.engine.metadata.uid not in {owner["uid"] for owner in owners}:
        name = claim["metadata"]["name"]
        body = render.owner_claim("PersistentVolumeClaim", "v1", name, world.engine)
        actions.append(Apply(body, manager=names.owner_manager(world.engine.metadata.uid)))
    return tuple(actions)


def _store_is_leaving(world: EngineWorld) -> bool:
    """A former engine took the claim along; claims are not watched, so look again soon."""
    return world.claim is not None and "deletionTimestamp" in world.claim["metadata"]


def _notice_damage(world: EngineWorld, progress: _Progress) -> _Progress:
    """A serving pod whose verify step failed after the last publish: build the files again."""
    published = progress.status.ready_time
    if not _built(progress) or published is None:
        return progress
    for pod in world.pods:
        damage = diagnose.verify_failure(pod)
        if damage is None or damage.seen_at <= published:
            continue
        text = f"{damage.message}; building the engine again"
        attempts = backoff.failed(
            progress.attempts, StageReason.CHECKSUM_MISMATCH.value, text, world.now
        )
        return replace(progress, attempts=attempts).judged(
            condition(ConditionType.COMPILED, False, StageReason.CHECKSUM_MISMATCH, text),
        )
    return progress


def _number(progress: _Progress) -> int:
    """Attempts are numbered through, so that a Job's name is never used twice."""
    return progress.status.builds + progress.attempts.failures + 1


def _prepare(world: EngineWorld, progress: _Progress) -> _Progress:
    name = names.stage_job(world.engine.metadata.name, "prepare", _number(progress))
    view = jobs.view(name, world.jobs, world.pods, world.warnings)
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
    create = Create(prepare_job(world.engine, _number(progress), world.defaults))
    return _start(world, progress, ConditionType.PREPARED, create)


def _compile(world: EngineWorld, progress: _Progress) -> _Progress:
    name = names.stage_job(world.engine.metadata.name, "compile", _number(progress))
    view = jobs.view(name, world.jobs, world.pods, world.warnings)
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
    create = Create(compile_job(world.engine, _number(progress), world.defaults))
    return _start(world, progress, ConditionType.COMPILED, create)


def _prepared_is_damaged(view: JobView) -> bool:
    result = view.result(Stage.COMPILE)
    return result is not None and result.reason is StageReason.CHECKSUM_MISMATCH


def _published(world: EngineWorld, progress: _Progress, view: JobView) -> _Progress:
    validated, published = view.result(Stage.VALIDATE), view.result(Stage.PUBLISH)
    parity = validated.parity if validated else None
    if parity is None:
        text = "the compile Job left no parity report"
        # A reason that is tried again: the pod went away before anybody read it.
        lost = JobView("failed", finding=diagnose.Finding(Reason.POD_KILLED, text))
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
    return replace(progress, status=status, attempts=Attempts(key="build"), stage=None).judged(
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
    finding = view.finding or diagnose.Finding(Reason.CONTAINER_FAILED, "the Job failed")
    attempts = backoff.failed(progress.attempts, finding.reason.value, finding.message, world.now)
    progress = replace(progress, attempts=attempts, stage=finding.reason.value)
    wait = backoff.seconds_until_retry(attempts, world.now)
    return replace(progress, requeue_after=wait).judged(_retry_judgement(attempts, kind, wait))


def _running(progress: _Progress, view: JobView, kind: ConditionType) -> _Progress:
    progress = replace(progress, requeue_after=view.recheck)
    if view.finding is not None:
        progress = replace(progress, stage=view.finding.reason.value)
        return progress.judged(condition(kind, False, view.finding.reason, view.finding.message))
    text = f"{view.stage} is running" if view.stage else "the pod is starting"
    judgements = [condition(kind, "Unknown", Reason.RUNNING, text)]
    if kind is ConditionType.COMPILED:
        judgements.append(condition(ConditionType.VALIDATED, "Unknown", Reason.PENDING, text))
    return progress.judged(*judgements)


def _start(
    world: EngineWorld, progress: _Progress, kind: ConditionType, create: Create
) -> _Progress:
    wait = backoff.seconds_until_retry(progress.attempts, world.now)
    if wait is None or wait > 0:
        progress = replace(progress, stage=progress.attempts.reason, requeue_after=wait)
        return progress.judged(_retry_judgement(progress.attempts, kind, wait))
    number = _number(progress)
    # The last failed Job stays, so that its log can be read.
    stale = tuple(
        Delete(JOB, job["metadata"]["name"], job["metadata"]["uid"])
        for job in world.jobs
        if int(job["metadata"]["labels"].get(names.ATTEMPT_LABEL, number)) < number - 1
    )
    progress = replace(progress, actions=(*progress.actions, *stale, create))
    return progress.judged(condition(kind, "Unknown", Reason.RUNNING, "starting"))


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
    return Plan(
        actions=progress.actions,
        judgements=tuple(judgements),
        status=status,
        requeue_after=_STORE_RECHECK if _store_is_leaving(world) else progress.requeue_after,
    )


def _unshared_digests(engine: RerankerEngine, sharing: list[RerankerEngine]) -> list[str]:
    """What may be removed: engines of other names can have the same digests."""
    mine = [engine.spec.digest, digest_of(engine.spec.prepare)]
    used = {other.spec.digest for other in sharing}
    used |= {digest_of(other.spec.prepare) for other in sharing}
    return [digest for digest in mine if digest not in used]


def _title(stage: str) -> str:
    return stage[:1].upper() + stage[1:]


def _orphan(world: EngineWorld) -> Plan:
    meta = world.engine.metadata
    created = meta.creation_timestamp or world.now
    left = (created + _ORPHAN_GRACE - world.now).total_seconds()
    if left > 0:
        return Plan(requeue_after=left, details=("no owner yet",))
    return Plan(
        actions=(Delete(RERANKER_ENGINE, meta.name, meta.uid),),
        details=("no service uses the engine any more",),
    )


def _cleanup(world: EngineWorld) -> Plan:
    """Remove the files, unless the whole store goes with its last engine."""
    meta = world.engine.metadata
    if names.FINALIZER not in meta.finalizers:
        return Plan()
    drop = DropFinalizer(RERANKER_ENGINE, meta.name)
    store = world.engine.spec.store
    sharing = [
        other
        for other in world.siblings
        if store_claim_name(other.spec.store) == store_claim_name(store)
        and other.metadata.deletion_timestamp is None
    ]
    if world.claim is None or not (sharing or store.existing_claim):
        return Plan(actions=(drop,), details=("the store goes with its last engine",))
    builds = [
        Delete(JOB, job["metadata"]["name"], job["metadata"]["uid"])
        for job in world.jobs
        if job["metadata"]["labels"].get(names.STAGE_LABEL) != "remove"
    ]
    view = jobs.view(names.stage_job(meta.name, "remove", 0), world.jobs, world.pods)
    if view.state in ("succeeded", "failed"):
        return Plan(actions=(drop,), details=(f"removal {view.state}",))
    if view.state == "running":
        return Plan(actions=tuple(builds), details=("files are being removed",))
    digests = _unshared_digests(world.engine, sharing)
    if not digests:
        return Plan(actions=(*builds, drop), details=("others use the same files",))
    return Plan(
        actions=(*builds, Create(remove_job(world.engine, digests, world.defaults))),
        details=("removing the engine's files",),
    )
