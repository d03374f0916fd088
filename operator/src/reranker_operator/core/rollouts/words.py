"""What `Progressing` says of a revision on its way: what it waits for, what it failed."""

import datetime

from reranker_operator import names
from reranker_operator.api.conditions import Condition, ConditionType, Reason, condition
from reranker_operator.api.rollout import FailedRevision, RolloutProgress
from reranker_operator.core.rollout import Rollout
from reranker_operator.core.rollouts.view import View
from reranker_operator.core.wording import advise

_KIND = ConditionType.PROGRESSING


def judge_way(rollout: Rollout, under_way: RolloutProgress | None) -> Condition | None:
    """The judgement, where there is more to say than that pods start."""
    wish, view = rollout.wish, rollout.view
    if view is None or rollout.frozen:
        return None
    if wish.given_up is not None and view.trusted:
        return _given_up(wish.given_up, view)
    if under_way is not None and not view.straight:
        found = _on_the_way(rollout, view, under_way)
        if found is not None:
            return found
    if wish.problem is not None:
        return condition(_KIND, False, Reason.UNDO_IMPOSSIBLE, wish.problem)
    if wish.undone and not rollout.rolling:
        text = f"revision {view.target} serves by annotation {names.UNDO}, not what the spec says"
        remedy = "change the spec, or remove the annotation (kubectl rr rollout retry)"
        return condition(_KIND, False, Reason.UNDONE, advise(text, remedy))
    return None


def _given_up(failure: FailedRevision, view: View) -> Condition:
    does = "serves" if view.arrived else "gets the traffic back"
    name = view.world.service.metadata.name
    remedy = f"change the spec, or try again with `kubectl rr rollout retry {name}`"
    if failure.gate == "abort":
        text = f"revision {failure.revision} was {failure.message}; revision {view.target} {does}"
        return condition(_KIND, False, Reason.ABORTED, advise(text, remedy))
    text = (
        f"revision {failure.revision} failed gate {failure.gate} and was given up: "
        f"{failure.message.rstrip('.')}; revision {view.target} {does}"
    )
    return condition(_KIND, False, Reason.ROLLED_BACK, advise(text, remedy))


def _on_the_way(rollout: Rollout, view: View, under_way: RolloutProgress) -> Condition | None:
    target, name = under_way.revision, view.world.service.metadata.name
    failed = next((gate for gate in under_way.gates if gate.state == "Failed"), None)
    if failed is not None and not view.world.service.spec.rollout.auto_rollback:
        text = f"revision {target} fails gate {failed.name}: {failed.message}"
        remedy = (
            f"go back with `kubectl rr rollout abort {name}`, or go on all the same with "
            f"`kubectl rr rollout promote {name}`"
        )
        return condition(_KIND, False, Reason.GATE_FAILED, advise(text, remedy))
    if under_way.awaits_promotion:
        text = f"revision {target} is ready and {_share(view, under_way).removesuffix(',')}"
        remedy = (
            f"go on with `kubectl rr rollout promote {name}`, or back with "
            f"`kubectl rr rollout abort {name}`"
        )
        return condition(_KIND, False, Reason.AWAITING_PROMOTION, advise(text, remedy))
    if rollout.floor_holds:
        text = (
            "no pod can be given up without going below spec.rollout.minAvailable, so revision "
            f"{target} gets none"
        )
        remedy = "lower it, raise replicas, or set spec.rollout.strategy to surge for a while"
        return condition(_KIND, False, Reason.FLOOR_REACHED, advise(text, remedy))
    if view.dormant:
        text = f"revision {target} is judged further as soon as there are pods again"
        return condition(_KIND, True, Reason.PROVING, text)
    if under_way.complete_since is None or not view.stage.seconds:
        return None
    end = under_way.complete_since + datetime.timedelta(seconds=view.stage.seconds)
    doing = f"revision {target} {_share(view, under_way)} and is judged"
    until = f" until {end:%H:%M:%S} UTC" if end > view.world.now else ""
    waiting = [gate for gate in under_way.gates if gate.state != "Passed"]
    said = "; ".join(f"{gate.name}: {gate.message}" for gate in waiting)
    return condition(
        _KIND, True, Reason.PROVING, f"{doing}{until}" + (f" ({said})" if said else "")
    )


def _share(view: View, under_way: RolloutProgress) -> str:
    if view.arrived:
        return "has the traffic"
    if under_way.weight is not None:
        how = "by route" if under_way.by == "route" else "by the number of its pods"
        return f"gets {under_way.weight} % of the requests, {how},"
    if view.strategy == "blueGreen":
        return f"stands at {names.preview_service(view.world.service.metadata.name)}"
    return "has its first pod"
