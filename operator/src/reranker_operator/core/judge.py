"""What the conditions of one RerankerService say about its pods and changes under way."""

from reranker_operator.api.conditions import Condition, ConditionType, Reason, condition
from reranker_operator.core import diagnose
from reranker_operator.core.causes import scheduling, silence
from reranker_operator.core.causes.finding import Finding
from reranker_operator.core.rollout import (
    Rollout,
    carries_out_spec,
    engine_of,
    live_deployments,
    pods_of,
    serving_revision,
)
from reranker_operator.core.service_engine import judge_engine
from reranker_operator.core.world import Manifest, ServiceWorld


def held_up(world: ServiceWorld, steps: list[Condition]) -> list[Condition]:
    """Model and engine of what serves, while a new operator or source has them made anew.

    The spec is carried out all the time, so nothing that the user asked for is amiss.
    """
    if not carries_out_spec(world):
        return steps
    entry = live_deployments(world).get(serving_revision(world) or "")
    name = engine_of(entry) or ""
    engine = next((entry for entry in world.engines if entry.metadata.name == name), None)
    ready = judge_engine(world, name, engine)
    if engine is None or ready.status != "True":
        return steps
    text = f"{engine.spec.model_name} at {engine.spec.prepare.revision[:19]}"
    resolved = condition(ConditionType.MODEL_RESOLVED, True, Reason.RESOLVED, text)
    pairs = zip(steps, (resolved, ready), strict=True)
    return [step if step.status == "True" else old for step, old in pairs]


def judge_serving(
    world: ServiceWorld, rollout: Rollout, steps: list[Condition]
) -> tuple[Condition, Condition]:
    """`Serving`: do any pods answer. `Progressing`: is a change under way."""
    wanted, live = world.service.spec.replicas, live_deployments(world)
    entry = live.get(rollout.serving or "")
    ready = entry.get("status", {}).get("readyReplicas", 0) if entry else 0
    target = rollout.wanted or rollout.serving
    finding = _finding(world, target)
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
        rollout, steps, finding, complete=ready == wanted, counted=counted
    )


def _finding(world: ServiceWorld, revision: str | None) -> Finding | None:
    """What keeps the pods of a revision from serving."""
    pods, entry = pods_of(world, revision), live_deployments(world).get(revision or "")
    found = diagnose.crashing(pods) or diagnose.blocked(pods, world.warnings, world.claims)
    if found is not None and found.reason in scheduling.REASONS:
        # The nodes themselves say more than the scheduler does of them.
        return _no_node(world, entry) or found
    return (
        found
        or diagnose.refused_deployment(entry)
        or diagnose.silent(pods, entry, world.warnings)
        or _no_node(world, entry)
    )


def next_look(world: ServiceWorld, rollout: Rollout) -> float | None:
    """Seconds until what nobody tells of the pods is worth another look."""
    return silence.next_look(pods_of(world, rollout.wanted or rollout.serving), world.now)


def _judge_progress(
    rollout: Rollout,
    steps: list[Condition],
    finding: Finding | None,
    *,
    complete: bool,
    counted: str,
) -> Condition:
    kind = ConditionType.PROGRESSING
    for step in steps:
        if step.status != "True":
            return step.model_copy(update={"type": kind.value, "status": "True"})
    if rollout.rolling:
        if finding is not None:
            text = f"revision {rollout.wanted} does not start: {finding.message}"
            return condition(kind, True, finding.reason, text)
        text = f"revision {rollout.wanted} is starting"
        return condition(kind, True, Reason.ROLLING, text)
    if not complete:
        if finding is not None:
            return condition(kind, True, finding.reason, f"{counted}: {finding.message}")
        return condition(kind, True, Reason.STARTING, counted)
    return condition(kind, False, Reason.STABLE, f"revision {rollout.serving} serves")


def _no_node(world: ServiceWorld, deployment: Manifest | None) -> Finding | None:
    """No node could ever take a serving pod; known before any pod was made."""
    accelerator = world.service.spec.accelerator
    if world.nodes is None or accelerator.type == "none":
        return None
    pod = deployment["spec"]["template"]["spec"] if deployment is not None else {}
    tolerations = [entry.to_dict() for entry in accelerator.tolerations]
    return scheduling.no_node(
        world.nodes,
        accelerator.resource_name or "nvidia.com/gpu",
        accelerator.count or 1,
        accelerator.node_selector or {},
        [*tolerations, *pod.get("tolerations", [])],
    )
