"""The plan of one RerankerEngine: pull, or prepare and compile; stay intact; push."""

from dataclasses import replace

from reranker_contracts import Stage, StageReason
from reranker_operator import names
from reranker_operator.api.conditions import (
    ConditionType,
    Reason,
    condition,
    find,
    is_true,
    merge,
    summarise,
)
from reranker_operator.api.meta import JOB
from reranker_operator.api.v1alpha1 import Attempts
from reranker_operator.core import damage, measured, registry, store
from reranker_operator.core.causes.finding import Finding
from reranker_operator.core.engine_cleanup import plan_cleanup, plan_orphan
from reranker_operator.core.engine_progress import (
    STEPS,
    Progress,
    failed,
    is_built,
    needed,
    number_of,
    published,
    running,
    start,
    timed,
    view_of,
)
from reranker_operator.core.jobs import JobView
from reranker_operator.core.plan import Create, Delete, Plan
from reranker_operator.core.world import EngineWorld, is_leaving
from reranker_operator.render import engines as render
from reranker_operator.render.jobs import compile_job, prepare_job
from reranker_operator.render.pods import store_claim_name

#: Seconds until a claim that is being deleted is looked at again.
_STORE_RECHECK = 5.0
#: The same for a claim of somebody else's that is in the way.
_FOREIGN_RECHECK = 60.0


def plan_engine(world: EngineWorld) -> Plan:
    """Everything that should happen to one engine now."""
    meta = world.engine.metadata
    if meta.deletion_timestamp is not None:
        return plan_cleanup(world)
    if not world.owners:
        return plan_orphan(world)
    status = world.engine.status
    told = registry.told_types(world)
    progress = Progress(
        status=status,
        attempts=status.attempts or Attempts(key=render.settings_key(world.engine.spec)),
        judgements=tuple(entry for entry in status.conditions if entry.type in (*STEPS, *told)),
        actions=store.claim_for_engine(world),
    )
    if world.unknown:
        return _conclude(world, _leave_to_newer(world, progress))
    if _needs_foreign_claim(world):
        return _conclude(world, _refuse_claim(world, progress))
    progress = _notice_settings(world, progress)
    progress = _notice_damage(world, progress)
    shared = world.engine.spec.build.registry
    if shared is not None and registry.wants_pull(world, progress):
        progress = registry.pull(world, progress, shared)
    if not registry.wants_pull(world, progress):
        progress = _build(world, progress)
    if is_built(progress):
        progress = registry.push(world, measured.take_over(world, progress))
    return _conclude(world, progress)


def _build(world: EngineWorld, progress: Progress) -> Progress:
    if not is_true(progress.judgements, ConditionType.PREPARED):
        progress = _prepare(world, progress)
    if is_true(progress.judgements, ConditionType.PREPARED) and not is_built(progress):
        progress = _compile(world, progress)
    return progress


def _leave_to_newer(world: EngineWorld, progress: Progress) -> Progress:
    """What is built serves; to build it, all of its spec would have to be understood."""
    step = next((kind for kind in STEPS if not is_true(progress.judgements, kind)), None)
    if step is None:
        return progress
    text = (
        f"{world.unknown[0]} is known to newer operators only; upgrade "
        "the operator, or delete this RerankerEngine"
    )
    reason = Reason.INVALID_SPEC
    return replace(progress, stage=reason.value).judged(condition(step, False, reason, text))


def _needs_foreign_claim(world: EngineWorld) -> bool:
    """Somebody's own claim has the name of the one that would be made."""
    if world.claim is None or world.engine.spec.store.existing_claim:
        return False
    return store.is_foreign(world.claim)


def _refuse_claim(world: EngineWorld, progress: Progress) -> Progress:
    name = store_claim_name(world.engine.spec.store)
    text = (
        f"PersistentVolumeClaim {name} exists and was not made by this operator; name it in "
        "spec.engine.store.existingClaim to use it, or rename it"
    )
    reason = Reason.FOREIGN_OWNER
    return replace(progress, stage=reason.value, requeue_after=_FOREIGN_RECHECK).judged(
        condition(ConditionType.PREPARED, False, reason, text)
    )


def _notice_settings(world: EngineWorld, progress: Progress) -> Progress:
    """Changed settings of the build get an attempt at once, whatever happened before."""
    key, failures = render.settings_key(world.engine.spec), progress.attempts.failures
    if progress.attempts.key != key:
        progress = _afresh(progress, key, failures)
    step = "compile" if is_true(progress.judgements, ConditionType.PREPARED) else "prepare"
    name = names.stage_job(world.engine.metadata.name, step, number_of(progress))
    view = view_of(world, name)
    if view.state != "running" or view.finding is None or view.settings == key:
        return progress
    # A Job that is stuck, say at a missing secret, would hold the new settings up for hours.
    progress = _afresh(progress, key, progress.attempts.failures + 1)
    stop = Delete(JOB, name, view.uid)
    return replace(progress, actions=(*progress.actions, stop))


