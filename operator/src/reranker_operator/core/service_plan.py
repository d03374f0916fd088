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
from reranker_operator.api.meta import DEPLOYMENT, POD, RERANKER_ENGINE
from reranker_operator.core import activation, damage, diagnose, references
from reranker_operator.core.autoscale import observe
from reranker_operator.core.autoscale.costs import mark_idlest
from reranker_operator.core.autoscale.judge import judge_autoscaling
from reranker_operator.core.changes import pending_changes
from reranker_operator.core.companions import RECHECK, companions, other_owner
from reranker_operator.core.judge import Sight, held_up, judge_serving, next_look
from reranker_operator.core.plan import Action, Apply, Delete, Plan, Release
from reranker_operator.core.progress import follow
from reranker_operator.core.replicas import hand_over, is_noted, scale_status
from reranker_operator.core.resolve import Resolution, resolve
from reranker_operator.core.revisions import carries_out_spec, engine_of, revision_of
from reranker_operator.core.rollout import Rollout, roll_out
from reranker_operator.core.service_engine import EngineStep, engine_step, waiting_for_model
from reranker_operator.core.service_status import status_of, used_engines
from reranker_operator.core.sizes import too_large
from reranker_operator.core.store import claims_for_service
from reranker_operator.core.wording import advise
from reranker_operator.core.world import ServiceWorld, is_leaving, title_of
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
    world = observe.decided(world)
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
    if (missing := references.missing(world)) is not None:
        # The engine can be built meanwhile; pods would only wait in the kubelet's hands.
        accepted, ready = missing, None
    elif (refused := too_large(world, engine.planned)) is not None:
        accepted, ready = refused, None
    rollout = roll_out(world, ready)
    if (left := _leave_to_newer(world, rollout)) is not None:
        accepted, rollout = left, roll_out(world, None)
    return _conclude(world, accepted, resolution, engine, rollout)


def _accept(world: ServiceWorld) -> Condition:
    model = world.service.spec.model
    try:
        parse(model.source)
        if model.adapter is not None:
            parse(model.adapter.source, "model.adapter.source")
    except SourceError as error:
        return condition(ConditionType.ACCEPTED, False, Reason.UNKNOWN_SOURCE, str(error))
    taken = other_owner(world.stranger, world.service) if world.stranger else None
    if taken is not None and taken.reason == Reason.FOREIGN_OWNER:
        # Told before hours of building: the address could not be made in the end.
        return condition(ConditionType.ACCEPTED, False, Reason.FOREIGN_OWNER, taken.message)
    return condition(ConditionType.ACCEPTED, True, Reason.ACCEPTED, "the spec can be carried out")


def _leave_to_newer(world: ServiceWorld, rollout: Rollout) -> Condition | None:
    """`Accepted` where pods would be made anew without what only a newer operator knows.

    What was made, or begun, goes on: with newer definitions any spec may have such keys by default.
    """
    status = world.service.status
    begun = {rollout.serving, status.revision, status.rollout and status.rollout.revision}
    anew = rollout.wish.template is not None and rollout.wanted not in {None, *begun}
    if not world.unknown or not anew:
        return None
    text = advise(
        f"{world.unknown[0]} is known to newer operators only, and new pods would lack it",
        "upgrade the operator, or remove the field",
    )
    return condition(ConditionType.ACCEPTED, False, Reason.INVALID_SPEC, text)


