"""What the conditions of one RerankerService say about its pods and changes under way."""

from reranker_operator.api.conditions import Condition, ConditionType, Reason, condition
from reranker_operator.core import diagnose
from reranker_operator.core.rollout import (
    Rollout,
    carries_out_spec,
    engine_of,
    live_deployments,
    pods_of,
    serving_revision,
)
from reranker_operator.core.service_engine import judge_engine
from reranker_operator.core.world import ServiceWorld


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


def _finding(world: ServiceWorld, revision: str | None) -> diagnose.Finding | None:
    """What keeps the pods of a revision from serving."""
    pods = pods_of(world, revision)
    return (
        diagnose.crashing(pods)
        or diagnose.blocked(pods)
        or diagnose.refused_deployment(live_deployments(world).get(revision or ""))
        or _no_node(world)
    )


def _judge_progress(
    rollout: Rollout,
    steps: list[Condition],
    finding: diagnose.Finding | None,
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