def _afresh(progress: Progress, key: str, attempts: int) -> Progress:
    """Forget this many attempts, but not their numbers."""
    builds = progress.status.builds + attempts
    status = progress.status.model_copy(update={"builds": builds})
    return replace(progress, status=status, attempts=Attempts(key=key))


def _notice_damage(world: EngineWorld, progress: Progress) -> Progress:
    """A serving pod's verify step failed after the last publish: build the files again."""
    seen = damage.found(world)
    if seen is None or not is_built(progress):
        return progress
    status, attempts = damage.record(seen, progress.status, progress.attempts, world.now)
    text = attempts.message or ""
    progress = replace(progress, status=status, attempts=attempts)
    return registry.damaged(world, progress).judged(
        condition(ConditionType.COMPILED, False, StageReason.CHECKSUM_MISMATCH, text),
    )


def _prepare(world: EngineWorld, progress: Progress) -> Progress:
    name = names.stage_job(world.engine.metadata.name, "prepare", number_of(progress))
    view = view_of(world, name)
    progress = replace(progress, stage=view.stage or "prepare").judged(
        condition(ConditionType.COMPILED, "Unknown", Reason.WAITING_FOR_PREPARED, ""),
        condition(ConditionType.VALIDATED, "Unknown", Reason.WAITING_FOR_PREPARED, ""),
    )
    if view.state == "succeeded":
        done = condition(ConditionType.PREPARED, True, Reason.DONE, "ONNX and tokeniser are ready")
        return timed(progress, view).judged(done)
    if view.state == "absent" and not progress.attempts.failures and _is_prepared(world):
        # Not seen: the compile Job looks, and after its failure all of it is made.
        text = "ONNX and tokeniser are ready, they were made for another engine"
        return progress.judged(condition(ConditionType.PREPARED, True, Reason.DONE, text))
    if view.state == "failed":
        return failed(world, progress, view, ConditionType.PREPARED)
    if view.state == "running":
        return running(progress, view, ConditionType.PREPARED)
    job = prepare_job(world.engine, number_of(progress), world.defaults, store.retention(world))
    return start(world, progress, ConditionType.PREPARED, Create(job))


def _is_prepared(world: EngineWorld) -> bool:
    """For another engine with files in the same store, say of another precision."""
    prepared = world.engine.spec.identity.prepared
    return any(
        other.has_prepared and other.digests[1] == prepared for other in store.sharing(world)
    )


def _compile(world: EngineWorld, progress: Progress) -> Progress:
    name = names.stage_job(world.engine.metadata.name, "compile", number_of(progress))
    view = view_of(world, name)
    progress = replace(progress, stage=view.stage or "compile")
    if view.state == "succeeded":
        return _published(world, progress, view)
    if view.state == "failed":
        if _prepared_is_damaged(view):
            text = "the prepared model is damaged; preparing it again"
            progress = progress.judged(
                condition(ConditionType.PREPARED, False, StageReason.CHECKSUM_MISMATCH, text)
            )
        return failed(world, progress, view, ConditionType.COMPILED)
    if view.state == "running":
        return running(progress, view, ConditionType.COMPILED)
    job = compile_job(world.engine, number_of(progress), world.defaults, store.retention(world))
    return start(world, progress, ConditionType.COMPILED, Create(job))


def _prepared_is_damaged(view: JobView) -> bool:
    result = view.result(Stage.COMPILE)
    return result is not None and result.reason is StageReason.CHECKSUM_MISMATCH


def _published(world: EngineWorld, progress: Progress, view: JobView) -> Progress:
    validated, written = view.result(Stage.VALIDATE), view.result(Stage.PUBLISH)
    parity = validated.parity if validated else None
    left_to_pods = validated is not None and validated.reason is StageReason.TARGET_ABSENT
    if parity is None and not left_to_pods:
        text = "the compile Job left no parity report"
        # A reason that is tried again: the pod went away before anybody read it.
        lost = JobView("failed", finding=Finding(Reason.POD_KILLED, text))
        return failed(world, progress, lost, ConditionType.VALIDATED)
    progress = registry.built_here(timed(progress, view))
    size = written.size_bytes if written else None
    return published(progress, world, parity, size).judged(
        condition(ConditionType.COMPILED, True, Reason.DONE, "the engine is published")
    )


def _conclude(world: EngineWorld, progress: Progress) -> Plan:
    meta = world.engine.metadata
    ordered = [
        find(progress.judgements, kind) or condition(kind, "Unknown", Reason.PENDING, "")
        for kind in STEPS
    ]
    beside = [find(progress.judgements, kind) for kind in registry.told_types(world)]
    judgements = [*ordered, *filter(None, beside), summarise(ordered, needed(progress))]
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
