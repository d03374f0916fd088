"""Condition types and reasons, and the rules by which a condition changes.

Reasons are part of the API: scripts and alerts match on them, and each has an entry in
docs/runbook.md. The rules follow cert-manager: the transition time moves only when the status
flips, and observedGeneration is always written.
"""

import datetime
from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import Literal

from reranker_contracts import StageReason
from reranker_operator.api.meta import ApiModel

ConditionStatus = Literal["True", "False", "Unknown"]


class ConditionType(StrEnum):
    """Types of both kinds; `Ready` is derived from the others and never set on its own."""

    ACCEPTED = "Accepted"
    MODEL_RESOLVED = "ModelResolved"
    ENGINE_READY = "EngineReady"
    SERVING = "Serving"
    INTEGRATED = "Integrated"
    PROGRESSING = "Progressing"
    PREPARED = "Prepared"
    COMPILED = "Compiled"
    VALIDATED = "Validated"
    READY = "Ready"


class Reason(StrEnum):
    """Reasons that the operator gives by itself; stages add those of StageReason."""

    ACCEPTED = "Accepted"
    INVALID_SPEC = "InvalidSpec"
    UNKNOWN_SOURCE = "UnknownSource"
    NO_MATCHING_NODE = "NoMatchingNode"
    RESOLVING = "Resolving"
    RESOLVED = "Resolved"
    WAITING_FOR_MODEL = "WaitingForModel"
    WAITING_FOR_ENGINE = "WaitingForEngine"
    WAITING_FOR_PREPARED = "WaitingForPrepared"
    PENDING = "Pending"
    RUNNING = "Running"
    DONE = "Done"
    RETRYING = "Retrying"
    BUILDING = "Building"
    BUILT = "Built"
    REBUILDING = "Rebuilding"
    PARITY_REFUSED = "ParityRefused"
    STARTING = "Starting"
    AVAILABLE = "Available"
    SCALED_TO_ZERO = "ScaledToZero"
    ROLLING = "Rolling"
    STABLE = "Stable"
    READY = "Ready"
    SECRET_NOT_FOUND = "SecretNotFound"  # noqa: S105 - a reason, no secret
    IMAGE_PULL_FAILED = "ImagePullFailed"
    UNSCHEDULABLE = "Unschedulable"
    VOLUME_PENDING = "VolumePending"
    QUOTA_EXCEEDED = "QuotaExceeded"
    POD_REJECTED = "PodRejected"
    OUT_OF_MEMORY = "OutOfMemory"
    POD_KILLED = "PodKilled"
    DEADLINE_EXCEEDED = "DeadlineExceeded"
    CONTAINER_FAILED = "ContainerFailed"
    CRASH_LOOP = "CrashLoop"
    FORBIDDEN = "Forbidden"
    REJECTED = "Rejected"
    INTEGRATED = "Integrated"
    KIND_MISSING = "KindMissing"
    FOREIGN_OWNER = "ForeignOwner"
    ROUTE_REFUSED = "RouteRefused"
    ADDRESS_PENDING = "AddressPending"


_QUIET = frozenset(
    {
        Reason.ADDRESS_PENDING,
        Reason.INTEGRATED,
        Reason.PENDING,
        Reason.STARTING,
        Reason.WAITING_FOR_ENGINE,
        Reason.WAITING_FOR_MODEL,
        Reason.WAITING_FOR_PREPARED,
    }
)


class Condition(ApiModel):
    """One entry of `status.conditions`, as the Kubernetes API conventions define it."""

    type: str
    status: ConditionStatus
    reason: str
    message: str = ""
    observed_generation: int = 0
    last_transition_time: datetime.datetime | None = None


def condition(
    kind: ConditionType,
    status: ConditionStatus | bool,
    reason: Reason | StageReason,
    message: str,
) -> Condition:
    """A judgement without times; `merge` adds those."""
    if isinstance(status, bool):
        status = "True" if status else "False"
    return Condition(type=kind.value, status=status, reason=reason.value, message=message[:1024])


def find(conditions: Iterable[Condition], kind: ConditionType) -> Condition | None:
    """The condition of this type, or None."""
    return next((entry for entry in conditions if entry.type == kind), None)


def is_true(conditions: Iterable[Condition], kind: ConditionType) -> bool:
    """Whether the condition of this type is there and True."""
    entry = find(conditions, kind)
    return entry is not None and entry.status == "True"


def summarise(judgements: Sequence[Condition], order: Sequence[ConditionType]) -> Condition:
    """`Ready`: the first of `order` that is not True explains; all True is ready."""
    for kind in order:
        entry = find(judgements, kind)
        if entry is None:
            return Condition(
                type=ConditionType.READY, status="Unknown", reason=Reason.PENDING, message=""
            )
        if entry.status != "True":
            return Condition(
                type=ConditionType.READY,
                status="False",
                reason=entry.reason,
                message=entry.message,
            )
    return condition(ConditionType.READY, True, Reason.READY, "ready")


def merge(
    previous: Sequence[Condition],
    judgements: Sequence[Condition],
    generation: int,
    now: datetime.datetime,
) -> list[Condition]:
    """The next `status.conditions`: judgements with transition times carried over."""
    result = []
    for entry in judgements:
        before = next((old for old in previous if old.type == entry.type), None)
        flipped = before is None or before.status != entry.status
        moment = now if flipped or before is None else before.last_transition_time
        result.append(
            entry.model_copy(
                update={"observed_generation": generation, "last_transition_time": moment}
            )
        )
    return result


def changes_worth_telling(
    before: Sequence[Condition], after: Sequence[Condition]
) -> list[Condition]:
    """Conditions that became True or failed; waiting for another one is no news."""
    known = {entry.type: (entry.status, entry.reason) for entry in before}
    return [
        entry
        for entry in after
        if entry.status != "Unknown"
        and entry.type != ConditionType.PROGRESSING
        and entry.reason not in _QUIET
        and known.get(entry.type) != (entry.status, entry.reason)
        and not (entry.type == ConditionType.READY and entry.status == "False")
    ]
