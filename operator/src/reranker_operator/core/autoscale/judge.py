"""The condition `Autoscaled`: whether the number of pods follows the load, and why it is that."""

from reranker_operator.api.conditions import Condition, ConditionStatus, ConditionType, Reason
from reranker_operator.api.conditions import condition as judged
from reranker_operator.api.rollout import ScaleStatus
from reranker_operator.core.autoscale.decide import Outcome
from reranker_operator.core.replicas import is_autoscaler, rival
from reranker_operator.core.wording import advise
from reranker_operator.core.world import ServiceWorld

_STATUS: dict[Outcome, ConditionStatus] = {
    Outcome.MEASURING: "Unknown",
    Outcome.PODS_PENDING: "False",
    Outcome.METRICS_UNAVAILABLE: "False",
}
_REMEDIES = {
    Outcome.AT_MAXIMUM: "raise it if requests wait too long",
    Outcome.PODS_PENDING: "add nodes or free room, and see Progressing; no further pods are asked "
    "for meanwhile",
    Outcome.METRICS_UNAVAILABLE: "let the operator reach port 8002 of the pods; no pod is taken "
    "away meanwhile",
}


def judge_autoscaling(world: ServiceWorld, scale: ScaleStatus) -> list[Condition]:
    """Nothing where the operator does not decide."""
    status = world.service.status.autoscaling
    if world.service.spec.autoscaling is None or status is None:
        return []
    kind = ConditionType.AUTOSCALED
    if (other := rival(scale)) is not None:
        text = (
            f"{other.by or 'somebody'} sets spec.replicas, which spec.autoscaling takes no heed of"
        )
        remedy = "set spec.autoscaling.min and spec.autoscaling.max instead, or remove it"
        if is_autoscaler(other):
            remedy = "remove the HorizontalPodAutoscaler or ScaledObject, or spec.autoscaling"
        return [judged(kind, False, Reason.AUTOSCALER_CONFLICT, advise(text, remedy))]
    outcome = Outcome(status.reason)
    pods = "1 pod" if status.desired == 1 else f"{status.desired or 'no'} pods"
    text = f"{pods}: {status.why}"
    if outcome in _REMEDIES:
        text = advise(text, _REMEDIES[outcome])
    return [judged(kind, _STATUS.get(outcome, "True"), Reason(status.reason), text)]
