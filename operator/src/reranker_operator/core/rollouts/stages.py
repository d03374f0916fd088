"""The strategies as lists of stages that a new revision goes through, one after the other.

A stage says how many pods it has and where the address leads. It is over when all those pods are
ready, have been judged for its time and, where that is asked for, somebody has promoted them.
"""

import math
from dataclasses import dataclass
from typing import Literal

from reranker_operator.api.rollout import CanarySpec, RolloutSpec

Phase = Literal["Starting", "FirstPod", "Canary", "Preview", "Completing", "Proving", "Returning"]
Address = Literal["former", "both", "new"]


@dataclass(frozen=True)
class Stage:
    """`pods` of the new revision, None for all; `weight` is the share of requests in percent."""

    phase: Phase
    pods: int | None = None
    seconds: int = 0
    weight: int = 0
    address: Address = "former"
    until_promoted: bool = False

    def count(self, total: int) -> int:
        """The number of its pods where the service has `total`."""
        return total if self.pods is None else min(self.pods, total)


def stages(asked: RolloutSpec, total: int, *, routed: bool) -> tuple[Stage, ...]:
    """The way of a new revision to the traffic. `routed`: a route divides the requests."""
    bake = asked.bake_seconds if total else 0
    proving = Stage("Proving", None, bake, 100, "new")
    if asked.strategy == "noSurge":
        first = (Stage("FirstPod", 1, bake, address="both"),) if bake and total > 1 else ()
        return (*first, Stage("Completing", address="both"), proving)
    if asked.strategy == "blueGreen":
        settings = asked.blue_green
        if settings is None:
            return Stage("Preview"), proving
        waits = not settings.auto_promote
        return Stage("Preview", None, settings.preview_seconds, 0, "former", waits), proving
    if asked.strategy == "canary" and total:
        steps = (asked.canary or CanarySpec()).steps
        address: Address = "former" if routed else "both"
        canary = (
            Stage(
                "Canary",
                canary_pods(total, step.weight, routed=routed),
                step.seconds,
                step.weight,
                address,
                step.until_promoted,
            )
            for step in steps
        )
        return (*canary, Stage("Completing", None, 0, steps[-1].weight, address), proving)
    return Stage("Starting"), proving


#: The way of a revision that was proven before, and where nothing else could serve meanwhile.
STRAIGHT = (Stage("Returning", None, 0, 0, "new"),)


def canary_pods(total: int, weight: int, *, routed: bool) -> int:
    """Pods that carry this share of the requests, beside `total` of the former revision.

    Those of the former revision all stay, for an instant way back; so where numbers of pods divide
    the requests, the new one gets at most as many as that: half of the requests.
    """
    if routed or weight >= 100:
        return max(1, min(total, math.ceil(total * weight / 100)))
    return max(1, min(total, round(total * weight / (100 - weight))))


def share_of_pods(former: int, new: int) -> int:
    """Percent of the requests that go to the new pods where all pods get the same."""
    return round(100 * new / (former + new)) if former + new else 0
