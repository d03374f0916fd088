"""Before an engine is built: whether the registry has it. After that: bringing it there.

Neither may stop what works without: a registry that is down, or that has something else than it
should, costs one look, and the engine is built here. What happened is told by the conditions
`Pulled` and `Pushed`, which `Ready` does not depend on. Only with `build: false` the registry is
where the engine has to come from, and is asked until it has it.
"""

from dataclasses import replace

from reranker_contracts import ParityReport, Stage, StageReason
from reranker_contracts.targets import MEASURED_IN_PODS
from reranker_operator import names
from reranker_operator.api.conditions import ConditionType, Reason, condition, find, is_true
from reranker_operator.api.meta import JOB
from reranker_operator.api.registry import EngineRegistry
from reranker_operator.api.v1alpha1 import Attempts, EngineOrigin, EngineRegistryStatus
from reranker_operator.core import backoff, store
from reranker_operator.core.causes.finding import Finding, finding
from reranker_operator.core.engine_progress import (
    STEPS,
    Progress,
    failed,
    is_built,
    number_of,
    published,
    running,
    start,
    timed,
    view_of,
)
from reranker_operator.core.jobs import JobView
from reranker_operator.core.plan import Create, Delete
from reranker_operator.core.wording import advise, retried
from reranker_operator.core.world import EngineWorld
from reranker_operator.render import registry as render
from reranker_operator.render.jobs import pull_job, push_job

#: A pod that lacks one of these waits for it without end.
_MISSING = frozenset(
    {
        Reason.SECRET_NOT_FOUND,
        Reason.SECRET_KEY_NOT_FOUND,
        Reason.CONFIG_MAP_NOT_FOUND,
        Reason.MOUNT_FAILED,
    }
)


def told_types(world: EngineWorld) -> tuple[ConditionType, ...]:
    """Conditions that there are beside those of the steps."""
    registry = world.engine.spec.build.registry
    asked = (registry is not None and registry.pull, registry is not None and registry.push)
    kinds = (ConditionType.PULLED, ConditionType.PUSHED)
    return tuple(kind for kind, wanted in zip(kinds, asked, strict=True) if wanted)


def wants_pull(world: EngineWorld, progress: Progress) -> bool:
    """The engine is not there, and the registry has not been asked with these settings."""
    registry = world.engine.spec.build.registry
    if registry is None or not registry.pull or is_built(progress):
        return False
    return not registry.build or _status(progress).asked != render.asked_key(registry)


def pull(world: EngineWorld, progress: Progress, registry: EngineRegistry) -> Progress:
    """Follow the Job that asks the registry; afterwards the engine is there, or is to be built."""
    kind = next(kind for kind in STEPS if not is_true(progress.judgements, kind))
    attempt = f"{render.asked_key(registry)}/{number_of(progress)}"
    name = names.registry_job(world.engine.metadata.name, "pull", attempt)
    view = view_of(world, name)
    progress = _without_others(world, progress, name)
    progress = replace(progress, stage="pull")
    before = find(progress.judgements, ConditionType.PULLED)
    # Where it is asked again and again, what it said last stands until it says something else.
    if registry.build or before is None or before.status != "False":
        asking = condition(ConditionType.PULLED, "Unknown", Reason.RUNNING, "the registry is asked")
        progress = progress.judged(asking)
    if view.state == "absent":
        job = pull_job(world.engine, attempt, world.defaults, store.retention(world))
        return start(world, progress, kind, Create(job))
    if view.state == "running":
        if view.finding is None or not registry.build or view.finding.reason not in _MISSING:
            return running(progress, view, kind)
        stop = Delete(JOB, name, view.uid)
        progress = replace(progress, actions=(*progress.actions, stop))
    result = view.result(Stage.PULL)
    measured_later = world.engine.spec.identity.runtime in MEASURED_IN_PODS
    if view.state == "succeeded" and result and (result.parity or measured_later):
        return _pulled(world, progress, view, result.parity, registry)
    why = view.finding or Finding(Reason.POD_KILLED, "the pull Job left no parity report")
    if not registry.build:
        lost = replace(view, state="failed", finding=why)
        return failed(world, progress, lost, kind).judged(
            condition(ConditionType.PULLED, False, why.reason, why.message)
        )
    progress = _with_status(progress, asked=render.asked_key(registry))
    text = advise(why.message, "the engine is built here")
    return replace(progress, stage=None).judged(
        condition(ConditionType.PULLED, False, why.reason, text)
    )


def _pulled(
    world: EngineWorld,
    progress: Progress,
    view: JobView,
    parity: ParityReport | None,
    registry: EngineRegistry,
) -> Progress:
    reference = render.reference(world.engine, registry)
    trusted = registry.require_signed
    origin = EngineOrigin(reference=reference, checked_with=trusted.title if trusted else None)
    result = view.result(Stage.PULL)
    progress = published(
        _with_status(timed(progress, view), origin=origin, asked=None),
        world,
        parity,
        result.size_bytes if result else None,
    )
    signed = f", signed with the key in {trusted.title}" if trusted else ""
    text = f"the engine came from {reference}{signed}"
    return progress.judged(
        condition(ConditionType.PREPARED, True, Reason.DONE, text),
        condition(ConditionType.COMPILED, True, Reason.DONE, text),
        condition(ConditionType.PULLED, True, Reason.DONE, text),
    )


def built_here(progress: Progress) -> Progress:
    """What is in the store now was built here, wherever its forerunner came from."""
    if progress.status.registry is None:
        return progress
    return _with_status(progress, origin=None)


