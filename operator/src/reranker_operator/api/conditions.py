"""Condition types and reasons, and the rules by which a condition changes.

Reasons are part of the API: scripts and alerts match on them, and each has an entry in
docs/runbook.md. The rules follow cert-manager: the transition time moves only when the status
flips, and observedGeneration is always written.
"""

import datetime
from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import Literal

from pydantic import Field

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
    AUTOSCALED = "Autoscaled"
    PREPARED = "Prepared"
    COMPILED = "Compiled"
    VALIDATED = "Validated"
    PULLED = "Pulled"
    PUSHED = "Pushed"
    READY = "Ready"


class Reason(StrEnum):
    """Reasons that the operator gives by itself; stages add those of StageReason."""

    ACCEPTED = "Accepted"
    INVALID_SPEC = "InvalidSpec"
    UNKNOWN_SOURCE = "UnknownSource"
    REFERENCE_NOT_FOUND = "ReferenceNotFound"
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
    PARITY_REFUSED = "ParityRefused"
    STARTING = "Starting"
    AVAILABLE = "Available"
    SCALED_TO_ZERO = "ScaledToZero"
    WAKING = "Waking"
    ROLLING = "Rolling"
    STABLE = "Stable"
    PAUSED = "Paused"
    PROGRESS_DEADLINE_EXCEEDED = "ProgressDeadlineExceeded"
    PROVING = "Proving"
    AWAITING_PROMOTION = "AwaitingPromotion"
    GATE_FAILED = "GateFailed"
    ROLLED_BACK = "RolledBack"
    ABORTED = "Aborted"
    UNDONE = "Undone"
    UNDO_IMPOSSIBLE = "UndoImpossible"
    FLOOR_REACHED = "FloorReached"
    REPLICAS_CONTESTED = "ReplicasContested"
    LOAD_MATCHED = "LoadMatched"
    SCALING_OUT = "ScalingOut"
    SCALING_IN = "ScalingIn"
    AT_MAXIMUM = "AtMaximum"
    MEASURING = "Measuring"
    PODS_PENDING = "PodsPending"
    METRICS_UNAVAILABLE = "MetricsUnavailable"
    AUTOSCALER_CONFLICT = "AutoscalerConflict"
    READY = "Ready"
    SECRET_NOT_FOUND = "SecretNotFound"  # noqa: S105 - a reason, no secret
    SECRET_KEY_NOT_FOUND = "SecretKeyNotFound"  # noqa: S105 - as above
    CONFIG_MAP_NOT_FOUND = "ConfigMapNotFound"
    IMAGE_NAME_INVALID = "ImageNameInvalid"
    IMAGE_NOT_FOUND = "ImageNotFound"
    IMAGE_NOT_PRESENT = "ImageNotPresent"
    IMAGE_PULL_UNAUTHORIZED = "ImagePullUnauthorized"
    IMAGE_UNTRUSTED = "ImageUntrusted"
    REGISTRY_UNREACHABLE = "RegistryUnreachable"
    IMAGE_PULL_FAILED = "ImagePullFailed"
    INSUFFICIENT_ACCELERATORS = "InsufficientAccelerators"
    INSUFFICIENT_RESOURCES = "InsufficientResources"
    NODE_SELECTOR_MISMATCH = "NodeSelectorMismatch"
    PLACEMENT_UNSATISFIABLE = "PlacementUnsatisfiable"
    TAINT_NOT_TOLERATED = "TaintNotTolerated"
    UNSCHEDULABLE = "Unschedulable"
    CLAIM_NOT_FOUND = "ClaimNotFound"
    CLAIM_LOST = "ClaimLost"
    STORAGE_CLASS_NOT_FOUND = "StorageClassNotFound"
    PROVISIONING_FAILED = "ProvisioningFailed"
    VOLUME_PENDING = "VolumePending"
    VOLUME_ON_OTHER_NODE = "VolumeOnOtherNode"
    VOLUME_IN_USE = "VolumeInUse"
    MOUNT_FAILED = "MountFailed"
    SANDBOX_FAILED = "SandboxFailed"
    QUOTA_EXCEEDED = "QuotaExceeded"
    LIMIT_RANGE_EXCEEDED = "LimitRangeExceeded"
    POD_SECURITY_REFUSED = "PodSecurityRefused"
    ADMISSION_DENIED = "AdmissionDenied"
    PRIORITY_CLASS_NOT_FOUND = "PriorityClassNotFound"
    RUNTIME_CLASS_NOT_FOUND = "RuntimeClassNotFound"
    SERVICE_ACCOUNT_NOT_FOUND = "ServiceAccountNotFound"
    POD_REJECTED = "PodRejected"
    OUT_OF_MEMORY = "OutOfMemory"
    EVICTED = "Evicted"
    SCRATCH_FULL = "ScratchFull"
    PREEMPTED = "Preempted"
    NODE_LOST = "NodeLost"
    NODE_REFUSED = "NodeRefused"
    POD_KILLED = "PodKilled"
    DEADLINE_EXCEEDED = "DeadlineExceeded"
    CONTAINER_FAILED = "ContainerFailed"
    HOOK_FAILED = "HookFailed"
    SIDECAR_FAILED = "SidecarFailed"
    TRITON_LOAD_FAILED = "TritonLoadFailed"
    TRITON_IMAGE_UNSUITABLE = "TritonImageUnsuitable"
    DRIVER_TOO_OLD = "DriverTooOld"
    PROBE_FAILED = "ProbeFailed"
    NOT_ANSWERING = "NotAnswering"
    CRASH_LOOP = "CrashLoop"
    FORBIDDEN = "Forbidden"
    FOREIGN_OWNER = "ForeignOwner"
    NAMESPACE_TERMINATING = "NamespaceTerminating"
    REJECTED = "Rejected"
    INTEGRATED = "Integrated"
    KIND_MISSING = "KindMissing"
    ROUTE_REFUSED = "RouteRefused"
    ADDRESS_PENDING = "AddressPending"


