"""The plan of one RerankerService: accept → resolve → engine → rollout → status."""

from reranker_operator import names
from reranker_operator.api.conditions import (
    Condition,
    ConditionType,
    Reason,
    condition,
    is_true,
    summarise,
)
from reranker_operator.api.meta import POD, RERANKER_ENGINE
from reranker_operator.core import diagnose
from reranker_operator.core.companions import companions
from reranker_operator.core.judge import held_up, judge_serving
from reranker_operator.core.plan import Action, Delete, Plan, Release
from reranker_operator.core.resolve import Resolution, resolve
from reranker_operator.core.rollout import Rollout, carries_out_spec, pods_of, roll_out
from reranker_operator.core.service_engine import EngineStep, engine_step, waiting_for_model
from reranker_operator.core.service_status import status_of, used_engines
from reranker_operator.core.store import claims_for_service
from reranker_operator.core.world import ServiceWorld
from reranker_operator.source import SourceError, parse

_ORDER = (
    ConditionType.ACCEPTED,
    ConditionType.MODEL_RESOLVED,
    ConditionType.ENGINE_READY,
    ConditionType.SERVING,
    ConditionType.INTEGRATED,
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
    steps = [resolution.judgement, engine.judgement]
    serving, progressing = judge_serving(world, rollout, steps)
    beside = companions(world, engine.name, rollout.actions)
    judgements = [accepted, *held_up(world, steps), serving, beside.judgement]
    ready = summarise(judgements, _ORDER)
    if ready.status == "True" and rollout.rolling and not carries_out_spec(world):
        ready = condition(ConditionType.READY, False, Reason.ROLLING, progressing.message)
    judgements += [progressing, ready]
    actions = (
        *beside.before,
        *resolution.actions,
        *engine.actions,
        *rollout.actions,
        *_restart_damaged(world, engine, rollout),
        # Before the engines: a claim is only let go of while an engine owns it too.
        *claims_for_service(world, engine.name),
        *_release(world, engine, rollout),
        *beside.after,
    )
    delays = (resolution.requeue_after, beside.requeue_after)
    return Plan(
        actions=actions,
        judgements=tuple(judgements),
        status=status_of(
            world, resolution, engine, rollout, judgements=judgements, outside=beside.url
        ),
        requeue_after=min((delay for delay in delays if delay is not None), default=None),
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
        for pod in pods_of(world, rollout.wanted)
        if (damage := diagnose.verify_failure(pod)) is not None
        and published is not None
        and damage.seen_at <= published
        and "deletionTimestamp" not in pod["metadata"]
    )


def _release(world: ServiceWorld, engine: EngineStep, rollout: Rollout) -> tuple[Action, ...]:
    """Let go of engines that neither run nor are wanted."""
    uid, used = world.service.metadata.uid, used_engines(world, engine.name)
    return tuple(
        Release(RERANKER_ENGINE, name, names.owner_manager(uid))
        for name, owners in sorted(world.engine_owners.items())
        if uid in owners and name not in used
    )
