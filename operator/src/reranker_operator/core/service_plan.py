"""The plan of one RerankerService: accept → resolve → engine → rollout → status."""

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
from reranker_operator.api.meta import POD, RERANKER_ENGINE
from reranker_operator.api.v1alpha1 import EngineSummary, RerankerServiceStatus
from reranker_operator.core import diagnose
from reranker_operator.core.plan import Action, Delete, Plan, Release
from reranker_operator.core.resolve import Resolution, resolve
from reranker_operator.core.rollout import (
    Rollout,
    live_deployments,
    revision_of,
    roll_out,
)
from reranker_operator.core.service_engine import EngineStep, engine_step, waiting_for_model
from reranker_operator.core.store import claims_for_service
from reranker_operator.core.world import Manifest, ServiceWorld
from reranker_operator.render import engines as render
from reranker_operator.source import SourceError, parse

_ORDER = (
    ConditionType.ACCEPTED,
    ConditionType.MODEL_RESOLVED,
    ConditionType.ENGINE_READY,
    ConditionType.SERVING,
)


def plan_service(world: ServiceWorld) -> Plan:
    """Everything that should happen to one service now."""
    if world.service.metadata.deletion_timestamp is not None:
        return Plan(details=("garbage collection removes what the service owns",))
    accepted = _accept(world)
    if accepted.status != "True":
        hold = roll_out(world, None)
        waiting = waiting_for_model()
        unresolved = condition(
            ConditionType.MODEL_RESOLVED, "Unknown", Reason.PENDING, accepted.message
        )
        resolution = Resolution(unresolved, attempts=world.service.status.resolve)
        return _conclude(world, accepted, resolution, EngineStep(waiting), hold)
    resolution = resolve(world)
    engine = engine_step(world, resolution)
    ready = engine.engine if is_true([engine.judgement], ConditionType.ENGINE_READY) else None
    return _conclude(world, accepted, resolution, engine, roll_out(world, ready))


def _accept(world: ServiceWorld) -> Condition:
    try:
        parse(world.service.spec.model.source)
    except SourceError as error:
        return condition(ConditionType.ACCEPTED, False, Reason.UNKNOWN_SOURCE, str(error))
    return condition(ConditionType.ACCEPTED, True, Reason.ACCEPTED, "the spec can be carried out")


def _conclude(
    world: ServiceWorld,
    accepted: Condition,
    resolution: Resolution,
    engine: EngineStep,
    rollout: Rollout,
) -> Plan:
    serving, progressing = _judge_serving(world, rollout, engine)
    judgements = [accepted, resolution.judgement, engine.judgement, serving]
    ready = summarise(judgements, _ORDER)
    if ready.status == "True" and rollout.rolling:
        ready = condition(ConditionType.READY, False, Reason.ROLLING, progressing.message)
    judgements += [progressing, ready]
    actions = (
        *resolution.actions,
        *engine.actions,
        *rollout.actions,
        *_restart_damaged(world, engine, rollout),
        # Before the engines: a claim is only let go of while an engine owns it too.
        *claims_for_service(world),
        *_release(world, engine, rollout),
    )
    return Plan(
        actions=actions,
        judgements=tuple(judgements),
        status=_status(world, resolution, engine, rollout, judgements),
        requeue_after=resolution.requeue_after,
    )


def _pods_of(world: ServiceWorld, revision: str | None) -> list[Manifest]:
    return [pod for pod in world.pods if revision is not None and revision_of(pod) == revision]


def _judge_serving(
    world: ServiceWorld, rollout: Rollout, engine: EngineStep
) -> tuple[Condition, Condition]:
    """`Serving`: do any pods answer. `Progressing`: is a change under way."""
    wanted = world.service.spec.replicas
    entry = live_deployments(world).get(rollout.serving or "")
    ready = entry.get("status", {}).get("readyReplicas", 0) if entry else 0
    target = rollout.wanted or rollout.serving
    pods = _pods_of(world, target)
    finding = diagnose.crashing(pods) or diagnose.blocked(pods) or _no_node(world)
    counted = f"{ready} of {wanted} pods are ready"
    if wanted == 0:
        serving = condition(
            ConditionType.SERVING, False, Reason.SCALED_TO_ZERO,
            "spec.replicas is 0; raise it to serve",
        )  # fmt: skip
    elif ready > 0:
        serving = condition(ConditionType.SERVING, True, Reason.AVAILABLE, counted)
    elif finding is not None:
        serving = condition(ConditionType.SERVING, False, finding.reason, finding.message)
    elif target is None:
        serving = condition(
            ConditionType.SERVING, False, Reason.WAITING_FOR_ENGINE, "waits for the engine"
        )
    else:
        serving = condition(ConditionType.SERVING, False, Reason.STARTING, counted)
    return serving, _judge_progress(
        rollout, engine, finding, complete=ready == wanted, counted=counted
    )


def _judge_progress(
    rollout: Rollout,
    engine: EngineStep,
    finding: diagnose.Finding | None,
    *,
    complete: bool,
    counted: str,
) -> Condition:
    kind = ConditionType.PROGRESSING
    if engine.judgement.status != "True":
        return condition(kind, True, Reason.WAITING_FOR_ENGINE, engine.judgement.message)
    if rollout.rolling:
        if finding is not None:
            text = f"revision {rollout.wanted} does not start: {finding.message}"
            return condition(kind, True, finding.reason, text)
        text = f"revision {rollout.wanted} is starting"
        return condition(kind, True, Reason.ROLLING, text)
    if not complete:
        return condition(kind, True, Reason.STARTING, counted)
    return condition(kind, False, Reason.STABLE, f"revision {rollout.serving} serves")