_QUIET = frozenset(
    {
        Reason.ADDRESS_PENDING,
        Reason.INTEGRATED,
        Reason.LOAD_MATCHED,
        Reason.PAUSED,
        Reason.PENDING,
        Reason.STABLE,
        Reason.STARTING,
        Reason.WAKING,
        Reason.WAITING_FOR_ENGINE,
        Reason.WAITING_FOR_MODEL,
        Reason.WAITING_FOR_PREPARED,
    }
)

#: Takes its time, or is as somebody wished: what the runbook has nothing to do about, but for
#: attempts that failed.
_PLANNED = frozenset(
    {
        Reason.ACCEPTED,
        Reason.ADDRESS_PENDING,
        Reason.AVAILABLE,
        Reason.AWAITING_PROMOTION,
        Reason.BUILDING,
        Reason.BUILT,
        Reason.DONE,
        Reason.INTEGRATED,
        Reason.LOAD_MATCHED,
        Reason.MEASURING,
        Reason.PAUSED,
        Reason.PENDING,
        Reason.PROVING,
        Reason.READY,
        Reason.RESOLVED,
        Reason.RESOLVING,
        Reason.ROLLING,
        Reason.RUNNING,
        Reason.SCALED_TO_ZERO,
        Reason.SCALING_IN,
        Reason.SCALING_OUT,
        Reason.STABLE,
        Reason.STARTING,
        Reason.UNDONE,
        Reason.WAITING_FOR_ENGINE,
        Reason.WAITING_FOR_MODEL,
        Reason.WAITING_FOR_PREPARED,
        Reason.WAKING,
        StageReason.SUCCEEDED,
    }
)

#: Known of a step to come, while the steps before it only take their time.
_FORESEEN = frozenset({Reason.NO_MATCHING_NODE})


class Condition(ApiModel):
    """One entry of `status.conditions`, as the Kubernetes API conventions define it."""

    type: str = Field(description="What it is about.")
    status: ConditionStatus = Field(description="Whether it is so.")
    reason: str = Field(description="Why, in one word; see docs/runbook.md.")
    message: str = Field(default="", description="Why, for people, and what to do.")
    observed_generation: int = Field(default=0, description="metadata.generation that was judged.")
    last_transition_time: datetime.datetime | None = Field(
        default=None, description="When the status changed last."
    )


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


def is_failure(entry: Condition) -> bool:
    """It is not so, and not because that takes its time or was wished for."""
    return entry.status == "False" and entry.reason not in _PLANNED


def summarise(judgements: Sequence[Condition], order: Sequence[ConditionType]) -> Condition:
    """`Ready`: the first of `order` that is not True explains; all True is ready.

    One that only waits gives way to a later one of which it is known that it can't become True.
    """
    foreseen = next((c for c in judgements if c.status == "False" and c.reason in _FORESEEN), None)
    for kind in order:
        entry = find(judgements, kind)
        if entry is None:
            return Condition(
                type=ConditionType.READY, status="Unknown", reason=Reason.PENDING, message=""
            )
        if entry.status != "True":
            if entry.status == "Unknown":
                entry = foreseen or entry
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


def _is_said_by_another(ready: Condition, conditions: Sequence[Condition]) -> bool:
    return ready.status == "False" and any(
        (entry.status, entry.reason) == ("False", ready.reason)
        for entry in conditions
        if entry.type != ConditionType.READY
    )


def changes_worth_telling(
    before: Sequence[Condition], after: Sequence[Condition]
) -> list[Condition]:
    """Conditions that became True or failed; waiting for another one is no news.

    Of several that became True at once only the last is told: it would not be without the others.
    """
    known = {entry.type: (entry.status, entry.reason) for entry in before}
    news = [
        entry
        for entry in after
        if entry.status != "Unknown"
        and not (entry.type == ConditionType.PROGRESSING and entry.status == "True")
        and entry.reason not in _QUIET
        and known.get(entry.type) != (entry.status, entry.reason)
        # Somebody has to be the first to build it.
        and (entry.type, entry.reason) != (ConditionType.PULLED, StageReason.ARTEFACT_NOT_FOUND)
        and not (entry.type == ConditionType.READY and _is_said_by_another(entry, after))
    ]
    reached = [entry for entry in news if entry.status == "True"]
    return [entry for entry in news if entry.status != "True" or entry is reached[-1]]
