"""How a changed service gets to new pods, and what is remembered of it."""

import datetime
from typing import Annotated, Literal

from pydantic import Field

from reranker_operator.api.autoscaling import IgnoredScale
from reranker_operator.api.exposure import IntOrPercent
from reranker_operator.api.meta import ApiModel

Strategy = Literal["surge", "noSurge", "canary", "blueGreen"]


class CanaryStep(ApiModel):
    """One share of the traffic, and how long the new revision is judged with it."""

    weight: int = Field(
        ge=1, le=100, description="Percent of the requests that the new revision gets."
    )
    seconds: int = Field(
        default=60,
        ge=0,
        le=86400,
        description="Time in seconds for which the gates judge it, from when its pods are ready.",
    )
    until_promoted: bool = Field(
        default=False,
        description="Go on only after `kubectl rr rollout promote`, when the time is over.",
    )


_STEPS = (CanaryStep(weight=10), CanaryStep(weight=50))


class CanarySpec(ApiModel):
    """The way of a new revision to the traffic, step by step; after the last it gets all."""

    steps: tuple[CanaryStep, ...] = Field(
        default=_STEPS,
        min_length=1,
        max_length=20,
        description="Steps in order, weights never falling. Default: 10 % and 50 %, 60 s each.",
    )


class BlueGreenSpec(ApiModel):
    """When the address moves to a new revision that stands complete beside the former one."""

    auto_promote: bool = Field(
        default=True,
        description="Move when the gates have passed; else after `kubectl rr rollout promote`.",
    )
    preview_seconds: int = Field(
        default=0,
        ge=0,
        le=86400,
        description="Time in seconds that it stands at NAME-preview before, complete, while the "
        "gates judge it.",
    )


Share = Annotated[float, Field(ge=0, le=1)]


class ShadowGate(ApiModel):
    """A share of the requests is also scored by the new revision, and the scores are compared.

    For the strategies that show it beside the former one: canary and blueGreen.
    """

    percent: int = Field(
        default=5,
        ge=1,
        le=100,
        description="Percent of the former revision's requests that are sent to the new one, too. "
        "Another value makes another revision.",
    )
    min_kendall_tau: float = Field(
        default=0.95,
        ge=-1,
        le=1,
        description="Least mean of Kendall's tau-b of the two revisions' scores of a request: 1 is "
        "the same order of its passages, 0 none, -1 the opposite one.",
    )
    min_requests: int = Field(
        default=50, ge=1, le=1_000_000, description="Compared requests before it is judged."
    )


class GatesSpec(ApiModel):
    """What a new revision is judged by, beside the one before it, while both can be measured.

    What there are too few requests for passes, and the status says so.
    """

    max_error_increase: Share = Field(
        default=0.01,
        description="Share of requests that may fail (5xx) beyond the former revision's; 1 judges "
        "none. A gate fails only by more than chance explains.",
    )
    min_requests: int = Field(
        default=50, ge=1, le=1_000_000, description="Requests before errors are judged."
    )
    max_slowdown: float = Field(
        default=1.5,
        ge=1,
        le=1000,
        description="Times the former revision's seconds per token that it may take.",
    )
    min_tokens: int = Field(
        default=20_000, ge=1, le=1 << 40, description="Tokens before the time for one is judged."
    )
    shadow: ShadowGate | None = Field(
        default=None,
        description="Compare the scores of both revisions on live requests. Default: they are not "
        "compared. It works from the next change on after the one that brought it.",
    )