def _conclude(
    world: ServiceWorld,
    accepted: Condition,
    resolution: Resolution,
    engine: EngineStep,
    rollout: Rollout,
) -> Plan:
    steps = [resolution.judgement, engine.judgement]
    changes = pending_changes(world, rollout.serving, engine.planned)
    sight = Sight(
        rollout,
        changes,
        follow(world, rollout, changes),
        scale_status(world, rollout.applied),
        world.service.spec.rollout.paused,
    )
    serving, progressing = judge_serving(world, sight, accepted, steps)
    beside = companions(world, engine.name, rollout)
    judgements = [accepted, *held_up(world, steps), serving, beside.judgement]
    ready = summarise(judgements, _ORDER)
    if ready.status == "True" and sight.unfinished and not carries_out_spec(world):
        ready = progressing.model_copy(
            update={"type": ConditionType.READY.value, "status": "False"}
        )
    judgements += [progressing, *judge_autoscaling(world, sight.scale), ready]
    actions = (
        *activation.actions(world, led=beside.led),
        *mark_idlest(world, rollout),
        *activation.lead(world, rollout.actions),
        *_restart_damaged(world),
    )
    # Nobody tells of the end of somebody else's Service or engine.
    reasons = (accepted.reason, engine.judgement.reason)
    taken = RECHECK if Reason.FOREIGN_OWNER in reasons else None
    return Plan(
        first=(
            *hand_over(world.service),
            *beside.before,
            *resolution.actions,
            *engine.actions,
        ),
        actions=actions,
        last=(
            # Before the engines: a claim is only let go of while an engine owns it too.
            *claims_for_service(world, engine.name),
            *_release(world, engine, rollout),
        ),
        beside=beside.after,
        alone=_alone(world, actions),
        beside_alone=_without_new(world, beside.after),
        judgements=tuple(judgements),
        status=status_of(
            world, resolution, engine, sight, judgements=judgements, outside=beside.url
        ),
        requeue_after=_sooner(
            resolution.requeue_after,
            sight.progress.wake_after,
            beside.requeue_after,
            taken,
            next_look(world, rollout),
            observe.next_look(world),
            activation.next_look(world),
        ),
        noted=is_noted(world.service, sight.scale),
        # A revision that is judged must not wait for what is amiss elsewhere, nor must the load.
        on_time=sight.progress.decides_after is not None
        or world.service.spec.autoscaling is not None,
    )


def _sooner(*waits: float | None) -> float | None:
    return min((wait for wait in waits if wait is not None), default=None)


def _alone(world: ServiceWorld, actions: tuple[Action, ...]) -> tuple[Action, ...]:
    """What goes on for the pods that there are: new ones wait for their policies and engine."""
    if not _makes_pods_anew(world, actions):
        return actions
    kept = activation.lead(world, roll_out(world, None).actions)
    return () if _makes_pods_anew(world, kept) else kept


def _makes_pods_anew(world: ServiceWorld, actions: tuple[Action, ...]) -> bool:
    """One of them makes a Deployment that is not there yet."""
    there = {deployment["metadata"]["name"] for deployment in world.deployments}
    asked = (title_of(action.manifest) for action in actions if isinstance(action, Apply))
    return any(kind == DEPLOYMENT.kind and name not in there for kind, name in asked)


def _without_new(world: ServiceWorld, beside: tuple[Action, ...]) -> tuple[Action, ...]:
    """No address is opened before the policies of its pods."""
    there = {title_of(entry) for entry in world.companions}
    return tuple(
        action
        for action in beside
        if not isinstance(action, Apply) or title_of(action.manifest) in there
    )


def _restart_damaged(world: ServiceWorld) -> tuple[Action, ...]:
    """Pods that stopped at damaged files start over at once when the files are whole again."""
    whole = {
        entry.metadata.name: entry.status
        for entry in world.engines
        if is_true(entry.status.conditions, ConditionType.READY)
    }
    return tuple(
        Delete(POD, pod["metadata"]["name"], pod["metadata"]["uid"])
        for pod in world.pods
        if revision_of(pod) is not None
        and diagnose.verify_failure(pod) is not None
        and (published := whole.get(engine_of(pod) or "")) is not None
        and damage.is_outdated(pod, published)
        and not is_leaving(pod)
    )


def _release(world: ServiceWorld, engine: EngineStep, rollout: Rollout) -> tuple[Action, ...]:
    """Let go of engines that neither run nor are wanted."""
    uid, used = world.service.metadata.uid, used_engines(world, engine)
    return tuple(
        Release(RERANKER_ENGINE, name, names.owner_manager(uid))
        for name, owners in sorted(world.engine_owners.items())
        if uid in owners and name not in used
    )
