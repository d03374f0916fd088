"""What the conditions of one RerankerService say about its pods and changes under way."""

from dataclasses import dataclass

from reranker_operator.api.conditions import Condition, ConditionType, Reason, condition
from reranker_operator.api.rollout import ScaleStatus
from reranker_operator.core import activation
from reranker_operator.core.causes import silence
from reranker_operator.core.causes.finding import Finding
from reranker_operator.core.changes import summary
from reranker_operator.core.obstacles import obstacle
from reranker_operator.core.progress import Progress
from reranker_operator.core.replicas import fight, may_sleep
from reranker_operator.core.revisions import (
    carries_out_spec,
    engine_of,
    in_traffic,
    live_deployments,
    pods_of,
    ready_of,
    serving_revision,
)
from reranker_operator.core.rollout import Rollout
from reranker_operator.core.rollouts.words import judge_way
from reranker_operator.core.service_engine import judge_engine
from reranker_operator.core.wording import advise
from reranker_operator.core.world import ServiceWorld

_NOTHING_SERVES = "nothing is started; set spec.rollout.paused to false to start it"
_LOOK_AT_PODS = "see `kubectl describe pod` and the logs of its pods"


@dataclass(frozen=True)
class Sight:
    """All that is known of the pods and of what changes them."""

    rollout: Rollout
    changes: tuple[str, ...]
    progress: Progress
    scale: ScaleStatus
    paused: bool = False

    @property
    def held_back(self) -> bool:
        """Something would change if the service were not paused."""
        stands = self.paused and self.rollout.wanted is None
        return stands and (bool(self.changes) or self.rollout.serving is None)

    @property
    def unfinished(self) -> bool:
        """The newest spec does not have the traffic yet."""
        wish = self.rollout.wish
        turned_away = wish.given_up is not None or wish.undone
        return self.rollout.rolling or self.held_back or turned_away


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
    world: ServiceWorld, sight: Sight, accepted: Condition, steps: list[Condition]
) -> tuple[Condition, Condition]:
    """`Serving`: do any pods answer. `Progressing`: is a change under way."""
    rollout, wanted = sight.rollout, sight.scale.replicas
    ready = sum(map(ready_of, in_traffic(world, rollout.serving)))
    target = rollout.wanted or rollout.serving
    finding = obstacle(world, target)
    if target is None and accepted.status == "False":
        steps = [accepted, *steps]
    counted = f"{ready} of {wanted} pods are ready"
    if wanted == 0 and (may_sleep(world.service) or world.service.spec.autoscaling is not None):
        text = "no pod is needed; the next request is held until the first one is there"
        if activation.stays_awake(world):
            text = "no pod is needed; they go when the activator has taken over"
        serving = condition(ConditionType.SERVING, True, Reason.SCALED_TO_ZERO, text)
    elif wanted == 0:
        serving = condition(
            ConditionType.SERVING, False, Reason.SCALED_TO_ZERO,
            "spec.replicas is 0; raise it to serve",
        )  # fmt: skip
    elif ready > 0:
        serving = condition(ConditionType.SERVING, True, Reason.AVAILABLE, counted)
    elif finding is not None:
        serving = condition(ConditionType.SERVING, False, finding.reason, finding.message)
    elif target is None and sight.paused:
        serving = condition(ConditionType.SERVING, False, Reason.PAUSED, _NOTHING_SERVES)
    elif target is None and accepted.status == "False":
        text = "no pod is started before the spec is accepted"
        serving = condition(ConditionType.SERVING, False, Reason(accepted.reason), text)
    elif target is None:
        serving = condition(
            ConditionType.SERVING, False, Reason.WAITING_FOR_ENGINE, "waits for the engine"
        )
    elif activation.holds(world) and rollout.serving is not None:
        text = f"{counted}; requests are held until one is"
        serving = condition(ConditionType.SERVING, True, Reason.WAKING, text)
    else:
        serving = condition(ConditionType.SERVING, False, Reason.STARTING, counted)
    if ready == wanted:
        counted = ""
    return serving, _judge_progress(sight, steps, finding, counted)


def next_look(world: ServiceWorld, rollout: Rollout) -> float | None:
    """Seconds until what nobody tells of the pods is worth another look."""
    return silence.next_look(pods_of(world, rollout.wanted or rollout.serving), world.now)


def _judge_progress(
    sight: Sight, steps: list[Condition], finding: Finding | None, lacking: str
) -> Condition:
    """`lacking` counts the pods when some are not ready."""
    kind = ConditionType.PROGRESSING
    if any(step.status == "False" for step in steps) or not sight.held_back:
        for step in steps:
            if step.status != "True":
                return step.model_copy(update={"type": kind.value, "status": "True"})
    if sight.held_back:
        return condition(kind, False, Reason.PAUSED, _held_text(sight))
    way = judge_way(sight.rollout, sight.progress.under_way)
    if way is not None:
        return way
    if sight.progress.overdue:
        return condition(
            kind, False, Reason.PROGRESS_DEADLINE_EXCEEDED, _overdue_text(sight, finding)
        )
    if sight.rollout.rolling:
        waits = sight.scale.replicas > 0 and sight.rollout.given == 0
        return _judge_rolling(sight.rollout, finding, waits=waits)
    return _judge_rest(sight, finding, lacking)


def _judge_rolling(rollout: Rollout, finding: Finding | None, *, waits: bool) -> Condition:
    kind = ConditionType.PROGRESSING
    if finding is not None:
        text = f"revision {rollout.wanted} does not start: {finding.message}"
        return condition(kind, True, finding.reason, text)
    doing, view = "is starting", rollout.view
    if view is not None and view.unshared is not None:
        doing = f"waits for its share of the requests: {view.unshared}"
    elif waits:
        doing = "gets its first pod when one of the former revision is gone"
    return condition(kind, True, Reason.ROLLING, f"revision {rollout.wanted} {doing}")


def _judge_rest(sight: Sight, finding: Finding | None, lacking: str) -> Condition:
    kind = ConditionType.PROGRESSING
    if (contest := fight(sight.scale)) is not None:
        text = (
            f"{contest.by} scales Deployment {contest.deployment} to {contest.replicas} again and "
            f"again, and each time it is put back to {sight.scale.replicas}"
        )
        remedy = "have it scale this RerankerService, in an HPA by scaleTargetRef"
        return condition(kind, False, Reason.REPLICAS_CONTESTED, advise(text, remedy))
    if lacking:
        if finding is not None:
            return condition(kind, True, finding.reason, f"{lacking}: {finding.message}")
        return condition(kind, True, Reason.STARTING, lacking)
    return condition(kind, False, Reason.STABLE, f"revision {sight.rollout.serving} serves")


def _held_text(sight: Sight) -> str:
    if sight.rollout.serving is None:
        return _NOTHING_SERVES
    remedy = "set spec.rollout.paused to false to let it happen"
    return advise(f"held back: {summary(sight.changes)}", remedy)


def _overdue_text(sight: Sight, finding: Finding | None) -> str:
    rollout, under_way = sight.rollout, sight.progress.under_way
    ready = under_way.ready if under_way else 0
    text = (
        f"revision {rollout.wanted} got no further for longer than "
        f"spec.rollout.progressDeadlineSeconds, with {ready} of {sight.scale.replicas} pods ready"
    )
    if rollout.rolling and rollout.serving is not None:
        text += f", and revision {rollout.serving} serves on"
    if finding is None and rollout.view is not None and rollout.view.unshared is not None:
        return f"{text}: {rollout.view.unshared}"
    return f"{text}: {finding.message}" if finding else advise(text, _LOOK_AT_PODS)
