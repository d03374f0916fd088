"""Step 2: from a model's source to a fixed revision, by a short Job."""

from dataclasses import dataclass

from reranker_contracts import Stage, StageReason
from reranker_contracts.base import canonical_json
from reranker_operator import names
from reranker_operator.api.conditions import Condition, ConditionType, Reason, condition
from reranker_operator.api.meta import JOB
from reranker_operator.api.v1alpha1 import Attempts, EngineSource, ResolvedStatus
from reranker_operator.core import backoff, jobs
from reranker_operator.core.jobs import JobView
from reranker_operator.core.plan import Action, Create, Delete
from reranker_operator.core.world import ServiceWorld
from reranker_operator.render.jobs import resolve_job


@dataclass(frozen=True)
class Resolution:
    """`model` is None until the source is resolved."""

    judgement: Condition
    model: ResolvedStatus | None = None
    attempts: Attempts | None = None
    actions: tuple[Action, ...] = ()
    requeue_after: float | None = None


def resolve_key(world: ServiceWorld) -> str:
    """Hash of everything that the resolution depends on; another key resolves again."""
    spec = world.service.spec
    inputs = {
        "model": spec.model.model_dump(
            mode="json", include={"source", "revision", "secret_ref", "image_pull_secret"}
        ),
        "maxLength": spec.engine.max_length,
        "builder": spec.engine.image or world.defaults.builder_image,
    }
    return names.short_hash(canonical_json(inputs), 16)


def resolve(world: ServiceWorld) -> Resolution:
    """Where the resolution stands and what to do next."""
    status, key = world.service.status, resolve_key(world)
    service = world.service.metadata.name
    if status.model is not None and status.model.key == key:
        model = status.model
        text = f"{model.name} ({model.architecture}) at {model.revision[:19]}"
        return Resolution(
            condition(ConditionType.MODEL_RESOLVED, True, Reason.RESOLVED, text),
            model=model,
            attempts=None,
            actions=_delete_jobs(world, keep=frozenset()),
        )
    # Resources change nothing about the result, but deserve an attempt of their own at once.
    resources = world.service.spec.engine.resources
    key = names.short_hash(f"{key}/{canonical_json(resources and resources.to_dict())}", 16)
    attempts = status.resolve
    if attempts is None or attempts.key != key:
        attempts = Attempts(key=key)
    number = attempts.failures + 1
    current = names.resolve_job(service, key, number)
    view = jobs.view(current, world.jobs, world.pods)
    # The last failed Job stays, so that its log can be read while the next attempt waits.
    stale = _delete_jobs(
        world, keep=frozenset({current, names.resolve_job(service, key, number - 1)})
    )
    if view.state == "succeeded":
        return _finished(world, attempts, view)
    if view.state == "failed":
        return _failed(world, attempts, view)
    if view.state == "running":
        return _running(attempts, view, stale)
    return _start(world, key, attempts, number, stale)


def _finished(world: ServiceWorld, attempts: Attempts, view: JobView) -> Resolution:
    result = view.result(Stage.RESOLVE)
    if result is None or result.resolved is None:
        return _failed(world, attempts, view)
    found = result.resolved
    model = ResolvedStatus(
        key=resolve_key(world),
        revision=found.revision,
        name=found.name,
        architecture=found.architecture,
        family=found.family,
        max_length=found.max_length,
        toolchain=found.toolchain,
    )
    text = f"{model.name} ({model.architecture}) at {model.revision[:19]}"
    return Resolution(
        condition(ConditionType.MODEL_RESOLVED, True, Reason.RESOLVED, text), model=model
    )


def _failed(world: ServiceWorld, attempts: Attempts, view: JobView) -> Resolution:
    if view.finding is None:
        reason, message = StageReason.INTERNAL_ERROR.value, "the resolve pod left no result"
    else:
        reason, message = view.finding.reason.value, view.finding.message
    attempts = backoff.failed(attempts, reason, message, world.now)
    return _waiting(world, attempts, ())


def _running(attempts: Attempts, view: JobView, stale: tuple[Action, ...]) -> Resolution:
    if view.finding is not None:
        judgement = condition(
            ConditionType.MODEL_RESOLVED, False, view.finding.reason, view.finding.message
        )
    else:
        judgement = condition(
            ConditionType.MODEL_RESOLVED, "Unknown", Reason.RESOLVING, "reading the model's files"
        )
    return Resolution(judgement, attempts=attempts, actions=stale)


def _start(
    world: ServiceWorld, key: str, attempts: Attempts, number: int, stale: tuple[Action, ...]
) -> Resolution:
    wait = backoff.seconds_until_retry(attempts, world.now)
    if wait is None or wait > 0:
        return _waiting(world, attempts, stale)
    model = world.service.spec.model
    source = EngineSource(
        source=model.source,
        secret_ref=model.secret_ref,
        image_pull_secret=model.image_pull_secret,
    )
    create = Create(resolve_job(world.service, source, key, number, world.defaults))
    return Resolution(
        condition(ConditionType.MODEL_RESOLVED, "Unknown", Reason.RESOLVING, "starting"),
        attempts=attempts,
        actions=(*stale, create),
    )


def _waiting(world: ServiceWorld, attempts: Attempts, stale: tuple[Action, ...]) -> Resolution:
    wait = backoff.seconds_until_retry(attempts, world.now)
    text = attempts.message or ""
    if wait is not None:
        text = f"{text} (attempt {attempts.failures} failed, will try again)"
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
        if job["metadata"]["name"] not in keep and "deletionTimestamp" not in job["metadata"]
    )
