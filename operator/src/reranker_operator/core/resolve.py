"""Step 2: from a model's source to a fixed revision, by a short Job."""

from dataclasses import dataclass, replace

from reranker_contracts import ResolvedModel, Runtimes, Stage, StageReason
from reranker_contracts.base import canonical_json
from reranker_operator import names
from reranker_operator.api.conditions import (
    Condition,
    ConditionType,
    Reason,
    condition,
    is_true,
)
from reranker_operator.api.meta import JOB
from reranker_operator.api.v1alpha1 import (
    Attempts,
    RerankerEngine,
    RerankerService,
    RerankerServiceStatus,
    ResolvedStatus,
)
from reranker_operator.core import backoff, jobs, references
from reranker_operator.core.gpus import gpu_of
from reranker_operator.core.jobs import JobView
from reranker_operator.core.plan import Action, Create, Delete
from reranker_operator.core.wording import retried, under_way
from reranker_operator.core.world import ServiceWorld, is_leaving
from reranker_operator.render import engines
from reranker_operator.render.jobs import resolve_job

#: What fetch says when the source is no longer what resolve has seen.
_MOVED = frozenset(
    reason.value
    for reason in (
        StageReason.SOURCE_CHANGED,
        StageReason.SOURCE_NOT_FOUND,
        StageReason.REVISION_NOT_FOUND,
    )
)


@dataclass(frozen=True)
class Resolution:
    """`model` is None until the source is resolved; `outdated` is one that is gone by now."""

    judgement: Condition
    model: ResolvedStatus | None = None
    outdated: ResolvedStatus | None = None
    attempts: Attempts | None = None
    actions: tuple[Action, ...] = ()
    requeue_after: float | None = None


def resolve_key(world: ServiceWorld) -> str:
    """Hash of everything that the resolution depends on; another key resolves again."""
    spec = world.service.spec
    inputs: dict[str, object] = {
        "model": spec.model.model_dump(mode="json", exclude={"served_name", "aliases"}),
        "maxLength": spec.engine.max_length,
        "builder": spec.engine.image or world.defaults.builder_image,
        "again": world.service.metadata.annotations.get(names.RESOLVE_AGAIN),
    }
    if (probes := spec.engine.parity.probes) is not None:
        inputs["probes"] = [probes.to_dict(), references.of_probes(world)]
    return names.short_hash(canonical_json(inputs), 16)


def _attempts_key(world: ServiceWorld) -> str:
    """Resources, proxy and secrets leave the result as it is, but deserve an attempt at once."""
    resources = world.service.spec.engine.resources
    source = engines.source_of(world.service, references.of_source(world, None))
    settings = canonical_json([resources and resources.to_dict(), source.to_dict()])
    return names.short_hash(f"{resolve_key(world)}/{settings}", 16)


def resolve(world: ServiceWorld) -> Resolution:
    """Where the resolution stands and what to do next."""
    status, key = world.service.status, _attempts_key(world)
    service = world.service.metadata.name
    attempts = status.resolve
    if attempts is None or attempts.key != key:
        attempts = Attempts(key=key)
    if status.model is not None and status.model.key == resolve_key(world):
        return _resolved(world, status.model, attempts)
    number = attempts.failures + 1
    current = names.resolve_job(service, key, number)
    view = jobs.view(
        current,
        world.jobs,
        world.pods,
        world.now,
        warnings=world.warnings,
        claims=world.claims,
    )
    # The last failed Job stays, so that its log can be read while the next attempt waits.
    stale = _delete_jobs(
        world, keep=frozenset({current, names.resolve_job(service, key, number - 1)})
    )
    if view.state == "succeeded":
        return _finished(world, attempts, view)
    if view.state == "failed":
        return _failed(world, attempts, view)
    if view.state == "running":
        return _running(attempts, view, number, stale)
    if (known := _known(world)) is not None:
        return _learnt(world, known, None)
    return _start(world, key, attempts, number, stale)


def _resolved(world: ServiceWorld, model: ResolvedStatus, attempts: Attempts) -> Resolution:
    made = _engines_of(world, model)
    if any(_has_moved(engine, model) for engine in made):
        text = (
            f"the source has changed: revision {model.revision[:19]} of "
            f"{world.service.spec.model.source} can't be fetched any more"
        )
        attempts = backoff.failed(attempts, StageReason.SOURCE_CHANGED.value, text, world.now)
        again = _waiting(world, attempts, ())
        return replace(again, outdated=model.model_copy(update={"key": ""}))
    # Kept until the files are here: a source that changes all the time must not be hurried after.
    fetched = any(is_true(entry.status.conditions, ConditionType.PREPARED) for entry in made)
    return Resolution(
        _found(model),
        model=model,
        attempts=attempts if attempts.failures and not fetched else None,
        actions=_delete_jobs(world, keep=frozenset()),
    )


def _engines_of(world: ServiceWorld, model: ResolvedStatus) -> list[RerankerEngine]:
    """Those of the service's targets that there are already."""
    status = RerankerServiceStatus(model=model, gpu=gpu_of(world))
    wanted = names_of_targets(world, status)
    return [entry for entry in world.engines if entry.metadata.name in wanted]


def names_of_targets(world: ServiceWorld, status: RerankerServiceStatus) -> set[str]:
    """What the engines are called that the service may serve."""
    targets = engines.identities(world.service, status)
    return {engines.engine_name(world.service, status, target) for target in targets}


def lacks_source(engine: RerankerEngine) -> bool:
    """The engine's last attempt ended because its revision can't be fetched."""
    failed = engine.status.attempts
    return failed is not None and failed.reason in _MOVED


