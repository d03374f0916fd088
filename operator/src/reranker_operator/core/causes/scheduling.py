"""Why no node takes a pod, from the scheduler's words and from the nodes themselves."""

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from reranker_operator.api.conditions import Reason
from reranker_operator.core.causes import volumes
from reranker_operator.core.causes.finding import Finding, clue, finding, recognise
from reranker_operator.core.causes.pods import condition_of, is_build
from reranker_operator.core.wording import quote
from reranker_operator.core.world import Manifest

_PREEMPTION = re.compile(r"\s*(?:no new claims to deallocate, )?preemption: .*", re.DOTALL)
_DEVICE = re.compile(r"Insufficient ([\w.-]+/[\w./-]*\w)")
_TAINT = "untolerated taint"
_CORDONED = "were unschedulable"
_CLUES = (
    clue(
        "topology spread constraints|affinity rules",
        Reason.PLACEMENT_UNSATISFIABLE,
        "relax affinity and topologySpreadConstraints in spec.serving.pod, or add nodes",
    ),
    clue(
        _DEVICE.pattern,
        Reason.INSUFFICIENT_ACCELERATORS,
        "free {device}, add a node that has it, or change spec.accelerator{tainted}{cordoned}",
    ),
    clue(
        r"Insufficient \w|Too many pods",
        Reason.INSUFFICIENT_RESOURCES,
        "free capacity, add a node, or lower {resources}{cordoned}",
    ),
    clue(
        "node affinity/selector",
        Reason.NODE_SELECTOR_MISMATCH,
        "{selector}label a node, or change spec.accelerator.nodeSelector",
    ),
    clue(_TAINT, Reason.TAINT_NOT_TOLERATED, "{tolerate}take the taint off a node"),
    clue(
        _CORDONED,
        Reason.UNSCHEDULABLE,
        "let pods on nodes again that are cordoned (`kubectl uncordon NODE`), or add a node",
    ),
    clue(
        "",
        Reason.UNSCHEDULABLE,
        "check spec.accelerator, {resources} and the cluster's free capacity",
    ),
)
#: Reasons that better knowledge of the nodes may replace.
REASONS = frozenset(entry.reason for entry in _CLUES)


def unscheduled(
    pod: Manifest, claims: Iterable[Manifest], events: Iterable[Manifest]
) -> Finding | None:
    """Why the scheduler finds no node for the pod.

    Of each node it names the first filter that the node does not pass, and filters run in this
    order: taints, affinity and selector, resources, volumes, spread. The last one named is that of
    the nodes that got furthest, so it decides.
    """
    entry = condition_of(pod, "PodScheduled")
    if entry.get("status") != "False" or entry.get("reason") == "SchedulingGated":
        return None
    text = _PREEMPTION.sub("", str(entry.get("message", "")))
    found = volumes.unbindable(pod, text, claims, events)
    if found is not None or entry.get("reason") != "Unschedulable":
        return found
    device, build = _DEVICE.search(text), is_build(pod)
    tainted = ". If tainted nodes have it, tolerate that in spec.accelerator.tolerations"
    cordoned = ". Nodes that are cordoned take pods again after `kubectl uncordon NODE`"
    return recognise(
        _CLUES,
        text,
        f"no node takes the pod: {quote(text)}",
        device=device[1] if device else "",
        selector=_selector_text(pod),
        cordoned=cordoned if _CORDONED in text else "",
        tainted=tainted if _TAINT in text else "",
        resources="spec.engine.resources" if build else "the resources in spec.serving",
        tolerate="" if build else "tolerate the taint in spec.accelerator.tolerations, or ",
    )


def _selector_text(pod: Manifest) -> str:
    """What a build's pod asks its node for; of serving pods the nodes themselves tell more."""
    selector = pod.get("spec", {}).get("nodeSelector") or {}
    if not selector or not is_build(pod):
        return ""
    labels = ", ".join(f"{key}={value}" for key, value in sorted(selector.items()))
    return f"no node has the labels {labels} and room: add one, "


def no_node(
    nodes: Collection[Manifest],
    resource: str,
    count: int,
    selector: Mapping[str, str],
    tolerations: Iterable[Mapping[str, Any]],
) -> Finding | None:
    """No node could ever take a pod that asks for this; known before any pod was made."""
    fitting = [node for node in nodes if fits(node, resource, count, selector)]
    labels = ", ".join(f"{key}={value}" for key, value in sorted(selector.items()))
    wish = f"{count} {resource}" + (f" and the labels {labels}" if labels else "")
    if not fitting:
        return finding(
            Reason.NO_MATCHING_NODE,
            f"none of {len(nodes)} nodes has {wish}",
            "add such a node or change spec.accelerator",
        )
    tolerated = list(tolerations)
    found = {_strange_taint(node, tolerated) for node in fitting}
    if None in found:
        return None
    taints = ", ".join(sorted(str(taint) for taint in found))
    return finding(
        Reason.TAINT_NOT_TOLERATED,
        f"every node with {wish} has a taint that the pods do not tolerate: {taints}",
        "tolerate it in spec.accelerator.tolerations, or take it off a node",
    )


def fits(node: Manifest, resource: str, count: int, selector: Mapping[str, str]) -> bool:
    """The node has these labels and, taken or not, as much of the resource."""
    labels = node["metadata"].get("labels", {})
    there = str(node.get("status", {}).get("allocatable", {}).get(resource, 0))
    return (
        there.isdecimal()
        and int(there) >= count
        and all(labels.get(key) == value for key, value in selector.items())
    )


def _strange_taint(node: Manifest, tolerations: list[Mapping[str, Any]]) -> str | None:
    for taint in node.get("spec", {}).get("taints", []):
        if taint["effect"] != "PreferNoSchedule" and not any(
            _tolerates(entry, taint) for entry in tolerations
        ):
            value = f"={taint['value']}" if taint.get("value") else ""
            return f"{taint['key']}{value}:{taint['effect']}"
    return None


def _tolerates(toleration: Mapping[str, Any], taint: Mapping[str, Any]) -> bool:
    if toleration.get("effect") not in (None, "", taint["effect"]):
        return False
    if toleration.get("operator") == "Exists":
        return toleration.get("key") in (None, "", taint["key"])
    same_value = (toleration.get("value") or "") == (taint.get("value") or "")
    return toleration.get("key") == taint["key"] and same_value