class RolloutSpec(ApiModel):
    """How running pods are replaced when something about them changes."""

    strategy: Strategy = Field(
        default="surge",
        description=(
            "surge starts all new pods beside the old ones and needs room for both; the address "
            "moves when all are ready, so no request fails. noSurge never asks for more pods than "
            "`replicas`: one old pod goes, and only when it is gone a new one comes; meanwhile "
            "both revisions answer. With one replica nothing answers in between. canary gives the "
            "new revision more of the traffic step by step. blueGreen shows it at NAME-preview "
            "before the address moves."
        ),
    )
    paused: bool = Field(
        default=False,
        description=(
            "Hold back whatever would change running pods: edits of the spec and upgrades of the "
            "operator. `status.pendingChanges` says what waits. `replicas`, damaged files, lost "
            "pods and changes by others are still looked after."
        ),
    )
    canary: CanarySpec | None = Field(
        default=None, description="Steps of the strategy canary. Default: 10 % and 50 %, 60 s each."
    )
    blue_green: BlueGreenSpec | None = Field(
        default=None, description="Of the strategy blueGreen. Default: move when it is complete."
    )
    min_available: IntOrPercent | None = Field(
        default=None,
        description=(
            "Of the strategy noSurge: ready pods, or percent of `replicas`, below which no pod is "
            "given up. Default: one fewer than replicas; with as many as replicas, or more, no "
            "rollout gets on. The other strategies never go below replicas."
        ),
    )
    gates: GatesSpec = Field(default=GatesSpec())
    bake_seconds: int = Field(
        default=60,
        ge=0,
        le=86400,
        description=(
            "Time in seconds for which the gates judge a new revision that has all the traffic, "
            "while the former one is kept as it was; with noSurge also the first new pod. 0 lets "
            "the former one go at once."
        ),
    )
    auto_rollback: bool = Field(
        default=True,
        description=(
            "Give the traffic back to the former revision when a gate fails or the new one does "
            "not get ready; `status.failed` says why, and it is not tried again. Else the rollout "
            "stops where it is."
        ),
    )
    keep_engines: int = Field(
        default=1,
        ge=0,
        le=10,
        description=(
            "Former revisions whose engines and pod templates are kept for `kubectl rr rollout "
            "undo`. They are of those that `history` keeps on record: what is more than that has "
            "no effect."
        ),
    )
    history: int = Field(
        default=5, ge=0, le=50, description="Former revisions to keep on record in status.history."
    )
    progress_deadline_seconds: int = Field(
        default=600,
        ge=30,
        le=86400,
        description=(
            "Seconds without another ready pod after which a new revision counts as stuck. With "
            "autoRollback it is given up then; else Progressing is False, the old one serves on, "
            "and the new one is still tried."
        ),
    )


class RevisionRecord(ApiModel):
    """A revision that has got the traffic."""

    revision: str = Field(description="Hash of what runs.")
    engine: str = Field(description="Name of the engine that it serves.")
    time: datetime.datetime = Field(description="When all its pods were ready and it was proven.")
    why: str = Field(default="", description="What was changed to get to it.")
    spec_hash: str | None = Field(default=None, description="Hash of the spec that it was for.")
    template: str | None = Field(
        default=None,
        description="Its pods, packed: the revision can be gone back to, its engine is kept.",
    )


class FailedRevision(ApiModel):
    """A revision that the traffic was taken from, or that never got it."""

    revision: str = Field(description="Hash of what was to run.")
    time: datetime.datetime = Field(description="When it was given up.")
    gate: str = Field(
        description="What it failed: ready, errorRate, latency, shadow, or abort where somebody "
        "ended it."
    )
    message: str = Field(default="", description="Why, with numbers.")
    why: str = Field(default="", description="What was changed to get to it.")
    retry: str | None = Field(
        default=None,
        description="The annotation reranker.dev/rollout-retry at that time, or its hash.",
    )
    in_force: bool = Field(
        default=True,
        description="It is not tried again, until something changes or it is asked for.",
    )


class GateStatus(ApiModel):
    """One gate, as it was judged last."""

    name: str = Field(description="ready, parity, errorRate, latency or shadow.")
    state: Literal["Passed", "Failed", "Waiting", "NoData"] = Field(
        description="Waiting: too few requests yet. NoData: nothing to judge."
    )
    message: str = Field(default="", description="The numbers.")


class Measured(ApiModel):
    """What pods did in some time."""

    requests: float = Field(default=0, description="Requests that were answered.")
    failed: float = Field(default=0, description="Those of them that failed.")
    tokens: float = Field(default=0, description="Tokens that went through the engine.")
    busy_seconds: float = Field(default=0, description="Seconds in which the engine had work.")