def _no_node(world: ServiceWorld) -> diagnose.Finding | None:
    """Known before any pod was made: no node could ever take a serving pod."""
    accelerator = world.service.spec.accelerator
    if world.nodes is None or accelerator.type == "none":
        return None
    resource, count = accelerator.resource_name or "nvidia.com/gpu", accelerator.count or 1
    selector = accelerator.node_selector or {}
    for node in world.nodes:
        labels = node["metadata"].get("labels", {})
        free = str(node.get("status", {}).get("allocatable", {}).get(resource, 0))
        if (
            free.isdecimal()
            and int(free) >= count
            and all(labels.get(key) == value for key, value in selector.items())
        ):
            return None
    wish = f"{count} {resource}" + (f" and labels {selector}" if selector else "")
    return diagnose.Finding(
        Reason.NO_MATCHING_NODE,
        f"none of {len(world.nodes)} nodes has {wish}; add such a node or change spec.accelerator",
    )


def _restart_damaged(
    world: ServiceWorld, engine: EngineStep, rollout: Rollout
) -> tuple[Action, ...]:
    """Pods that stopped at damaged files start over at once when the files are whole again."""
    if engine.engine is None or rollout.wanted is None:
        return ()
    published = engine.engine.status.ready_time
    return tuple(
        Delete(POD, pod["metadata"]["name"], pod["metadata"]["uid"])
        for pod in _pods_of(world, rollout.wanted)
        if (damage := diagnose.verify_failure(pod)) is not None
        and published is not None
        and damage.seen_at <= published
        and "deletionTimestamp" not in pod["metadata"]
    )


def _release(world: ServiceWorld, engine: EngineStep, rollout: Rollout) -> tuple[Action, ...]:
    """Let go of engines that neither run nor are wanted."""
    uid, used = world.service.metadata.uid, _used(world, engine)
    return tuple(
        Release(RERANKER_ENGINE, name, names.owner_manager(uid))
        for name, owners in sorted(world.engine_owners.items())
        if uid in owners and name not in used
    )


def _used(world: ServiceWorld, engine: EngineStep) -> set[str | None]:
    """Names of the engines that run or are wanted."""
    running = {_serving_engine(entry) for entry in live_deployments(world).values()}
    if engine.name is not None:
        return running | {engine.name}
    # The same source will hardly become another engine, only because it is resolved again for
    # another secret or a newer builder: its build goes on.
    source = world.service.spec.model.source
    same = {entry.metadata.name for entry in world.engines if entry.spec.source.source == source}
    return running | same


def _status(
    world: ServiceWorld,
    resolution: Resolution,
    engine: EngineStep,
    rollout: Rollout,
    judgements: list[Condition],
) -> RerankerServiceStatus:
    service, meta = world.service, world.service.metadata
    entry = live_deployments(world).get(rollout.serving or "")
    observed = entry.get("status", {}) if entry else {}
    ready = observed.get("readyReplicas", 0)
    selector = f"{names.SERVICE_LABEL}={meta.name}"
    if rollout.serving:
        selector += f",{names.REVISION_LABEL}={rollout.serving}"
    return RerankerServiceStatus(
        observed_generation=meta.generation,
        conditions=tuple(merge(service.status.conditions, judgements, meta.generation, world.now)),
        stage=_stage(world, engine, rollout, judgements),
        model=resolution.model or service.status.model,
        resolve=resolution.attempts,
        engine=_serving_engine(entry) or engine.name,
        engines=_summaries(world, engine),
        revision=rollout.serving,
        replicas=observed.get("replicas", 0),
        ready_replicas=ready,
        ready=f"{ready}/{service.spec.replicas}",
        selector=selector,
        url=names.url(meta.name, meta.namespace) if world.k8s_service else None,
    )


def _serving_engine(deployment: Manifest | None) -> str | None:
    return deployment["metadata"]["labels"].get(names.ENGINE_LABEL) if deployment else None


def _stage(
    world: ServiceWorld, engine: EngineStep, rollout: Rollout, judgements: list[Condition]
) -> str:
    """One word for the table that `kubectl get` prints."""
    for entry in judgements:
        if entry.status == "False" and entry.type in (
            ConditionType.ACCEPTED, ConditionType.MODEL_RESOLVED, ConditionType.ENGINE_READY,
        ):  # fmt: skip
            return entry.reason
    if not is_true(judgements, ConditionType.MODEL_RESOLVED):
        return "Resolving"
    if not is_true(judgements, ConditionType.ENGINE_READY):
        stage = engine.engine.status.stage if engine.engine else None
        return stage or "Pending"
    if rollout.rolling and rollout.serving is not None:
        return "Rolling"
    serving = find(judgements, ConditionType.SERVING)
    if serving is not None and serving.status != "True":
        return serving.reason
    return "Serving"


def _summaries(world: ServiceWorld, engine: EngineStep) -> tuple[EngineSummary, ...]:
    # Only those whose changes this service will hear of: not the ones it releases now, nor one
    # that still runs here but was made anew for somebody else.
    uid, used = world.service.metadata.uid, _used(world, engine)
    rows = []
    for entry in sorted(world.engines, key=lambda item: item.metadata.name):
        name = entry.metadata.name
        owned = uid in world.engine_owners.get(name, frozenset())
        if name not in used or not (owned or name == engine.name):
            continue
        ready = is_true(entry.status.conditions, ConditionType.READY)
        seconds = sum(stage.seconds for stage in entry.status.stages)
        rows.append(
            EngineSummary(
                name=name,
                target=render.target_of(entry.spec.identity),
                state="Ready" if ready else "Building",
                stage=entry.status.stage,
                size_bytes=entry.status.size_bytes,
                parity=entry.status.parity,
                seconds=round(seconds, 1) if entry.status.stages else None,
            )
        )
    return tuple(rows)