def damaged(world: EngineWorld, progress: Progress) -> Progress:
    """The files in the store are not whole: the registry may have them.

    Of an engine that came from there nothing was prepared here. Found damaged again at once, it is
    not what pods want in the registry either, and is built.
    """
    registry = world.engine.spec.build.registry
    if progress.status.registry is None:
        return progress
    foreign = _status(progress).origin is not None
    if not foreign:
        return _with_status(progress, asked=None)
    again = progress.status.damages > 1
    asked = render.asked_key(registry) if registry is not None and again else None
    progress = _with_status(progress, asked=asked)
    text = "the engine came from the registry"
    return progress.judged(
        condition(ConditionType.PREPARED, False, StageReason.CHECKSUM_MISMATCH, text)
    )


def push(world: EngineWorld, progress: Progress) -> Progress:
    """Bring an engine that is ready to the registry, if that is asked for."""
    registry, status = world.engine.spec.build.registry, _status(progress)
    if registry is None or not registry.push:
        return progress
    reference = render.reference(world.engine, registry)
    came = status.origin is not None and status.origin.reference == reference
    if came and registry.sign_key is None:
        text = f"{reference} is where the engine came from"
        return progress.judged(condition(ConditionType.PUSHED, True, Reason.DONE, text))
    if status.pushed == render.pushed_key(registry):
        text = f"the registry has it as {reference}"
        return progress.judged(condition(ConditionType.PUSHED, True, Reason.DONE, text))
    if registry.sign_key is not None and not _may_be_signed(status.origin, registry):
        return _not_signed(world, progress)
    return _follow_push(world, progress, registry, reference)


def _follow_push(
    world: EngineWorld, progress: Progress, registry: EngineRegistry, reference: str
) -> Progress:
    status = _status(progress)
    key = render.asked_key(registry)
    attempts = status.push if status.push and status.push.key == key else Attempts(key=key)
    attempt = f"{key}/{attempts.failures + 1}"
    name = names.registry_job(world.engine.metadata.name, "push", attempt)
    view = view_of(world, name)
    if view.state == "succeeded":
        progress = _with_status(
            timed(progress, view), pushed=render.pushed_key(registry), push=None
        )
        text = f"the registry has it as {reference}"
        return progress.judged(condition(ConditionType.PUSHED, True, Reason.DONE, text))
    if view.state == "running":
        progress = replace(progress, requeue_after=view.recheck)
        told = condition(ConditionType.PUSHED, "Unknown", Reason.RUNNING, f"to {reference}")
        if view.finding is not None:
            told = condition(ConditionType.PUSHED, False, *view.finding)
        return progress.judged(told)
    if view.state == "failed":
        why = view.finding or finding(Reason.CONTAINER_FAILED, "the push Job failed", "see its log")
        attempts = backoff.failed(attempts, why.reason.value, why.message, world.now)
        progress = _with_status(progress, push=attempts)
    return _push_again(world, progress, attempts, name)


def _may_be_signed(origin: EngineOrigin | None, registry: EngineRegistry) -> bool:
    """What was built here, or came with a signature that is trusted here."""
    return origin is None or (
        registry.require_signed is not None and origin.is_checked_with(registry.require_signed)
    )


def _not_signed(world: EngineWorld, progress: Progress) -> Progress:
    """Whoever may write to the registry would have our signature under whatever they put there."""
    status = _status(progress)
    came = status.origin.reference if status.origin else ""
    text = advise(
        f"the engine came from {came} and was not checked with a key that is trusted here, so it "
        "is neither signed nor pushed",
        "set pull to false in spec.engine.registry, or requireSigned to the key of who built it, "
        "then delete this RerankerEngine",
    )
    # A Job of former settings would sign it.
    progress = _without_others(world, progress, "", step="push")
    told = condition(ConditionType.PUSHED, False, StageReason.SIGNATURE_INVALID, text)
    return progress.judged(told)


def _push_again(world: EngineWorld, progress: Progress, attempts: Attempts, name: str) -> Progress:
    """After the pause that a failure is followed by; nothing depends on it, so it never ends."""
    wait = backoff.pause_left(attempts, world.now)
    kind = ConditionType.PUSHED
    if wait > 0:
        text = retried(attempts.message or "", attempts.failures)
        told = condition(kind, False, Reason.RETRYING, text).model_copy(
            update={"reason": attempts.reason}
        )
        return replace(progress, requeue_after=wait).judged(told)
    progress = _without_others(world, progress, name, step="push")
    job = push_job(world.engine, f"{attempts.key}/{attempts.failures + 1}", world.defaults)
    progress = replace(progress, actions=(*progress.actions, Create(job)))
    if attempts.failures:
        return progress
    return progress.judged(condition(kind, "Unknown", Reason.RUNNING, "starting"))


def _without_others(
    world: EngineWorld, progress: Progress, name: str, step: str = "pull"
) -> Progress:
    """Without the Jobs of other settings and former attempts, which may be stuck."""
    others = tuple(
        Delete(JOB, job["metadata"]["name"], job["metadata"]["uid"])
        for job in world.jobs
        if job["metadata"]["labels"].get(names.STAGE_LABEL) == step
        and job["metadata"]["name"] != name
    )
    return replace(progress, actions=(*progress.actions, *others))


def _status(progress: Progress) -> EngineRegistryStatus:
    return progress.status.registry or EngineRegistryStatus()


def _with_status(progress: Progress, **changes: object) -> Progress:
    status = _status(progress).model_copy(update=changes)
    return replace(progress, status=progress.status.model_copy(update={"registry": status}))