class Compared(ApiModel):
    """What one pod of the former revision has compared of a revision's scores."""

    pod: str = Field(description="Name of the pod; empty for all that are gone.")
    requests: float = Field(default=0, description="Requests.")
    tau: float = Field(default=0, description="Sum of Kendall's tau over them.")
    failed: float = Field(
        default=0, description="Requests that could not be compared: it did not answer them."
    )


class RolloutProgress(ApiModel):
    """A revision on its way to the traffic; the deadline is counted from `since`."""

    revision: str = Field(description="Hash of what is to run.")
    since: datetime.datetime = Field(description="When it was begun or last got further.")
    asked: int = Field(default=0, description="Pods that it was given so far.")
    ready: int = Field(default=0, description="The most of its pods that were ready.")
    why: str = Field(default="", description="What was changed to get to it.")
    strategy: str | None = Field(default=None, description="How it gets there.")
    step: int = Field(default=0, description="Number of the phase, from 0.")
    phase: str | None = Field(
        default=None,
        description="Starting, FirstPod, Canary, Preview, Completing, Proving or Returning.",
    )
    weight: int | None = Field(
        default=None, description="Percent of the requests that it gets in this phase."
    )
    by: Literal["route", "replicas"] | None = Field(
        default=None, description="What divides the requests: Gateway API, or numbers of pods."
    )
    complete_since: datetime.datetime | None = Field(
        default=None, description="Since when all its pods of this phase are ready."
    )
    held: bool = Field(default=False, description="It stands still while the service is paused.")
    awaits_promotion: bool = Field(default=False, description="It goes on when it is promoted.")
    trouble: str | None = Field(default=None, description="Reason why its pods do not start.")
    trouble_since: datetime.datetime | None = Field(default=None, description="Since when.")
    failing_since: datetime.datetime | None = Field(
        default=None, description="Since when a gate fails."
    )
    unread_since: datetime.datetime | None = Field(
        default=None,
        description="Since when pods that tell of it can't be read; it waits for them.",
    )
    gates: tuple[GateStatus, ...] = Field(default=(), description="What it is judged by.")
    gates_time: datetime.datetime | None = Field(
        default=None, description="When their numbers were so; they are looked at more often."
    )
    before: Measured | None = Field(
        default=None, description="What the former revision did before, to compare with."
    )
    compared_before: tuple[Compared, ...] = Field(
        default=(),
        description="What is taken off the pods' counters, as of an earlier try of this revision; "
        "less than nothing once a pod has begun anew.",
    )
    compared: tuple[Compared, ...] = Field(
        default=(), description="Scores of this revision that were compared in this rollout."
    )


class ColdStart(ApiModel):
    """How long a pod took from being asked for to ready, in seconds, each right to one second."""

    pod: str = Field(description="Name of the pod.")
    time: datetime.datetime = Field(description="When it was ready.")
    seconds: float = Field(description="All of it.")
    schedule: float = Field(description="Until a node was found.")
    prepare: float = Field(description="Images and volumes.")
    verify: float = Field(description="Check of the engine's files.")
    load: float = Field(description="Triton and the engine.")
    warm_up: float = Field(description="The gateway and the first batches.")


class Contest(ApiModel):
    """Somebody scales a Deployment of ours, and each time it is put back."""

    by: str = Field(description="Field manager that wrote the number.")
    deployment: str = Field(description="Name of the Deployment.")
    replicas: int = Field(description="The number that it wrote.")
    times: int = Field(default=1, description="How often it was put back.")
    time: datetime.datetime = Field(description="When it was put back last.")


class ScaleStatus(ApiModel):
    """The number of pods that is aimed at, and where it comes from."""

    replicas: int = Field(description="Pods to aim at.")
    set_by: str | None = Field(
        default=None,
        description="Field managers that own spec.replicas; none where it is not recorded.",
    )
    owner: str | None = Field(
        default=None,
        description="Who decides: autoscaling, HorizontalPodAutoscaler, KEDA, kubectl, or the "
        "field manager of a manifest; none where it is not recorded.",
    )
    ignored: IgnoredScale | None = Field(
        default=None, description="What spec.replicas says while spec.autoscaling decides."
    )
    contest: Contest | None = Field(default=None, description="Who scales a Deployment instead.")