def _has_moved(engine: RerankerEngine, model: ResolvedStatus) -> bool:
    """The engine could not fetch the revision after it was found."""
    failed = engine.status.attempts
    if failed is None or not lacks_source(engine):
        return False
    found, since = model.resolved_time, failed.last_failure_time
    return found is None or since is None or since >= found


def _found(model: ResolvedStatus) -> Condition:
    text = f"{model.name} ({model.architecture}) at {model.revision[:19]}"
    return condition(ConditionType.MODEL_RESOLVED, True, Reason.RESOLVED, text)


def _finished(world: ServiceWorld, attempts: Attempts, view: JobView) -> Resolution:
    result = view.result(Stage.RESOLVE)
    if result is None or result.resolved is None:
        return _failed(world, attempts, view)
    return _learnt(world, result.resolved, attempts if attempts.failures else None)


def _learnt(world: ServiceWorld, found: ResolvedModel, attempts: Attempts | None) -> Resolution:
    model = ResolvedStatus(
        key=resolve_key(world),
        revision=found.revision,
        name=found.name,
        architecture=found.architecture,
        family=found.family,
        max_length=found.max_length,
        adapter=found.adapter,
        probes=found.probes,
        toolchain=found.toolchain,
        runtimes=_runtimes(world.service.status.model, found),
        resolved_time=world.now,
    )
    return Resolution(_found(model), model=model, attempts=attempts)


def _runtimes(before: ResolvedStatus | None, found: ResolvedModel) -> Runtimes:
    """With what other nodes' processors were seen to have: which node resolved is chance."""
    seen = set(found.runtimes.cpu_features)
    if before is not None and before.revision == found.revision:
        seen |= set(before.runtimes.cpu_features)
    return found.runtimes.model_copy(update={"cpu_features": tuple(sorted(seen))})


def may_be_known(service: RerankerService) -> bool:
    """The spec names a revision that never has other files."""
    model, annotations = service.spec.model, service.metadata.annotations
    if model.revision is None or names.RESOLVE_AGAIN in annotations:
        return False
    if service.spec.engine.parity.probes is not None:
        return False
    return model.adapter is None or model.adapter.revision is not None


def _known(world: ServiceWorld) -> ResolvedModel | None:
    """What an engine of this namespace was made from, where the spec names that very revision.

    A fixed revision never has other files, and the engine's were fetched: a Job would find the
    same. A branch or tag is never taken for one.
    """
    spec = world.service.spec
    adapter = spec.model.adapter
    if not may_be_known(world.service):
        return None
    for engine in world.engines:
        if (
            engine.spec.prepare.revision == spec.model.revision
            and engine.spec.source.source == spec.model.source
            and engine.spec.source.adapter == (adapter.source if adapter else None)
            and engine.spec.prepare.adapter == (adapter.revision if adapter else None)
            and engine.spec.prepare.scoring == engines.scoring_of(world.service)
            and engine.spec.build.image == (spec.engine.image or world.defaults.builder_image)
            and is_true(engine.status.conditions, ConditionType.PREPARED)
            and (found := engines.resolution_of(engine)) is not None
            and (spec.engine.max_length or 0) <= found.max_length
        ):
            return found
    return None


def _failed(world: ServiceWorld, attempts: Attempts, view: JobView) -> Resolution:
    if view.finding is None:
        reason, message = StageReason.INTERNAL_ERROR.value, "the resolve pod left no result"
    else:
        reason, message = view.finding.reason.value, view.finding.message
    attempts = backoff.failed(attempts, reason, message, world.now)
    return _waiting(world, attempts, ())


def _running(
    attempts: Attempts, view: JobView, number: int, stale: tuple[Action, ...]
) -> Resolution:
    if view.finding is not None:
        judgement = condition(
            ConditionType.MODEL_RESOLVED, False, view.finding.reason, view.finding.message
        )
    else:
        judgement = _trying(attempts, number, "reading the model's files")
    return Resolution(judgement, attempts=attempts, actions=stale, requeue_after=view.recheck)


def _start(
    world: ServiceWorld, key: str, attempts: Attempts, number: int, stale: tuple[Action, ...]
) -> Resolution:
    wait = backoff.seconds_until_retry(attempts, world.now)
    if wait is None or wait > 0:
        return _waiting(world, attempts, stale)
    source = engines.source_of(world.service)
    create = Create(resolve_job(world.service, source, key, number, world.defaults))
    return Resolution(
        _trying(attempts, number, "starting"),
        attempts=attempts,
        actions=(*stale, create),
    )


def _trying(attempts: Attempts, number: int, text: str) -> Condition:
    if attempts.reason is None:
        return condition(ConditionType.MODEL_RESOLVED, "Unknown", Reason.RESOLVING, text)
    return Condition(
        type=ConditionType.MODEL_RESOLVED,
        status="False",
        reason=attempts.reason,
        message=under_way(attempts.message or "", number),
    )


def _waiting(world: ServiceWorld, attempts: Attempts, stale: tuple[Action, ...]) -> Resolution:
    wait = backoff.seconds_until_retry(attempts, world.now)
    text = attempts.message or ""
    if wait is not None:
        text = retried(text, attempts.failures)
    judgement = Condition(
        type=ConditionType.MODEL_RESOLVED,
        status="False",
        reason=attempts.reason or Reason.RETRYING.value,
        message=text,
    )
    return Resolution(judgement, attempts=attempts, actions=stale, requeue_after=wait)


def _delete_jobs(world: ServiceWorld, keep: frozenset[str]) -> tuple[Action, ...]:
    return tuple(
        Delete(JOB, job["metadata"]["name"], job["metadata"]["uid"])
        for job in world.jobs
        if job["metadata"]["name"] not in keep and not is_leaving(job)
    )
