"""Pods that were ended from outside: evicted, preempted, refused by the node, gone with it."""

from reranker_operator.api.conditions import Reason
from reranker_operator.core.causes.finding import Finding, finding
from reranker_operator.core.causes.pods import condition_of, is_build
from reranker_operator.core.wording import quote
from reranker_operator.core.world import Manifest

_LIMITS = (
    "exceeds the limit",
    "exceeded its local ephemeral storage limit",
    "exceeds the total limit",
)
_REFUSED = frozenset({"UnexpectedAdmissionError", "NodeAffinity", "NodeSelectorMismatching"})
_WITH_NODE = frozenset({"DeletionByTaintManager", "DeletionByPodGC"})


def ended_from_outside(pod: Manifest) -> Finding | None:
    """Why a pod ended for no reason of its containers."""
    status = pod.get("status", {})
    reason, text = str(status.get("reason", "")), quote(status.get("message"))
    target = condition_of(pod, "DisruptionTarget")
    because = target.get("reason", "") if target.get("status") == "True" else ""
    if reason == "Evicted":
        return _evicted(pod, text)
    if because == "PreemptionByScheduler" or reason == "Preempting":
        words = text or quote(target.get("message"))
        remedy = "give it a higher priority, or the cluster more room"
        return finding(Reason.PREEMPTED, f"the pod made room for others: {words}", remedy)
    if because in _WITH_NODE or reason in ("NodeLost", "NodeShutdown", "Terminated"):
        words = text or quote(target.get("message")) or "it does not answer"
        where = pod.get("spec", {}).get("nodeName", "of the pod")
        remedy = "see `kubectl describe node`"
        return finding(Reason.NODE_LOST, f"node {where} is lost: {words}", remedy)
    if reason.startswith("OutOf") or reason in _REFUSED:
        remedy = "see `kubectl describe node` and its device plugin"
        return finding(Reason.NODE_REFUSED, f"the node refuses the pod: {reason} {text}", remedy)
    return None


def _evicted(pod: Manifest, text: str) -> Finding:
    if any(words in text for words in _LIMITS):
        remedy = "use a smaller model" if is_build(pod) else "raise that limit in spec.serving"
        return finding(Reason.SCRATCH_FULL, f"the pod was evicted: {text}", remedy)
    remedy = "free that resource on the node, or use nodes with more"
    return finding(Reason.EVICTED, f"the pod was evicted: {text}", remedy)


def node_is_silent(pod: Manifest) -> bool:
    """The node's controller has taken the pod's readiness away, which the kubelet still claims."""
    ready, containers = condition_of(pod, "Ready"), condition_of(pod, "ContainersReady")
    return bool(
        ready.get("status") == "False"
        and containers.get("status") == "True"
        and ready.get("reason") != "ReadinessGatesNotReady"
    )
